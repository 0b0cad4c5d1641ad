"""The engine's HTTP server: OpenAI's routes, vLLM's adapter routes, health and metrics.

It binds loopback by default and has no authentication: whoever reaches it may load any adapter of
the allowed folder. Clients talk to the gateway.
"""

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial

from aiohttp import web

from flywheel.errors import BadRequestError, ConfigError, EngineBusyError, FlywheelError
from flywheel.models import Progress
from flywheel.records import JsonObject
from flywheel.serve.engine.completions import chat_completions, completions
from flywheel.serve.engine.engine import Engine, EngineOptions
from flywheel.serve.engine.loras import load_adapter, unload_adapter
from flywheel.serve.engine.replies import error_body, model_card

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 16 * 2**20
DRAIN_S = 20.0
"""How long answers being written may take when the server is told to end."""

Handler = Callable[[web.Request, Engine], Awaitable[web.StreamResponse]]
_Plain = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An engine behind HTTP, on a port of its own."""

    def __init__(self, engine: Engine, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._engine, self._host, self._port = engine, host, port
        self._started = int(time.time())
        self._is_draining = False
        self._in_flight = 0
        self._runner = web.AppRunner(
            self._app(), handler_cancellation=True, access_log=None, shutdown_timeout=1.0
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self._runner.addresses[0][1] if self._runner.addresses else self._port
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """Binds the port.

        Raises:
            ConfigError: it cannot be bound.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self._host}:{self._port}"
            raise ConfigError(
                "engine", [f"cannot listen on {where}: {error.strerror}. --port 0 takes a free one"]
            ) from error

    async def stop(self, *, drain_s: float = DRAIN_S) -> None:
        """Takes no new request, lets the answers being written end, then closes."""
        self._is_draining = True
        deadline = time.monotonic() + drain_s
        while self._in_flight and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._answer_errors])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._generating(chat_completions)),
                web.post("/v1/completions", self._generating(completions)),
                web.post("/v1/load_lora_adapter", self._bound(load_adapter)),
                web.post("/v1/unload_lora_adapter", self._bound(unload_adapter)),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model:.+}", self._one_model),
                web.get("/health", self._alive),
                web.get("/healthz", self._alive),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    def _bound(self, handler: Handler) -> _Plain:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request, self._engine)

        return handle

    def _generating(self, handler: Handler) -> _Plain:
        async def handle(request: web.Request) -> web.StreamResponse:
            if self._is_draining:
                raise EngineBusyError("the engine is shutting down", status=503)
            self._in_flight += 1
            try:
                return await handler(request, self._engine)
            finally:
                self._in_flight -= 1

        return handle

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: _Plain) -> web.StreamResponse:
        """Errors of the tree and of the router become OpenAI's error object."""
        started, status = time.monotonic(), 500
        try:
            response = await _answered(request, handler)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = 499  # nginx's number for a client that went away
            raise
        finally:
            resource = request.match_info.route.resource
            route = resource.canonical if resource is not None else "unknown"
            self._engine.meter.answered(route, status, time.monotonic() - started)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": list(self._cards())})

    async def _one_model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        self._engine.adapters.check(name)
        found = [card for card in self._cards() if card["id"] == name]
        if not found:
            async with self._engine.adapters.lease(name):
                found = [card for card in self._cards() if card["id"] == name]
        return web.json_response(found[0])

    def _cards(self) -> Iterator[JsonObject]:
        engine, length = self._engine, self._engine.model.max_length
        yield model_card(
            engine.name,
            root=engine.options.model,
            parent=None,
            created=self._started,
            max_length=length,
        )
        for one in engine.adapters.registered:
            yield model_card(
                one.name,
                root=str(one.path),
                parent=engine.name,
                created=one.created,
                max_length=length,
            )

    async def _alive(self, request: web.Request) -> web.Response:
        if self._engine.scheduler.is_healthy:
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "the engine's steps fail"}, status=503)

    async def _ready(self, request: web.Request) -> web.Response:
        if self._is_draining:
            return web.json_response({"status": "shutting down"}, status=503)
        return await self._alive(request)

    async def _metrics(self, request: web.Request) -> web.Response:
        text = self._engine.meter.render(self._engine.gauges())
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4"})


async def _answered(request: web.Request, handler: _Plain) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequestError as error:
        body = error_body(str(error), param=error.param, code=error.code)
        return web.json_response(body, status=error.status)
    except EngineBusyError as error:
        kind = "rate_limit_error" if error.status == 429 else "server_error"
        return web.json_response(
            error_body(str(error), kind=kind, code="engine_busy"),
            status=error.status,
            headers={"Retry-After": str(error.retry_after_s)},
        )
    except FlywheelError as error:
        body = error_body(str(error), kind="server_error", code=type(error).__name__)
        return web.json_response(body, status=500)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = f"{request.method} {request.path}: {error.reason}"
        return web.json_response(error_body(message), status=error.status)


async def serve(
    options: EngineOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 8100,
    progress: Progress | None = None,
    on_ready: Callable[[str, Engine], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then lets the answers being written end.

    Args:
        options: what to serve.
        host: address to bind.
        port: 0 takes a free one.
        progress: told what is loading.
        on_ready: called with the URL once requests are answered.
    """
    with Engine(options, progress=progress) as engine:
        server = Server(engine, host=host, port=port)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        await server.start()
        if on_ready is not None:
            on_ready(server.url, engine)
        await ended.wait()
        log.info("shutting down: no new requests, %s s for the ones in flight", DRAIN_S)
        await server.stop()


@contextlib.contextmanager
def running(engine: Engine, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serves a started engine from a thread of its own, for tests and notebooks; yields the URL."""
    ready: Future[tuple[str, Callable[[], object]]] = Future()

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = Server(engine, host=host, port=port)
        try:
            await server.start()
        except ConfigError as error:
            ready.set_exception(error)
            return
        ready.set_result((server.url, partial(loop.call_soon_threadsafe, ended.set)))
        await ended.wait()
        await server.stop(drain_s=5.0)

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="flywheel-http", daemon=True)
    thread.start()
    url, stop = ready.result()
    try:
        yield url
    finally:
        stop()
        thread.join()
