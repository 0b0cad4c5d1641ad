"""`flywheel gateway`: the spool and the release ledger wired to the gateway."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.common import DEFAULT_WORKLOAD, HomeOption, JsonOption, console, print_json
from flywheel.errors import MissingExtraError
from flywheel.records import Assessment, Interaction, Release
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from flywheel.capture import Spool
    from flywheel.capture.importers.otlp_http import TracesEndpoint
    from flywheel.lake import Lake


def gateway(
    home: HomeOption = None,
    workload: Annotated[
        list[Path] | None,
        typer.Option(
            "--workload", "-w", envvar="FLYWHEEL_WORKLOAD", help="A workload file; repeatable."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of the public port.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The public port; 0 takes a free one.")] = 8080,
    admin_host: Annotated[str, typer.Option(help="Address of the admin port.")] = "127.0.0.1",
    admin_port: Annotated[int, typer.Option(help="The admin port; 0 takes a free one.")] = 8081,
    engine_url: Annotated[
        list[str] | None,
        typer.Option(help="A model server, without /v1; repeatable. Default: the settings'."),
    ] = None,
    generate_admin_token: Annotated[
        bool, typer.Option(help="Where there is no admin token, make one in <home>/admin-token.")
    ] = False,
    spool_gb: Annotated[float, typer.Option(help="Most the spool may hold, in GB.")] = 4.0,
    max_body_mb: Annotated[float, typer.Option(help="Largest request, in MB.")] = 32.0,
    as_json: JsonOption = False,
) -> None:
    """Serve the stable model names of workloads, and capture every call.

    Prints one line once it answers. SIGTERM lets requests in flight finish and flushes the spool.
    SIGHUP, or POST /admin/reload, reads the workload files again: a provider or a route is changed
    without a restart, and a file with a mistake in it changes nothing.

    Example: flywheel gateway --home demo --workload examples/triage/flywheel.yaml
    """
    import asyncio
    import logging

    from flywheel.capture import Spool
    from flywheel.capture.redact import remember_policy
    from flywheel.lake import Lake

    try:
        from flywheel.serve.gateway import Address, Gateway, GatewayConfig, serve
    except ImportError as error:
        raise MissingExtraError(error.name or "aiohttp", "gateway") from error

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.load(home=home)
    token = _admin_token(settings, is_made=generate_admin_token)
    paths = workload or [DEFAULT_WORKLOAD]
    workloads = [Workload.load(path) for path in paths]
    for one in workloads:
        remember_policy(one, settings)
    config = GatewayConfig(
        engine_urls=tuple(engine_url or settings.engine_urls),
        max_body_bytes=int(max_body_mb * 1e6),
        subject_secret=settings.subject_key_secret,
        keys_file=settings.gateway_keys_file,
        spend_dir=settings.gateway_dir,
        prices_file=settings.prices,
    )

    def told(public_url: str, admin_url: str) -> None:
        aliases = [one.alias for one in workloads]
        if as_json:
            print_json({"url": public_url, "admin_url": admin_url, "models": aliases})
        else:
            console.print(
                f"gateway ready: {public_url}/v1 (admin {admin_url}) serves {', '.join(aliases)}",
                soft_wrap=True,
            )

    spool = Spool(
        settings.spool_dir, max_bytes=int(spool_gb * 1e9), default_workload=workloads[0].name
    )
    with spool:
        served = Gateway(
            workloads,
            sink=spool,
            releases=_Ledger(Lake.open(settings)),
            config=config,
            load=lambda: [Workload.load(path) for path in paths],
        )
        served.traces = _traces(spool, settings, workloads)
        run = serve(
            served,
            public=Address(host, port),
            admin=Address(admin_host, admin_port),
            token=token,
            on_ready=told,
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run)


def _traces(spool: "Spool", settings: Settings, workloads: Sequence[Workload]) -> "TracesEndpoint":
    """`POST /v1/traces` on this gateway; a span may name one of its workloads."""
    import asyncio

    from flywheel.capture.importers import Source
    from flywheel.capture.importers.otlp_http import TracesEndpoint

    def keep(records: Sequence[Interaction | Assessment]) -> bool:
        taken = [
            spool.append(
                "interaction" if isinstance(record, Interaction) else "assessment",
                record,
                durability="before_response",
            )
            for record in records
        ]
        return all(taken) and asyncio.run(spool.durable())

    def source() -> Source:
        return Source(
            workload=workloads[0].name,
            workloads=frozenset(one.name for one in workloads),
            label_name=workloads[0].labels.name,
            subject_secret=settings.subject_key_secret.get_secret_value().encode(),
        )

    return TracesEndpoint(keep, source)


class _Ledger:
    """The lake as a ReleaseSource."""

    def __init__(self, lake: "Lake") -> None:
        self._lake = lake

    def current(self, workload: str) -> Release | None:
        return self._lake.current_release(workload)


def _loop_factory() -> "Callable[[], AbstractEventLoop] | None":
    """The faster loop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = new_event_loop
    return factory


def _admin_token(settings: Settings, *, is_made: bool) -> str:
    token = settings.read_admin_token()
    if not token and is_made:
        token = secrets.token_urlsafe(32)
        settings.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(
            settings.root / "admin-token", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(token)
    return token
