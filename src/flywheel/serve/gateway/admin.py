"""The admin port: flip an alias, look at releases, seal the spool. Behind a bearer token.

Input: a Release as JSON. Output: the alias switched in memory, in the time of one request. The
ledger was written before; the watcher would find it too, a few seconds later.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import JsonValue, ValidationError

from flywheel.errors import BadRequestError, ConfigError, EpochConflictError
from flywheel.records import CaptureCounters, JsonObject, Release
from flywheel.serve.gateway.body import BodyError, read_body
from flywheel.serve.gateway.recorder import CaptureSink
from flywheel.serve.gateway.replies import bad_request, json_reply, unavailable
from flywheel.serve.gateway.routing import Route, RouteTable

SEAL_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MOST_TOLD = 2000


class SpoolState(CaptureCounters):
    """The reply of GET /admin/spool."""

    is_writable: bool
    """Whether what is captured now will be kept."""


class AdminEndpoints:
    """The handlers."""

    def __init__(self, routes: RouteTable, sink: CaptureSink) -> None:
        self._routes, self._sink = routes, sink

    def add_to(self, app: web.Application) -> None:
        """Registers them."""
        app.router.add_get("/admin/releases", self.releases)
        app.router.add_post("/admin/releases", self.switch)
        app.router.add_get("/admin/spool", self.spool)
        app.router.add_post("/admin/spool/flush", self.flush)

    async def releases(self, request: web.Request) -> web.Response:
        """GET /admin/releases: the releases in force, and what every alias stands for."""
        routes = self._routes.all()
        known: list[JsonValue] = [r.release.model_dump(mode="json") for r in routes if r.release]
        return json_reply({"data": known, "routes": [_shown(route) for route in routes]})

    async def switch(self, request: web.Request) -> web.Response:
        """POST /admin/releases: 200 when the alias points there now, 409 when it has moved on."""
        try:
            raw = await read_body(request, timeout_s=BODY_TIMEOUT_S)
            release = Release.model_validate_json(raw)
            is_switched = self._routes.apply(release)
        except BodyError as error:
            return bad_request(str(error), status=error.status, code=error.code)
        except ValidationError as error:
            message = f"not a Release: {str(error)[:_MOST_TOLD]}"
            return bad_request(message, status=422, code="invalid_release")
        except EpochConflictError as error:
            return bad_request(str(error), status=409, code="epoch_conflict")
        except BadRequestError as error:
            return bad_request(str(error), status=404, param=error.param, code=error.code)
        route = self._routes.of(release.workload)
        return json_reply({"switched": is_switched, **_shown(route)})

    async def spool(self, request: web.Request) -> web.Response:
        """GET /admin/spool: what became of everything captured."""
        return json_reply(self._counters())

    async def flush(self, request: web.Request) -> web.Response:
        """POST /admin/spool/flush: everything captured so far can be drained now."""
        is_sealed = await asyncio.to_thread(self._sink.seal, timeout_s=SEAL_TIMEOUT_S)
        if not is_sealed:
            message = f"the disk did not take the spool within {SEAL_TIMEOUT_S:.0f} s"
            return unavailable(message, status=503, code="spool_stuck")
        return json_reply(self._counters())

    def _counters(self) -> JsonObject:
        counters = self._sink.counters.model_dump()
        return SpoolState(**counters, is_writable=self._sink.is_writable).model_dump(mode="json")


def _shown(route: Route) -> dict[str, JsonValue]:
    return {
        "workload": route.workload,
        "alias": route.alias,
        "model": route.model,
        "adapter": route.adapter,
        "arm": route.arm,
        "epoch": route.epoch,
    }


def check_token(token: str) -> None:
    """Refuses to start without one.

    Raises:
        ConfigError: the token is empty: anybody could point an alias anywhere.
    """
    if not token:
        raise ConfigError(
            "FLYWHEEL_ADMIN_TOKEN",
            [
                "the admin token is empty. Set it, or put it into <home>/admin-token, "
                "or let `flywheel gateway --generate-admin-token` make one"
            ],
        )


def require_token(token: str) -> Middleware:
    """A middleware that lets only bearers of the token in."""
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path != "/healthz" and not hmac.compare_digest(given, expected):
            return bad_request(
                "the admin token is missing or wrong: send `Authorization: Bearer <token>`; "
                "it is in <home>/admin-token",
                status=401,
                code="unauthorized",
            )
        return await handler(request)

    return check
