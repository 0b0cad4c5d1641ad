"""A model call: rewrite the alias, forward, capture.

Input: a request to one of OpenAI's endpoints. Output: the provider's own answer, streamed as it
comes. Only `model` is changed on the way there, and nothing but headers on the way back. Routes
that check answers before they leave are `checked`'s.

A call is handed to the sink before its last byte leaves, so that whoever has an answer and then
starts a drain finds the call in the lake. Where the workload says `before_response`, the last byte
waits for the fsync: a whole answer leaves after it, a stream is held at its `[DONE]`.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from pydantic_core import from_json, to_json

from flywheel.errors import BadRequestError, KeyRefusedError, LimitReachedError
from flywheel.records import JsonObject
from flywheel.serve.gateway.admission import Admission, refusal
from flywheel.serve.gateway.body import read_body
from flywheel.serve.gateway.call import Arrival, Call, Inbound, Outcome
from flywheel.serve.gateway.checked import GONE, CheckedAnswers
from flywheel.serve.gateway.checks import RouteChecks
from flywheel.serve.gateway.dispatch import Dispatcher, NobodyAnsweredError, Question
from flywheel.serve.gateway.providers import Begun
from flywheel.serve.gateway.recorder import Recorder
from flywheel.serve.gateway.replies import (
    bad_request,
    error_body,
    flywheel_headers,
    forwarded,
    is_clean,
    readable,
    unavailable,
)
from flywheel.serve.gateway.routing import RouteTable
from flywheel.serve.gateway.surface import CHAT, Surface

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
_BROKEN = (aiohttp.ClientError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the endpoints of one gateway share."""

    routes: RouteTable
    dispatcher: Dispatcher
    recorder: Recorder
    is_loaded: Callable[[], bool]
    """Whether the current releases are known."""
    subject_secret: bytes
    """Key of the HMAC of a person's identifier; empty stores none."""
    checks: dict[str, RouteChecks]
    """Of the routes that look at answers before they leave; by alias."""
    admission: Admission | None = None
    """The door: keys, limits, budgets. None lets everybody in."""
    body_timeout_s: float = 60.0
    """A request's body must have come by then."""


class _Stream(web.StreamResponse):
    """Its head leaves with its first chunk: a write less, and the client is woken once."""

    _send_headers_immediately = False


