"""The gateway: what one process holds, and its two applications, public and admin.

Input: workloads, a sink for what is captured, a source of releases. Output: aiohttp applications.
Command: `flywheel gateway`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aiohttp import web
from pydantic import Field, JsonValue, SecretStr

from flywheel.errors import ConfigError, KeyRefusedError, UnknownModelError
from flywheel.prices import PriceTable
from flywheel.records import JsonObject, Record
from flywheel.serve.gateway.admin import AdminEndpoints, check_token, require_token
from flywheel.serve.gateway.admission import Admission, refusal
from flywheel.serve.gateway.checks import build_checks
from flywheel.serve.gateway.dispatch import Dispatcher
from flywheel.serve.gateway.endpoint import ModelEndpoint, Parts
from flywheel.serve.gateway.feedback import FeedbackEndpoint
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.openapi import describe
from flywheel.serve.gateway.pages import labelled
from flywheel.serve.gateway.providers import build_providers
from flywheel.serve.gateway.recorder import CaptureSink, Recorder
from flywheel.serve.gateway.releases import ReleaseSource, ReleaseWatcher
from flywheel.serve.gateway.replies import bad_request, json_reply, readable
from flywheel.serve.gateway.routing import Route, RouteTable
from flywheel.serve.gateway.surface import SURFACES
from flywheel.workload import Workload

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Telemetry(Protocol):
    """What OpenTelemetry's exporters talk to."""

    async def traces(self, request: web.Request) -> web.StreamResponse:
        """Answers `POST /v1/traces`."""
        ...

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Answers `POST /v1/logs`."""
        ...

    async def run(self) -> None:
        """Works beside the requests until it is cancelled."""
        ...

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Parts by signal (`spans`, `logs`) and what became of them."""
        ...


class GatewayConfig(Record):
    """Facts of one gateway process."""

    engine_urls: tuple[str, ...] = Field(min_length=1)
    """Replicas of the model server, without `/v1`."""
    max_body_bytes: int = 32 << 20
    """A larger request is refused with 413."""
    header_timeout_s: float = 20.0
    """A connection whose request's head has not come by then is closed."""
    body_timeout_s: float = 60.0
    """A request whose body has not come by then is refused with 408."""
    keepalive_timeout_s: float = 75.0
    """A connection that asks nothing for so long is closed; more than load balancers wait."""
    poll_interval_s: float = 5.0
    """How often the release ledger is read."""
    shutdown_timeout_s: float = 15.0
    """How long requests in flight may take to finish after SIGTERM."""
    subject_secret: SecretStr = SecretStr("")
    keys_file: Path | None = None
    """The gateway's API keys; while there is no such file everybody is let in."""
    spend_dir: Path | None = None
    """Where it is kept what was spent today. None: no keys, limits or budgets are looked at."""
    prices_file: Path | None = None
    """What a token costs. None: every cost is unknown."""
    worker: int | None = None
    """Which of several processes on one port it is: the label of its numbers."""


