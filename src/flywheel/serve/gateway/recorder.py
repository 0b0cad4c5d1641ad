"""What is kept of a call: numbers for /metrics, and its Exchange in a sink.

Input: a call that ended. Output: one record in the sink, at most.
"""

import zlib
from typing import Literal, Protocol

from flywheel.records import CaptureCounters, Durability, Exchange, Feedback
from flywheel.serve.gateway.call import Call, Outcome
from flywheel.serve.gateway.metrics import Metrics

CLIENT_CLOSED = 499
"""nginx's status for a client that went away before its answer."""


class CaptureSink(Protocol):
    """Where calls and judgements go. Nothing in it raises; only `durable` and `seal` wait."""

    @property
    def counters(self) -> CaptureCounters:
        """What became of everything handed in."""
        ...

    @property
    def is_writable(self) -> bool:
        """Whether what is handed in now will be kept."""
        ...

    def append(
        self,
        kind: Literal["exchange", "feedback"],
        record: Exchange | Feedback,
        *,
        durability: Durability | None = None,
    ) -> bool:
        """Takes a record; False when it was dropped, which the sink counts."""
        ...

    async def durable(self) -> bool:
        """Waits, not for ever, until all of it is on disk; False when the disk took too long."""
        ...

    def seal(self, *, timeout_s: float = 10.0) -> bool:
        """Waits until all of it can be drained; False when the time was not enough."""
        ...


class Recorder:
    """Records each call once."""

    def __init__(self, sink: CaptureSink, metrics: Metrics) -> None:
        self.sink, self.metrics = sink, metrics

    def finish(self, call: Call, outcome: Outcome) -> None:
        """Records the end of a call; whatever comes after its end changes nothing."""
        if call.is_recorded:
            return
        call.is_recorded = True
        duration_ms = call.arrival.elapsed_ms
        self._count(call, outcome, duration_ms)
        if _is_sampled(call):
            durability = call.route.durability
            record = call.exchange(outcome, duration_ms=duration_ms)
            is_kept = self.sink.append("exchange", record, durability=durability)
            call.awaits_disk = is_kept and durability == "before_response"

    async def settled(self, call: Call) -> None:
        """Returns when the answer may end: at once, or after the fsync its workload asks for."""
        if call.awaits_disk:
            call.awaits_disk = False
            await self.sink.durable()

    def _count(self, call: Call, outcome: Outcome, duration_ms: float) -> None:
        route, metrics = call.route, self.metrics
        status = CLIENT_CLOSED if outcome.status == "cancelled" else call.http_status or 503
        metrics.requests[route.workload, route.arm, status] += 1
        metrics.duration.observe(route.workload, duration_ms / 1000)
        if call.is_streamed and call.first_byte_ms is not None:
            metrics.first_token.observe(route.workload, call.first_byte_ms / 1000)


def _is_sampled(call: Call) -> bool:
    """By hash of the conversation, so that a conversation is kept whole or not at all."""
    share = call.route.sample
    if share in (0.0, 1.0):
        return share == 1.0
    identity = call.conversation_id or call.arrival.interaction_id
    return zlib.crc32(identity.encode("utf-8", "replace")) < share * 2**32
