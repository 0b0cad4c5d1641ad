"""Spans and log records live -> interactions and assessments, and quarantine for the rest.

Input: what an exporter sent, read. Output: records in a sink that keeps them durably. A model call
that has its content is recorded at once; one that has not waits in a JoinBuffer for the log records
that carry it, as long as JOIN_S after the last of them, and is then recorded with what there is.
Nothing is dropped: a part that cannot be read, a log record whose span never came and one that came
too late go to quarantine.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, NamedTuple

from flywheel.capture.importers.live.buffer import JoinBuffer, Known, Lone, NotKeptError
from flywheel.capture.importers.log_events import LogEvent
from flywheel.capture.importers.otlp import EVALUATION, NAME, evaluation, event_of, read_span
from flywheel.capture.importers.row import (
    Outcome,
    PassedOver,
    Rejected,
    Source,
    canonical,
    derived_id,
)
from flywheel.capture.importers.spans import Span
from flywheel.capture.parsed import Refused
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, Interaction

logger = logging.getLogger(__name__)

SETTLE_S = 5.0
"""How often it is looked what is due."""

Signal = Literal["spans", "logs"]
Kept = Interaction | Assessment | Refused
Sink = Callable[[Sequence[Kept]], bool]
"""True when the records are durably kept; it may block until they are."""


class OtlpCounters(NamedTuple):
    """Spans or log records since the start.

    Always `received == accepted + rejected + passed_over + lost`.
    """

    received: int = 0
    accepted: int = 0
    """Recorded, or kept until they are joined."""
    rejected: int = 0
    """Could not be read: they are in quarantine, and the exporter was told."""
    passed_over: int = 0
    """No model calls, and no events of one."""
    lost: int = 0
    """Could not be kept; the exporter was told to send them again."""


class OtlpReceiver:
    """Takes both signals. Its methods block; any thread may call them.

    Args:
        sink: keeps records; False when it cannot now.
        source: makes the facts of an import, with the workloads and the time of now.
        buffer: where spans and log records wait for each other.
    """

    def __init__(self, sink: Sink, source: Callable[[], Source], buffer: JoinBuffer) -> None:
        self._sink, self._source, self._buffer = sink, source, buffer
        self._lock = threading.Lock()
        self._counters: dict[Signal, OtlpCounters] = {
            "spans": OtlpCounters(),
            "logs": OtlpCounters(),
        }

    @property
    def counters(self) -> Mapping[Signal, OtlpCounters]:
        """What became of the parts of either signal."""
        return dict(self._counters)

    def take_spans(self, spans: Sequence[Span]) -> list[Rejected]:
        """Records spans, or keeps them until they are joined.

        Returns:
            Those that could not be read; they are in quarantine.

        Raises:
            NotKeptError: nothing of it was taken.
        """
        source = self._source()
        ready: list[Kept] = []
        rejected: list[Rejected] = []
        waiting: list[Known] = []
        whole: list[Known] = []
        for span in spans:
            outcomes = read_span(span, source)
            rejected += [one for one in outcomes if isinstance(one, Rejected)]
            call = next((one for one in outcomes if isinstance(one, Interaction)), None)
            if call is None:
                continue
            known = Known(span, call.interaction_id, call.workload)
            (waiting if _lacks_content(call) else whole).append(known)
            if not _lacks_content(call):
                ready += _kept(outcomes)
        with self._counting("spans", len(spans), len(waiting) + len(whole), len(rejected)):
            self._keep(ready, rejected)
            self._buffer.add_spans(waiting, whole)
        return _told(rejected, "spans")

    def take_logs(self, records: Sequence[LogEvent]) -> list[Rejected]:
        """Keeps the GenAI events among log records for their spans.

        Returns:
            Those that were written outside any span; they are in quarantine.

        Raises:
            NotKeptError: nothing of it was taken.
        """
        events = [record for record in records if record.is_genai]
        joined = [event for event in events if event.has_span]
        detail = "a GenAI event outside any span: nobody can say to which call it belongs"
        rejected = [
            Rejected("log_outside_span", detail, canonical(event.as_json()))
            for event in events
            if not event.has_span
        ]
        with self._counting("logs", len(records), len(joined), len(rejected)):
            self._keep([], rejected)
            self._buffer.add_events(joined)
        return _told(rejected, "log records")

    def settle(self, now: float | None = None) -> int:
        """Records what has waited long enough.

        Args:
            now: seconds since 1970; the clock's when absent.

        Returns:
            How many spans and log records were settled.

        Raises:
            NotKeptError: the sink takes nothing now; all of it waits on.
        """
        source, total = self._source(), 0
        moment = time.time() if now is None else now
        while True:
            with self._buffer.settling(moment) as due:
                spans, events = due.spans(), due.events()
                outcomes = [one for known, logs in spans for one in _joined(known, logs, source)]
                outcomes += [one for lone in events for one in _alone(lone, source)]
                rejected = [one for one in outcomes if isinstance(one, Rejected)]
                self._keep(_kept(outcomes), rejected)
                due.forget([known for known, _ in spans], events)
            if rejected:
                logger.warning("quarantined: %s", reasons(rejected))
            total += len(spans) + len(events)
            if not spans and not events:
                return total

    def waiting(self) -> tuple[int, int]:
        """How many spans and log records wait, of all gateways of the folder."""
        return self._buffer.waiting()

    async def run(self) -> None:
        """Settles for ever; what cannot be settled now is tried again."""
        while True:
            await asyncio.sleep(SETTLE_S)
            try:
                await asyncio.to_thread(self.settle)
            except NotKeptError as error:
                logger.warning("%s; they wait on", error)

    @contextmanager
    def _counting(
        self, signal: Signal, received: int, accepted: int, rejected: int
    ) -> Iterator[None]:
        """Counts a request's parts: as kept, or as lost where that fails."""
        lost = 0
        try:
            yield
        except NotKeptError:
            lost, accepted, rejected = accepted + rejected, 0, 0
            raise
        finally:
            passed_over = received - accepted - rejected - lost
            found = OtlpCounters(received, accepted, rejected, passed_over, lost)
            with self._lock:
                known = self._counters[signal]
                sums = (one + other for one, other in zip(known, found, strict=True))
                self._counters[signal] = OtlpCounters(*sums)

    def _keep(self, ready: Sequence[Kept], rejected: Sequence[Rejected]) -> None:
        refused = [
            Refused(source=NAME, reason=one.reason, detail=one.detail, payload=one.payload)
            for one in rejected
        ]
        if (ready or refused) and not self._sink([*ready, *refused]):
            raise NotKeptError("the spool takes no records")


