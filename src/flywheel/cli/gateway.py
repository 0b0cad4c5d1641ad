"""`flywheel gateway`: the spool and the release ledger wired to the gateway."""

import os
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.common import DEFAULT_WORKLOAD, HomeOption, JsonOption, console, print_json
from flywheel.errors import MissingExtraError
from flywheel.records import Release
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from flywheel.capture import Spool
    from flywheel.capture.importers.live.wire import OtlpEndpoints
    from flywheel.lake import Lake
    from flywheel.serve.gateway import Address, Gateway, GatewayConfig, Seat
    from flywheel.serve.gateway.server import OnReady


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
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that share the public port. Each counts rate limits for itself.",
        ),
    ] = 1,
    spool_gb: Annotated[float, typer.Option(help="Most the spool may hold, in GB.")] = 4.0,
    max_body_mb: Annotated[float, typer.Option(help="Largest request, in MB.")] = 32.0,
    as_json: JsonOption = False,
) -> None:
    """Serve the stable model names of workloads, and capture every call.

    Prints one line once it answers. SIGTERM lets requests in flight finish and flushes the spool.
    SIGHUP, or POST /admin/reload, reads the workload files again: a provider or a route is changed
    without a restart, and a file with a mistake in it changes nothing. With several workers the
    signals go to the first process, the admin port speaks for all of them, and one that dies is
    started again.

    Example: flywheel gateway --home demo --workload examples/triage/flywheel.yaml
    """
    import logging

    try:
        from flywheel.serve.gateway import Address, Fleet, GatewayConfig, check_token
    except ImportError as error:
        raise MissingExtraError(error.name or "aiohttp", "gateway") from error

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.load(home=home)
    token = _admin_token(settings, is_made=generate_admin_token)
    check_token(token)
    files = _Files(workload or [DEFAULT_WORKLOAD], settings)
    config = GatewayConfig(
        engine_urls=tuple(engine_url or settings.engine_urls),
        max_body_bytes=int(max_body_mb * 1e6),
        subject_secret=settings.subject_key_secret,
        keys_file=settings.gateway_keys_file,
        spend_dir=settings.gateway_dir,
        prices_file=settings.prices,
    )

    def told(public_url: str, admin_url: str) -> None:
        aliases = [one.alias for one in files.workloads]
        if as_json:
            print_json({"url": public_url, "admin_url": admin_url, "models": aliases})
        else:
            console.print(
                f"gateway ready: {public_url}/v1 (admin {admin_url}) serves {', '.join(aliases)}",
                soft_wrap=True,
            )

    process = _Process(settings, files, config, token=token, spool_bytes=int(spool_gb * 1e9))
    ports = (Address(host, port), Address(admin_host, admin_port))
    if workers == 1:
        process.alone(*ports, told)
    else:
        Fleet(workers, process.seated, ports=ports, on_ready=told, reload=files.reload).run()


class _Files:
    """The workload files, and what was in them when they were last read and right."""

    def __init__(self, paths: Sequence[Path], settings: Settings) -> None:
        self._paths, self._settings = paths, settings
        self.workloads = self.read()

    def read(self) -> list[Workload]:
        """What is in them now; drains that are told of no workload learn their policies too."""
        from flywheel.capture.redact import remember_policy

        workloads = [Workload.load(path) for path in self._paths]
        for one in workloads:
            remember_policy(one, self._settings)
        return workloads

    def reload(self) -> None:
        self.workloads = self.read()


class _Process:
    """One gateway process, the only one or one of several."""

    def __init__(
        self,
        settings: Settings,
        files: _Files,
        config: "GatewayConfig",
        *,
        token: str,
        spool_bytes: int,
    ) -> None:
        self._settings, self._files, self._config = settings, files, config
        self._token, self._spool_bytes = token, spool_bytes

    def alone(self, public: "Address", admin: "Address", on_ready: "OnReady") -> None:
        """Serves on two ports of its own until it is told to stop."""
        from flywheel.serve.gateway import serve

        with self._gateway(self._config) as served:
            _run(serve(served, public=public, admin=admin, token=self._token, on_ready=on_ready))

    def seated(self, seat: "Seat") -> None:
        """Serves as a worker until the parent says stop."""
        from flywheel.serve.gateway import serve_seat

        with self._gateway(self._config.model_copy(update={"worker": seat.index})) as served:
            served.metrics.worker_restarts = seat.restarts
            _run(serve_seat(served, seat, token=self._token))

    @contextmanager
    def _gateway(self, config: "GatewayConfig") -> "Iterator[Gateway]":
        from flywheel.capture import Spool
        from flywheel.lake import Lake
        from flywheel.serve.gateway import Gateway

        workloads = self._files.workloads
        with Spool(
            self._settings.spool_dir,
            max_bytes=self._spool_bytes,
            default_workload=workloads[0].name,
        ) as spool:
            served = Gateway(
                workloads,
                sink=spool,
                releases=_Ledger(Lake.open(self._settings)),
                config=config,
                load=self._files.read,
            )
            served.telemetry = _telemetry(spool, self._settings, served)
            yield served


def _run(work: "Coroutine[object, object, None]") -> None:
    import asyncio

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _telemetry(spool: "Spool", settings: Settings, served: "Gateway") -> "OtlpEndpoints":
    """`POST /v1/traces` and `/v1/logs` on this gateway; a span may name one of its workloads."""
    from flywheel.capture.importers import Source
    from flywheel.capture.importers.live import JoinBuffer, OtlpReceiver
    from flywheel.capture.importers.live.wire import OtlpEndpoints
    from flywheel.capture.parsed import keep

    def source() -> Source:
        workloads = served.workloads  # those of the last reload
        return Source(
            workload=workloads[0].name,
            workloads=frozenset(one.name for one in workloads),
            label_name=workloads[0].labels.name,
            subject_secret=settings.subject_key_secret.get_secret_value().encode(),
        )

    buffer = JoinBuffer(settings.spool_dir)
    return OtlpEndpoints(OtlpReceiver(partial(keep, spool), source, buffer))


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
