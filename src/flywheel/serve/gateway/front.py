"""The admin port of several workers: every request is asked of all, and answered for all.

Input: requests as one worker's admin port takes them. Output: one answer. A release is switched
when all who live follow it; who has not within a second is named under `behind` and catches up: it
reads the ledger every few seconds, and before it answers anybody when it was just started.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

import aiohttp
from aiohttp import web
from pydantic import JsonValue
from pydantic_core import from_json

from flywheel.records import JsonObject, Record, Release
from flywheel.serve.gateway.admin import BODY_TIMEOUT_S, SEAL_TIMEOUT_S, SpoolState, require_token
from flywheel.serve.gateway.body import BodyError, read_body
from flywheel.serve.gateway.pages import combined
from flywheel.serve.gateway.replies import bad_request, json_reply, unavailable

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
"""How long a worker may take to follow."""
_CIRCUITS = ("closed", "half_open", "open")


class _Said(NamedTuple):
    status: int
    payload: bytes
    content_type: str


class _Releases(Record):
    data: list[Release]
    routes: list[JsonObject]


def create_front_app(
    siblings: Sequence[str], token: str, *, on_reload: Callable[[], None]
) -> web.Application:
    """The application of the admin port.

    Args:
        siblings: root URLs of the workers' private admin ports.
        token: of all of them.
        on_reload: called when the workers have read their files again.
    """
    front = _Front(siblings, token, on_reload)
    app = web.Application(middlewares=[require_token(token)])
    app.router.add_get("/admin/releases", front.releases)
    app.router.add_post("/admin/releases", front.switch)
    app.router.add_get("/admin/spool", front.spool)
    app.router.add_post("/admin/spool/flush", front.flush)
    app.router.add_get("/admin/providers", front.providers)
    app.router.add_post("/admin/reload", front.reload)
    app.router.add_get("/metrics", front.metrics)
    app.router.add_get("/healthz", front.healthz)
    app.cleanup_ctx.append(front.lifetime)
    return app


class _Front:
    """The handlers."""

    def __init__(self, siblings: Sequence[str], token: str, on_reload: Callable[[], None]) -> None:
        self._siblings, self._on_reload = siblings, on_reload
        self._headers = {"Authorization": f"Bearer {token}"}

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        # A connection to a worker that was replaced is none to its successor.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            yield

    async def switch(self, request: web.Request) -> web.Response:
        """POST /admin/releases: 200 when it was said who follows, the refusal of who refuses."""
        try:
            body = await read_body(request, timeout_s=BODY_TIMEOUT_S)
        except BodyError as error:
            return bad_request(str(error), status=error.status, code=error.code)
        said = await self._ask_all("POST", "/admin/releases", body=body)
        refused = next((one for one in said if one is not None and one.status >= 400), None)
        if refused is not None:
            return _passed_on(refused)
        bodies = [_body(one) for one in said if one is not None]
        if not bodies:
            return self._silence()
        is_switched = any(body["switched"] for body in bodies)
        if behind := _missing(said):
            logger.warning("workers that do not follow yet: %s", behind)
        return self._reply(said, {**bodies[0], "switched": is_switched})

    async def releases(self, request: web.Request) -> web.Response:
        """GET /admin/releases: of each workload and alias, where the last to follow is."""
        said = await self._ask_all("GET", "/admin/releases")
        found = [_Releases.model_validate_json(one.payload) for one in said if one is not None]
        if not found:
            return self._silence()
        routes = {
            route["alias"]: min(
                (
                    other
                    for one in found
                    for other in one.routes
                    if other["alias"] == route["alias"]
                ),
                key=lambda shown: int(str(shown["epoch"])),
            )
            for route in found[0].routes
        }
        oldest = _known_to_all([one.data for one in found])
        data: list[JsonValue] = [release.model_dump(mode="json") for release in oldest]
        return self._reply(said, {"data": data, "routes": [*routes.values()]})

    async def reload(self, request: web.Request) -> web.Response:
        """POST /admin/reload: one worker tries the files first; none follows if it refuses."""
        first = await self._ask(self._siblings[0], "POST", "/admin/reload")
        if first is None or first.status >= 400:
            return self._silence() if first is None else _passed_on(first)
        self._on_reload()
        further = await asyncio.gather(
            *(self._ask(url, "POST", "/admin/reload") for url in self._siblings[1:])
        )
        # One that refuses what the first one took is no follower either.
        said = [first, *(one if one and one.status < 400 else None for one in further)]
        return self._reply(said, _body(first))

    async def spool(self, request: web.Request) -> web.Response:
        """GET /admin/spool: the sum over the workers since each of them was started."""
        return self._counted(await self._ask_all("GET", "/admin/spool"))

    async def flush(self, request: web.Request) -> web.Response:
        """POST /admin/spool/flush: everything captured so far can be drained now."""
        said = await self._ask_all("POST", "/admin/spool/flush", within_s=SEAL_TIMEOUT_S + FOLLOW_S)
        refused = next((one for one in said if one is not None and one.status >= 400), None)
        return self._counted(said) if refused is None else _passed_on(refused)

    async def providers(self, request: web.Request) -> web.Response:
        """GET /admin/providers: each with the circuit of the worker that finds it worst."""
        said = await self._ask_all("GET", "/admin/providers")
        worst: dict[str, JsonObject] = {}
        for body in (_body(one) for one in said if one is not None):
            shown = body["data"]
            for provider in shown if isinstance(shown, list) else []:
                if isinstance(provider, dict):
                    name = str(provider["name"])
                    worst[name] = max(worst.get(name, provider), provider, key=_badness)
        return self._reply(said, {"data": [*worst.values()]}) if worst else self._silence()

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics: the sum over the workers."""
        said = await self._ask_all("GET", "/metrics")
        page = combined(one.payload.decode() for one in said if one is not None)
        up = "".join(
            f'flywheel_gateway_worker_up{{worker="{index}"}} {int(one is not None)}\n'
            for index, one in enumerate(said)
        )
        page += f"# TYPE flywheel_gateway_worker_up gauge\n{up}"
        headers = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(body=page.encode(), headers=headers)

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: the process answers."""
        return json_reply({"status": "ok"})

    async def _ask_all(
        self, method: str, path: str, *, body: bytes = b"", within_s: float = FOLLOW_S
    ) -> list[_Said | None]:
        return await asyncio.gather(
            *(self._ask(url, method, path, body=body, within_s=within_s) for url in self._siblings)
        )

    async def _ask(
        self, url: str, method: str, path: str, *, body: bytes = b"", within_s: float = FOLLOW_S
    ) -> _Said | None:
        """What a worker says; None when it does not within the time."""
        timeout = aiohttp.ClientTimeout(total=within_s)
        try:
            async with self._session.request(
                method, url + path, data=body, headers=self._headers, timeout=timeout
            ) as reply:
                return _Said(reply.status, await reply.read(), reply.content_type)
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _counted(self, said: Sequence[_Said | None]) -> web.Response:
        states = [SpoolState.model_validate_json(one.payload) for one in said if one is not None]
        total: JsonObject = {
            name: sum(getattr(state, name) for state in states)
            for name in ("accepted", "spooled", "pending", "bytes_spooled", "late")
        }
        dropped: Counter[str] = Counter()
        for state in states:
            dropped.update(state.dropped)
        is_writable = len(states) == len(said) and all(state.is_writable for state in states)
        return self._reply(said, {**total, "dropped": {**dropped}, "is_writable": is_writable})

    def _reply(self, said: Sequence[_Said | None], body: JsonObject) -> web.Response:
        behind: list[JsonValue] = [*_missing(said)]
        return json_reply({**body, "workers": len(said), "behind": behind})

    def _silence(self) -> web.Response:
        message = f"no worker answered within {FOLLOW_S:.0f} s; try again"
        return unavailable(message, status=503, code="not_ready")


def _missing(said: Sequence[_Said | None]) -> list[int]:
    return [index for index, one in enumerate(said) if one is None]


def _known_to_all(releases: Sequence[Sequence[Release]]) -> list[Release]:
    """Of each workload every worker has a release of, the oldest."""
    oldest: dict[str, Release] = {}
    for release in (one for known in releases for one in known):
        before = oldest.setdefault(release.workload, release)
        if release.epoch < before.epoch:
            oldest[release.workload] = release
    known = [{release.workload for release in one} for one in releases]
    return [oldest[workload] for workload in sorted(set.intersection(*known))]


def _badness(provider: JsonObject) -> int:
    return _CIRCUITS.index(str(provider["circuit"]))


def _body(said: _Said) -> JsonObject:
    body = from_json(said.payload)
    assert isinstance(body, dict), "a worker's admin port answers with objects"
    return body


def _passed_on(said: _Said) -> web.Response:
    return web.Response(body=said.payload, status=said.status, content_type=said.content_type)
