"""One model call in flight: what arrived, and what was sent back so far.

Input: a parsed request and its route. Output: the Exchange of the call, however it ended.
"""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic_core import to_json

from flywheel.prices import TokenUsage
from flywheel.records import Exchange, JsonObject, Status, new_id, utcnow
from flywheel.serve.gateway.admission import Grant
from flywheel.serve.gateway.dispatch import Attempt
from flywheel.serve.gateway.identity import (
    read_conversation,
    read_subject,
    read_trace,
    without_identity,
)
from flywheel.serve.gateway.routing import Route, Target
from flywheel.serve.gateway.surface import Surface
from flywheel.serve.gateway.usage import TAIL_BYTES, usage_in

_TAIL_CHUNKS = 64
"""Of a stream: usage comes in the last events."""


class Arrival:
    """The identity and the moment of a request that just came in."""

    __slots__ = ("_mark", "at", "interaction_id")

    def __init__(self) -> None:
        self.interaction_id = new_id()
        self.at = utcnow()
        self._mark = time.perf_counter()

    @property
    def elapsed_ms(self) -> float:
        """Since then."""
        return (time.perf_counter() - self._mark) * 1000


@dataclass(frozen=True, slots=True)
class Inbound:
    """A request as the client sent it."""

    raw: bytes
    body: JsonObject
    headers: Mapping[str, str]


class Outcome(NamedTuple):
    """How a call ended."""

    status: Status
    error_type: str | None = None
    error_message: str | None = None


class Call:
    """A request whose model is known.

    Args:
        arrival: when it came.
        route: fixed here, so that a flip meanwhile changes nothing for it.
        surface: which of OpenAI's endpoints was called.
        inbound: what it asks.
        subject_secret: key of the HMAC of a person's identifier; empty stores none.
    """

    def __init__(
        self,
        arrival: Arrival,
        route: Route,
        surface: Surface,
        inbound: Inbound,
        *,
        subject_secret: bytes,
    ) -> None:
        self.arrival, self.route, self.surface = arrival, route, surface
        self.trace = read_trace(inbound.headers.get("traceparent"))
        self.conversation_id = read_conversation(inbound.headers, inbound.body)
        self._inbound, self._subject_secret = inbound, subject_secret
        self._subject_key = read_subject(inbound.headers, inbound.body, subject_secret)
        self._request = without_identity(inbound.raw, inbound.body)
        self.plan = route.plan(self.conversation_id or arrival.interaction_id)
        self.target = self.plan[0]
        """Who answers; the first of the plan until somebody does."""
        self.attempts: Sequence[Attempt] = ()
        """Those asked in vain."""
        self.tags: JsonObject = {}
        self.grant: Grant | None = None
        """Under which it was let in; None where nobody looks."""
        self.cost_usd: float | None = None
        self._chunks: list[bytes] = []
        self._end = surface.end_of_stream()
        self.first_byte_ms: float | None = None
        self._duration_ms: float | None = None
        self.is_streamed = False
        self.is_whole = False
        """Whether the last byte of the answer has come."""
        self.is_recorded = False
        self.awaits_disk = False
        """Whether its answer may not end before its record is on disk."""
        self.http_status: int | None = None
        """The model server's, None while it has not answered."""

    @property
    def body(self) -> JsonObject:
        """The request, parsed."""
        return self._inbound.body

    @property
    def duration_ms(self) -> float:
        """From arrival to its end, or to now."""
        return self.arrival.elapsed_ms if self._duration_ms is None else self._duration_ms

    def end(self) -> None:
        """Stops its clock; what its request goes on to need is others' time."""
        self._duration_ms = self._duration_ms or self.arrival.elapsed_ms

    def again(self, body: JsonObject, plan: tuple[Target, ...]) -> "Call":
        """A further call on behalf of the same request, in the same conversation."""
        inbound = Inbound(to_json(body), body, self._inbound.headers)
        secret = self._subject_secret
        further = Call(Arrival(), self.route, self.surface, inbound, subject_secret=secret)
        further.conversation_id = self.conversation_id or self.arrival.interaction_id
        further.plan, further.target = plan, plan[0]
        further.grant = self.grant and self.grant.again()
        return further

    def usage(self) -> TokenUsage | None:
        """The tokens the answer says it took, read off its last bytes."""
        chunks = self._chunks[-_TAIL_CHUNKS:] if self.is_streamed else self._chunks
        tail = b"".join(chunks)
        return usage_in(tail[-TAIL_BYTES:] if self.is_streamed else tail, self.is_streamed)

    @property
    def estimated_tokens(self) -> int:
        """For a limit, where the server reports none: four bytes a token asked, a chunk one."""
        return len(self._inbound.raw) // 4 + len(self._chunks)

    def answered_by(self, target: Target, attempts: Sequence[Attempt]) -> None:
        """Says who answers, and who was asked before in vain."""
        self.target, self.attempts = target, attempts

    def received(self, chunk: bytes) -> bool:
        """Keeps a chunk of the answer.

        Returns:
            Whether it brings the end of the stream, as this surface marks it.
        """
        if self.first_byte_ms is None:
            self.first_byte_ms = self.arrival.elapsed_ms
        self._chunks.append(chunk)
        return self.is_streamed and self._end.is_in(chunk)

    def exchange(self, outcome: Outcome, *, duration_ms: float) -> Exchange:
        """The record of the call, raw: it is parsed when it is drained."""
        route, target, trace, request = self.route, self.target, self.trace, self._request
        response, encoding = self._response_text()
        raw = request if isinstance(request, bytes) else to_json(request)
        return Exchange(
            interaction_id=self.arrival.interaction_id,
            workload=route.workload,
            conversation_id=self.conversation_id,
            trace_id=trace.trace_id if trace else None,
            span_id=trace.span_id if trace else None,
            parent_span_id=trace.parent_span_id if trace else None,
            started_at=self.arrival.at,
            duration_ms=duration_ms,
            time_to_first_token_ms=self.first_byte_ms if self.is_streamed else None,
            operation=self.surface.operation,
            provider=target.provider,
            request_model=route.alias,
            served_model=target.model,
            adapter=target.adapter,
            arm=target.arm,
            request=raw.decode(),
            response=response,
            streamed=self.is_streamed,
            http_status=self.http_status,
            status=outcome.status,
            error_type=outcome.error_type,
            error_message=outcome.error_message,
            cost_usd=self.cost_usd,
            subject_key=self._subject_key,
            inclusion_prob=route.sample,
            tags=self._all_tags(encoding),
        )

    def _all_tags(self, encoding: str | None) -> JsonObject:
        tags = dict(self.tags)
        if encoding:
            tags["response_encoding"] = encoding
        if self.attempts:
            tags["attempts"] = [attempt._asdict() for attempt in self.attempts]
        return tags

    def _response_text(self) -> tuple[str, str | None]:
        """The answer so far as text; bytes that are not UTF-8 are kept as base64 and marked."""
        data = b"".join(self._chunks)
        try:
            return data.decode(), None
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":  # cut off inside a character
                return data[: error.start].decode(), None
        return base64.b64encode(data).decode(), "base64"