def reasons(rejected: Sequence[Rejected]) -> str:
    """Why, each once."""
    return "; ".join(sorted({f"{one.reason}: {one.detail}" for one in rejected}))


def _lacks_content(call: Interaction) -> bool:
    """Whether what was asked, or what was answered, may still come in log records."""
    return not call.messages or (call.response is None and call.status == "ok")


def _kept(outcomes: Sequence[Outcome]) -> list[Kept]:
    return [one for one in outcomes if isinstance(one, Interaction | Assessment)]


def _joined(known: Known, logs: Sequence[LogEvent], source: Source) -> list[Outcome]:
    """The call with its content; where that cannot be read all of it is kept in quarantine."""
    found = [log.as_json() for log in logs]
    outcomes = read_span(known.span, replace(source, joined=lambda key: found))
    payload = canonical({"span": known.span.as_json(), "log_records": [*found]})
    return [one._replace(payload=payload) if isinstance(one, Rejected) else one for one in outcomes]


def _alone(lone: Lone, source: Source) -> list[Outcome]:
    """A judgement stands for itself; content belongs to its call or to nothing."""
    event = lone.event
    if event.name == EVALUATION:
        span = Span(event.trace_id, event.span_id, "", "", 0, 0, {})
        identity = derived_id(NAME, event.trace_id, event.span_id)
        judged = lone.judged or {"interaction_id": identity, "workload": source.workload}
        try:
            return [evaluation(event_of(event.as_json()), span, source, judged)]
        except BadRecordError as error:
            return [Rejected(error.reason, error.detail, _payload(event))]
    if lone.state == "whole":
        return [PassedOver("log_of_whole_span")]
    if lone.state == "joined":
        detail = "its span was recorded before it came"
        return [Rejected("log_too_late", detail, _payload(event))]
    return [Rejected("log_without_span", "no span of a model call came for it", _payload(event))]


def _payload(event: LogEvent) -> bytes:
    return canonical({**event.as_json(), "traceId": event.trace_id, "spanId": event.span_id})


def _told(rejected: list[Rejected], what: str) -> list[Rejected]:
    if rejected:
        logger.warning("%d %s were refused: %s", len(rejected), what, reasons(rejected))
    return rejected
