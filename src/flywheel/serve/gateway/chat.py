"""POST /v1/chat/completions: rewrite the alias, forward, capture.

Input: an OpenAI request. Output: the model server's own answer, streamed as it comes. Only `model`
is changed on the way there, and nothing but headers on the way back.

A call is handed to the sink before its last byte leaves, so that whoever has an answer and then
starts a drain finds the call in the lake. Where the workload says `before_response`, the last byte
waits for the fsync: a whole answer leaves after it, a stream is held at its `[DONE]`.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from pydantic_core import from_json, to_json

from flywheel.errors import BadRequestError, UpstreamUnavailableError
from flywheel.records import JsonObject
from flywheel.serve.gateway.call import Arrival, Call, Inbound, Outcome
from flywheel.serve.gateway.recorder import Recorder
from flywheel.serve.gateway.replies import (
    bad_request,
    error_body,
    flywheel_headers,
    forwarded,
    unavailable,
)
from flywheel.serve.gateway.routing import RouteTable
from flywheel.serve.gateway.upstream import Upstream

PATH = "v1/chat/completions"

_KEPT_HERE = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Request headers that do not travel on: the body is sent plain and wanted back plain."""
GONE = Outcome("cancelled", "client_disconnected", "the client went away")
_BROKEN = (aiohttp.ClientError, TimeoutError)


class ChatEndpoint:
    """The handler.

    Args:
        routes: what each alias stands for.
        upstream: the model servers.
        recorder: keeps what becomes of each call.
        is_loaded: whether the current releases are known.
        subject_secret: key of the HMAC of a person's identifier; empty stores none.
    """

    def __init__(
        self,
        routes: RouteTable,
        upstream: Upstream,
        recorder: Recorder,
        *,
        is_loaded: Callable[[], bool],
        subject_secret: bytes,
    ) -> None:
        self._routes, self._upstream = routes, upstream
        self._recorder, self._metrics = recorder, recorder.metrics
        self._is_loaded, self._subject_secret = is_loaded, subject_secret

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        self._metrics.in_flight += 1
        try:
            return await self._answer(request)
        finally:
            self._metrics.in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        arrival = Arrival()
        try:
            raw = await request.read()
            body, alias = _understand(raw)
            route = self._routes.find(alias)
        except web.HTTPRequestEntityTooLarge as error:
            return self._refuse(arrival, BadRequestError(str(error.text)), status=413)
        except BadRequestError as error:
            return self._refuse(arrival, error, status=error.status)
        if not self._is_loaded():
            return self._not_loaded(arrival)
        inbound = Inbound(raw, body, request.headers)
        call = Call(arrival, route, inbound, subject_secret=self._subject_secret)
        try:
            reply = await self._forward(request, call, body)
            await self._recorder.settled(call)  # what is not streamed leaves after this returns
            return reply
        except (asyncio.CancelledError, ConnectionResetError):
            self._recorder.finish(call, GONE)
            raise

    async def _forward(
        self, request: web.Request, call: Call, body: JsonObject
    ) -> web.StreamResponse:
        data = to_json({**body, "model": call.route.model})
        try:
            upstream = await self._upstream.post(PATH, data, _onward(request, call))
        except UpstreamUnavailableError as error:
            return self._unavailable(call, error.status or 503, "upstream_unavailable", str(error))
        call.http_status = upstream.status
        try:
            if upstream.content_type == "text/event-stream":
                return await self._stream(request, call, upstream)
            return await self._whole(call, upstream)
        finally:
            # After the last byte it returns the connection to the pool, before it closes it:
            # that is how the model server learns that nobody wants the rest.
            upstream.close() if not call.is_whole else upstream.release()

    async def _whole(self, call: Call, upstream: aiohttp.ClientResponse) -> web.Response:
        try:
            payload = await upstream.read()
        except _BROKEN as error:
            call.http_status = None
            return self._unavailable(call, 502, "upstream_disconnected", str(error) or "timeout")
        call.received(payload)
        call.is_whole = True
        self._recorder.finish(call, Outcome("ok" if upstream.status < 400 else "error"))
        headers = forwarded(
            upstream.headers, flywheel_headers(call.arrival.interaction_id, call.route)
        )
        return web.Response(body=payload, status=upstream.status, headers=headers)

    async def _stream(
        self, request: web.Request, call: Call, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        headers = forwarded(
            upstream.headers, flywheel_headers(call.arrival.interaction_id, call.route)
        )
        reply = web.StreamResponse(status=upstream.status, headers=headers)
        call.is_streamed = True
        await reply.prepare(request)
        outcome = Outcome("ok" if upstream.status < 400 else "error")
        while True:
            try:
                chunk = await upstream.content.readany()
            except _BROKEN as error:
                await self._break_off(reply, call, str(error) or "timeout")
                break
            if not chunk:
                call.is_whole = True
                break
            if call.received(chunk):
                self._recorder.finish(call, outcome)
                await self._recorder.settled(call)
            await reply.write(chunk)
        self._recorder.finish(call, outcome)
        await self._recorder.settled(call)
        await reply.write_eof()
        return reply

    async def _break_off(self, reply: web.StreamResponse, call: Call, reason: str) -> None:
        """Tells a client in the middle of a stream that no more comes: the status line is gone."""
        self._metrics.upstream_failures["upstream_disconnected"] += 1
        self._recorder.finish(call, Outcome("error", "upstream_disconnected", reason))
        await self._recorder.settled(call)
        message = f"the model server broke off: {reason}"
        event = to_json(error_body(message, kind="upstream_error", code="upstream_disconnected"))
        await reply.write(b"\n\ndata: " + event + b"\n\n")

    def _unavailable(self, call: Call, status: int, code: str, message: str) -> web.Response:
        self._metrics.upstream_failures[code] += 1
        self._recorder.finish(call, Outcome("error", code, message))
        headers = flywheel_headers(call.arrival.interaction_id, call.route)
        return unavailable(message, status=status, code=code, headers=headers)

    def _refuse(self, arrival: Arrival, error: BadRequestError, *, status: int) -> web.Response:
        """A request no workload can be found for; counted, not captured."""
        self._metrics.refused[status] += 1
        headers = flywheel_headers(arrival.interaction_id, None)
        return bad_request(
            str(error), status=status, param=error.param, code=error.code, headers=headers
        )

    def _not_loaded(self, arrival: Arrival) -> web.Response:
        self._metrics.refused[503] += 1
        return unavailable(
            "the gateway is starting and does not know yet which model is the champion; try again",
            status=503,
            code="not_ready",
            headers=flywheel_headers(arrival.interaction_id, None),
        )


def _understand(raw: bytes) -> tuple[JsonObject, str]:
    """The body and the model it asks for."""
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object", code="invalid_json")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError("`model` is required: the alias of a workload", param="model")
    return body, model


def _onward(request: web.Request, call: Call) -> CIMultiDict[str]:
    """The client's headers less what concerns only this connection, and less ours."""
    headers = CIMultiDict(
        (name, value)
        for name, value in request.headers.items()
        if (lower := name.lower()) not in _KEPT_HERE and not lower.startswith("x-flywheel-")
    )
    headers["Content-Type"] = "application/json"
    headers["Accept-Encoding"] = "identity"
    if call.trace is not None:
        headers["traceparent"] = call.trace.header
    return headers