class Gateway:
    """Everything one gateway process holds.

    Args:
        workloads: whose aliases are served.
        sink: where calls and judgements go.
        releases: where the champions are recorded.
        config: facts of the process.
        load: reads the workloads again, for `reload`.

    Raises:
        ConfigError: two workloads share a name or an alias.
    """

    def __init__(
        self,
        workloads: Sequence[Workload],
        *,
        sink: CaptureSink,
        releases: ReleaseSource,
        config: GatewayConfig,
        load: Callable[[], Sequence[Workload]] | None = None,
    ) -> None:
        self.config, self.sink, self._load = config, sink, load
        self.workloads = tuple(workloads)
        """As they were last read and taken over."""
        self.telemetry: Telemetry | None = None
        """Answers `POST /v1/traces` and `/v1/logs`; set before the application is made, or they are
        not served."""
        self.metrics = Metrics()
        self.routes = RouteTable(workloads)
        self.watcher = ReleaseWatcher(
            releases, self.routes, self.metrics, interval_s=config.poll_interval_s
        )
        self.providers = build_providers(workloads, config.engine_urls)
        self.checks = build_checks(workloads)
        self.admission = self._open_door(workloads)
        self.is_stopping = False
        self._joining: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether releases are loaded, the spool takes records, and nobody asked to stop."""
        return self.watcher.loaded.is_set() and self.sink.is_writable and not self.is_stopping

    def _open_door(self, workloads: Sequence[Workload]) -> Admission | None:
        config = self.config
        if config.keys_file is None or config.spend_dir is None:
            return None
        return Admission.open(
            keys_file=config.keys_file,
            spend_dir=config.spend_dir,
            prices=PriceTable.load(config.prices_file),
            workloads=workloads,
            metrics=self.metrics,
        )

    def reload(self) -> None:
        """Reads the workload files again; what is in flight ends as it began.

        All of it is taken over or nothing. The names of workloads and their aliases are fixed at
        the start; keys are read from this process's environment.

        Raises:
            ConfigError: with every mistake; the gateway goes on as before.
        """
        if self._load is None:
            raise ConfigError("gateway", ["it was started without files to read again"])
        workloads = self._load()
        routes, checks = RouteTable(workloads), build_checks(workloads)
        providers = build_providers(workloads, self.config.engine_urls)
        prices = PriceTable.load(self.config.prices_file)
        self.routes.replace(routes)
        self.workloads = tuple(workloads)
        self.providers.replace(providers)
        self.checks.clear()
        self.checks.update(checks)
        if self.admission is not None:
            self.admission.reload(workloads, prices)
        self.metrics.reloads += 1

    async def start(self) -> None:
        """Opens the connection pool and begins to follow the releases."""
        await self.providers.start()
        self.watcher.start()
        if self.telemetry is not None:
            self._joining = asyncio.create_task(self.telemetry.run())

    async def close(self) -> None:
        """Ends both. The sink is its owner's to close."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait([self._joining])
        await self.watcher.stop()
        await self.providers.close()
        if self.admission is not None:
            await asyncio.to_thread(self.admission.close)


def create_app(gateway: Gateway) -> web.Application:
    """The public application; it starts and closes the gateway."""
    secret = gateway.config.subject_secret.get_secret_value().encode()
    app = web.Application(client_max_size=gateway.config.max_body_bytes)
    recorder = Recorder(gateway.sink, gateway.metrics, gateway.admission)
    parts = Parts(
        gateway.routes,
        Dispatcher(gateway.providers, gateway.metrics),
        recorder,
        is_loaded=gateway.watcher.loaded.is_set,
        subject_secret=secret,
        checks=gateway.checks,
        admission=gateway.admission,
        body_timeout_s=gateway.config.body_timeout_s,
    )
    feedback = FeedbackEndpoint(
        gateway.routes,
        recorder,
        subject_secret=secret,
        admission=gateway.admission,
        body_timeout_s=gateway.config.body_timeout_s,
    )
    looks = _Looks(gateway)
    for surface in SURFACES:
        app.router.add_post(f"/v1/{surface.path}", ModelEndpoint(parts, surface).__call__)
    app.router.add_post("/v1/feedback", feedback.__call__)
    if gateway.telemetry is not None:
        gateway.metrics.telemetry = gateway.telemetry.counts
        app.router.add_post("/v1/traces", _Exports(gateway, gateway.telemetry.traces).__call__)
        app.router.add_post("/v1/logs", _Exports(gateway, gateway.telemetry.logs).__call__)
    app.router.add_get("/v1/models", looks.models)
    app.router.add_get("/v1/models/{name:.+}", looks.model)
    app.router.add_get("/healthz", looks.healthz)
    app.router.add_get("/readyz", looks.readyz)
    app.router.add_get("/metrics", looks.metrics)
    app.router.add_get("/openapi.json", _openapi)
    app.router.add_route("*", r"/{rest:[\s\S]*}", _nothing_here)  # %0A is no reason to say less

    async def lifetime(app: web.Application) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.close()

    app.cleanup_ctx.append(lifetime)
    return app


