"""One model call in flight: what arrived, and what was sent back so far.

Input: a parsed request and its route. Output: the Exchange of the call, however it ended.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic_core import to_json

from flywheel.records import Exchange, JsonObject, Status, new_id, utcnow
from flywheel.serve.gateway.identity import (
    read_conversation,
    read_subject,
    read_trace,
    without_identity,
)
from flywheel.serve.gateway.routing import Route

_DONE = b"\ndata: [DONE]"
"""Only a line of its own ends a stream: within a chunk's JSON a line break is escaped."""


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
        inbound: what it asks.
        subject_secret: key of the HMAC of a person's identifier; empty stores none.
    """

    def __init__(
        self, arrival: Arrival, route: Route, inbound: Inbound, *, subject_secret: bytes
    ) -> None:
        self.arrival, self.route = arrival, route
        self.trace = read_trace(inbound.headers.get("traceparent"))
        self.conversation_id = read_conversation(inbound.headers, inbound.body)
        self._subject_key = read_subject(inbound.headers, inbound.body, subject_secret)
        self._request = without_identity(inbound.raw, inbound.body)
        self._chunks: list[bytes] = []
        self._tail = b"\n"
        self.first_byte_ms: float | None = None
        self.is_streamed = False
        self.is_whole = False
        """Whether the last byte of the answer has come."""
        self.is_recorded = False
        self.awaits_disk = False
        """Whether its answer may not end before its record is on disk."""
        self.http_status: int | None = None
        """The model server's, None while it has not answered."""

    def received(self, chunk: bytes) -> bool:
        """Keeps a chunk of the answer.

        Returns:
            Whether it brings the stream's [DONE].
        """
        if self.first_byte_ms is None:
            self.first_byte_ms = self.arrival.elapsed_ms
        self._chunks.append(chunk)
        if not self.is_streamed:
            return False
        seen = self._tail + chunk
        self._tail = seen[-len(_DONE) :]
        return _DONE in seen

    def exchange(self, outcome: Outcome, *, duration_ms: float) -> Exchange:
        """The record of the call, raw: it is parsed when it is drained."""
        route, trace, request = self.route, self.trace, self._request
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
            request_model=route.alias,
            served_model=route.model,
            adapter=route.adapter,
            arm=route.arm,
            request=raw.decode(),
            response=response,
            streamed=self.is_streamed,
            http_status=self.http_status,
            status=outcome.status,
            error_type=outcome.error_type,
            error_message=outcome.error_message,
            subject_key=self._subject_key,
            inclusion_prob=route.sample,
            tags={"response_encoding": encoding} if encoding else {},
        )

    def _response_text(self) -> tuple[str, str | None]:
        """The answer so far as text; bytes that are not UTF-8 are kept as base64 and marked."""
        data = b"".join(self._chunks)
        try:
            return data.decode(), None
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":  # cut off inside a character
                return data[: error.start].decode(), None
        return base64.b64encode(data).decode(), "base64"