class ModelEndpoint:
    """The handler of one surface."""

    def __init__(self, parts: Parts, surface: Surface) -> None:
        self._parts, self._surface = parts, surface
        self._recorder, self._metrics = parts.recorder, parts.recorder.metrics
        self._checked = CheckedAnswers(parts.dispatcher, parts.recorder)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answers one request."""
        self._metrics.in_flight += 1
        try:
            return await self._answer(request)
        finally:
            self._metrics.in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        arrival = Arrival()
        admission, grant = self._parts.admission, None
        try:
            if admission is not None:  # before anything is read on behalf of a stranger
                admission.authenticate(request.headers)
            raw = await read_body(request, timeout_s=self._parts.body_timeout_s)
            body, alias = _understand(raw)
            route = self._parts.routes.find(alias)
            if admission is not None:
                grant = admission.admit(request.headers, route.workload)
        except (KeyRefusedError, LimitReachedError) as error:
            self._metrics.refused[error.status] += 1
            return refusal(error, flywheel_headers(arrival.interaction_id, None))
        except BadRequestError as error:
            return self._refuse(arrival, error)
        if not self._parts.is_loaded():
            return self._not_loaded(arrival)
        inbound = Inbound(raw, body, request.headers)
        secret = self._parts.subject_secret
        call = Call(arrival, route, self._surface, inbound, subject_secret=secret)
        call.grant = grant
        try:
            reply = await self._forward(request, call, body)
            await self._recorder.settled(call)  # what is not streamed leaves after this returns
            return reply
        except (asyncio.CancelledError, ConnectionResetError):
            self._recorder.finish(call, GONE)
            raise
        except BadRequestError as error:  # found out only when it was to be sent on
            return self._refuse(arrival, error)
        except Exception as error:  # a mistake of ours must not cost the record of a call
            self._recorder.finish(call, Outcome("error", "internal_error", type(error).__name__))
            raise

    async def _forward(
        self, request: web.Request, call: Call, body: JsonObject
    ) -> web.StreamResponse:
        question = Question(self._surface.path, body, onward_headers(request.headers, call))
        checks = self._parts.checks.get(call.route.alias) if self._surface is CHAT else None
        if checks is not None:
            return await self._checked.answer(call, question, checks)
        try:
            answer = await self._parts.dispatcher.ask(call.plan, question)
        except NobodyAnsweredError as error:
            call.answered_by(call.target, error.attempts)
            return self._unavailable(call, error.status or 503, error.error_type, str(error))
        call.answered_by(answer.target, answer.attempts)
        upstream = answer.begun.response
        call.http_status = upstream.status
        try:
            if answer.begun.is_stream:
                return await self._stream(request, call, answer.begun)
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
            return self._unavailable(call, 502, "upstream_disconnected", _told(error))
        call.received(payload)
        call.is_whole = True
        self._recorder.finish(call, Outcome("ok" if upstream.status < 400 else "error"))
        headers = forwarded(upstream.headers, _own_headers(call))
        return web.Response(body=payload, status=upstream.status, headers=headers)

    async def _stream(self, request: web.Request, call: Call, begun: Begun) -> web.StreamResponse:
        upstream, chunk = begun.response, begun.first_chunk
        headers = forwarded(upstream.headers, _own_headers(call))
        reply = _Stream(status=upstream.status, headers=headers)
        call.is_streamed = True
        await reply.prepare(request)
        outcome = Outcome("ok" if upstream.status < 400 else "error")
        while chunk:
            is_end, is_last = call.received(chunk), upstream.content.at_eof()
            if is_last:
                call.is_whole = True
                break
            if is_end:
                self._recorder.finish(call, outcome)
                await self._recorder.settled(call)
            await reply.write(chunk)
            try:
                chunk = await upstream.content.readany()
            except _BROKEN as error:
                await self._break_off(reply, call, _told(error))
                break
        else:
            call.is_whole = True
        self._recorder.finish(call, outcome)
        await self._recorder.settled(call)
        await reply.write_eof(chunk if call.is_whole else b"")
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
        headers = _own_headers(call)
        return unavailable(message, status=status, code=code, headers=headers)

    def _refuse(self, arrival: Arrival, error: BadRequestError) -> web.Response:
        """A request no workload can be found for; counted, not captured."""
        self._metrics.refused[error.status] += 1
        headers = flywheel_headers(arrival.interaction_id, None)
        return bad_request(
            str(error), status=error.status, param=error.param, code=error.code, headers=headers
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


def _told(error: Exception) -> str:
    return readable(str(error)) or "timeout"


def _own_headers(call: Call) -> CIMultiDict[str]:
    headers = flywheel_headers(call.arrival.interaction_id, call.target)
    if call.grant is not None:
        headers.update(call.grant.headers)
    return headers


def onward_headers(client: Mapping[str, str], call: Call) -> CIMultiDict[str]:
    """The client's headers less ours, and less what is no text or concerns this connection only."""
    headers = CIMultiDict(
        (name, value)
        for name, value in client.items()
        if (lower := name.lower()) not in _KEPT_HERE
        and not lower.startswith("x-flywheel-")
        and is_clean(value)
    )
    if call.grant is not None and call.grant.key is not None:
        headers.popall("Authorization", None)  # it is the gateway's own key
    headers["Content-Type"] = "application/json"
    headers["Accept-Encoding"] = "identity"
    if call.trace is not None:
        headers["traceparent"] = call.trace.header
    return headers