def create_admin_app(gateway: Gateway, token: str) -> web.Application:
    """The administration.

    Raises:
        ConfigError: the token is empty: anybody could point an alias anywhere.
    """
    check_token(token)
    app = web.Application(middlewares=[require_token(token)])
    AdminEndpoints(gateway.routes, gateway.sink).add_to(app)
    app.router.add_get("/admin/providers", _Looks(gateway).providers)
    app.router.add_post("/admin/reload", _Looks(gateway).reload)
    app.router.add_get("/metrics", _Looks(gateway, is_alone=True).metrics)
    app.router.add_get("/healthz", _Looks(gateway).healthz)
    return app


class _Looks:
    """Requests that only look."""

    def __init__(self, gateway: Gateway, *, is_alone: bool = False) -> None:
        self._gateway = gateway
        self._worker = None if is_alone else gateway.config.worker

    async def models(self, request: web.Request) -> web.Response:
        """GET /v1/models: the aliases."""
        if (refused := _refused(self._gateway, request)) is not None:
            return refused
        routes = self._gateway.routes.all()
        return json_reply({"object": "list", "data": [_as_model(route) for route in routes]})

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/{name}: one of them, 404 where there is none."""
        if (refused := _refused(self._gateway, request)) is not None:
            return refused
        try:
            return json_reply(_as_model(self._gateway.routes.find(request.match_info["name"])))
        except UnknownModelError as error:
            return bad_request(str(error), status=404, param=error.param, code=error.code)

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: the process answers."""
        return json_reply({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 200 when calls are answered by the right model and captured."""
        gateway = self._gateway
        return json_reply(
            {
                "ready": gateway.is_ready,
                "releases_loaded": gateway.watcher.loaded.is_set(),
                "spool_writable": gateway.sink.is_writable,
                "stopping": gateway.is_stopping,
            },
            status=200 if gateway.is_ready else 503,
        )

    async def providers(self, request: web.Request) -> web.Response:
        """GET /admin/providers: who may answer, and whose circuit is open. No keys."""
        shown: list[JsonValue] = [
            {
                "name": one.name,
                "urls": list(one.urls),
                "circuit": one.breaker.state,
                "has_key": one.section.api_key is not None,
            }
            for one in self._gateway.providers.all()
        ]
        return json_reply({"data": shown})

    async def reload(self, request: web.Request) -> web.Response:
        """POST /admin/reload: 200 when the files are in force, 422 with every mistake in them."""
        try:
            self._gateway.reload()
        except ConfigError as error:
            return bad_request(str(error), status=422, code="invalid_config")
        return json_reply({"reloaded": True, "aliases": list(self._gateway.routes.aliases)})

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics: Prometheus text, of this process."""
        gateway = self._gateway
        page = gateway.metrics.render(
            gateway.routes.all(), gateway.sink.counters, is_ready=gateway.is_ready
        )
        if self._worker is not None:
            page = labelled(page, self._worker)
        return web.Response(
            body=page.encode(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )


class _Exports:
    """Requests of OpenTelemetry's exporters, for whoever has a key where one is needed."""

    def __init__(self, gateway: Gateway, answer: Handler) -> None:
        self._gateway, self._answer = gateway, answer

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answers one."""
        if (refused := _refused(self._gateway, request)) is not None:
            return refused
        timeout_s = self._gateway.config.body_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(request)
        except TimeoutError:
            message = f"what was sent did not come, or was not stored, within {timeout_s:g} s"
            return bad_request(message, status=408, code="body_timeout")


def _refused(gateway: Gateway, request: web.Request) -> web.Response | None:
    """The reply to somebody without a key, where one is needed."""
    try:
        if gateway.admission is not None:
            gateway.admission.authenticate(request.headers)
    except KeyRefusedError as error:
        return refusal(error)
    return None


def _as_model(route: Route) -> JsonObject:
    created = int(route.release.created_at.timestamp()) if route.release else 0
    return {"id": route.alias, "object": "model", "created": created, "owned_by": "flywheel"}


async def _openapi(request: web.Request) -> web.Response:
    return json_reply(describe())


async def _nothing_here(request: web.Request) -> web.Response:
    paths = ", ".join(f"/v1/{surface.path}" for surface in SURFACES)
    return bad_request(
        f"{request.method} {readable(request.path)} is not served; served: POST {paths}, "
        "/v1/feedback, GET /v1/models, /healthz, /readyz, /metrics, /openapi.json",
        status=404,
        code="not_found",
    )
