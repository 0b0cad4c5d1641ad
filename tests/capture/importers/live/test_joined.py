"""Spans and their log records, sent apart, in any order, and found in the lake as one call."""

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flywheel.capture import DrainReport, Spool, drain, read_status
from flywheel.capture.importers.live import JoinBuffer, NotKeptError, OtlpReceiver
from flywheel.capture.importers.live.buffer import AT_ONCE, EVENT_S, JOIN_S, KEPT_S
from flywheel.capture.importers.log_events import LogEvent, logs_of_json
from flywheel.capture.importers.row import Source, object_of, parse_json
from flywheel.capture.importers.spans import Span, spans_of_json
from flywheel.capture.parsed import keep
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, JsonObject, QuarantineRecord
from tests.capture.importers import rows

DATA = Path(__file__).parents[1] / "data"


def documents(name: str) -> list[JsonObject]:
    lines = (DATA / name).read_bytes().splitlines()
    return [object_of(parse_json(line)) for line in lines]


def emitted() -> tuple[list[Span], list[LogEvent]]:
    """What opentelemetry-instrumentation-openai-v2 2.3b0 sent of seven calls."""
    spans = [s for one in documents("openai_v2-2.3b0.spans.jsonl") for s in spans_of_json(one)]
    logs = [e for one in documents("openai_v2-2.3b0.logs.jsonl") for e in logs_of_json(one)]
    return spans, logs


BARE: dict[str, object] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}


def bare(**fields: object) -> Span:
    [span] = spans_of_json(rows.otlp(BARE, **fields))
    return span


def event(name: str, content: str, *, time_ns: int = 1767323045000000000, **ids: str) -> LogEvent:
    known = {"trace_id": rows.TRACE_ID, "span_id": rows.SPAN_ID} | ids
    return LogEvent(
        name=name, time_ns=time_ns, body=content_of(name, content), attributes={}, **known
    )


def content_of(name: str, content: str) -> JsonObject:
    if name == "gen_ai.choice":
        return {"index": 0, "finish_reason": "stop", "message": {"content": content}}
    return {"content": content}


ASKED = event("gen_ai.user.message", "My knee hurts.")
ANSWERED = event("gen_ai.choice", "Rest it.", time_ns=1767323046000000000)


class Home:
    """A receiver over a real spool, and the lake behind it."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake
        self.spool = Spool(folder)
        self.receiver = self.another()

    def another(self) -> OtlpReceiver:
        """As another worker of the gateway has it, or the next gateway."""
        source = Source(workload="triage", workloads=frozenset(("triage", "coding")))
        return OtlpReceiver(partial(keep, self.spool), lambda: source, JoinBuffer(self.folder))

    def after(self, seconds: float) -> int:
        return self.receiver.settle(time.time() + seconds)

    def drain(self) -> DrainReport:
        return drain(self.folder, self.lake)

    def calls(self) -> list[Interaction]:
        self.drain()
        return self.lake.fetch(Interaction, "SELECT * FROM interactions ORDER BY started_at")

    def quarantine(self) -> list[QuarantineRecord]:
        self.drain()
        return self.lake.fetch(QuarantineRecord, "SELECT * FROM quarantine ORDER BY reason")


@pytest.fixture
def home(spool_dir: Path, lake: Lake) -> Iterator[Home]:
    found = Home(spool_dir, lake)
    yield found
    found.spool.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_an_emitter_sent_apart_is_one_call_in_whatever_order_it_comes(
    home: Home, seed: int
) -> None:
    """Single parts, shuffled over two workers, one in three sent twice."""
    spans, logs = emitted()
    parts: list[Span | LogEvent] = [*spans, *logs]
    dice = random.Random(seed)
    parts += dice.sample(parts, len(parts) // 3)
    dice.shuffle(parts)
    workers = [home.receiver, home.another()]
    for part in parts:
        worker = dice.choice(workers)
        _ = worker.take_spans([part]) if isinstance(part, Span) else worker.take_logs([part])
    assert home.calls() == []
    assert home.receiver.waiting() == (7, len([log for log in logs if log.is_genai]))
    assert home.after(JOIN_S) > 0
    calls = home.calls()
    assert len(calls) == 7
    assert [call.status for call in calls].count("error") == 1
    assert all(call.messages for call in calls)
    assert all(call.response is not None for call in calls if call.status == "ok")
    assert (home.quarantine(), home.receiver.waiting()) == ([], (0, 0))
    assert home.after(KEPT_S) == 0


def test_a_span_waits_from_its_last_log_record_on(home: Home) -> None:
    home.receiver.take_spans([bare()])
    with sqlite3.connect(home.folder / "otlp-waiting.db") as database:
        database.execute("UPDATE spans SET due = due - ?", (JOIN_S,))
    home.receiver.take_logs([ASKED])
    assert home.after(JOIN_S / 2) == 0, "it was due, and another record came"
    assert home.after(JOIN_S + 1) == 1
    [call] = home.calls()
    assert rows.said(call) == [{"role": "user", "content": "My knee hurts."}]


def test_a_span_without_any_log_record_is_recorded_for_its_tokens_and_times(home: Home) -> None:
    home.receiver.take_spans([bare()])
    assert home.after(JOIN_S + 1) == 1
    [call] = home.calls()
    assert (call.duration_ms, call.tags["content"]) == (1500, "not recorded")


def test_a_span_with_its_content_does_not_wait_and_its_log_records_are_no_loss(home: Home) -> None:
    [whole] = spans_of_json(rows.otlp(rows.GENAI))
    home.receiver.take_logs([ASKED])
    home.receiver.take_spans([whole])
    assert len(home.calls()) == 1
    home.receiver.take_logs([ANSWERED])
    assert home.after(EVENT_S + 1) == 2
    assert (len(home.calls()), home.quarantine(), home.receiver.waiting()) == (1, [], (0, 0))


def test_a_log_record_whose_span_never_comes_goes_to_quarantine(home: Home) -> None:
    home.receiver.take_logs([ASKED])
    assert home.after(JOIN_S + 1) == 0
    assert home.after(EVENT_S + 1) == 1
    [row] = home.quarantine()
    assert (row.source, row.reason) == ("otlp", "log_without_span")
    assert b"My knee hurts." in row.payload and rows.TRACE_ID.encode() in row.payload


def test_a_log_record_that_comes_after_its_call_was_recorded_goes_to_quarantine(
    home: Home,
) -> None:
    home.receiver.take_spans([bare()])
    home.receiver.take_logs([ASKED])
    home.after(JOIN_S + 1)
    home.receiver.take_logs([ANSWERED])
    home.after(EVENT_S + 1)
    assert [call.response for call in home.calls()] == [None]
    assert [row.reason for row in home.quarantine()] == ["log_too_late"]


def test_content_that_cannot_be_read_is_in_quarantine_with_its_span(home: Home) -> None:
    home.receiver.take_spans([bare()])
    broken = ASKED._replace(body={"content": 7})
    home.receiver.take_logs([broken])
    home.after(JOIN_S + 1)
    [row] = home.quarantine()
    payload = json.loads(row.payload)
    assert (row.reason, payload["span"]["traceId"]) == ("bad_message", rows.TRACE_ID)
    assert payload["log_records"][0]["body"] == {"content": 7}


@pytest.mark.parametrize("is_known", [True, False])
def test_an_evaluation_in_a_log_record_judges_its_call_with_or_without_the_span(
    home: Home, is_known: bool
) -> None:
    """It may be written long after the call, so that its span need not be known any more."""
    identity = "0b0c009c-5193-45c8-ae70-8f9813134f93"
    if is_known:
        named = {**rows.GENAI, "flywheel.workload": "coding", "flywheel.interaction_id": identity}
        home.receiver.take_spans([*spans_of_json(rows.otlp(named))])
    said: JsonObject = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.value": 0.5}
    home.receiver.take_logs(
        [ASKED._replace(name="gen_ai.evaluation.result", body=None, attributes=said)]
    )
    home.after(EVENT_S + 1)
    home.drain()
    [found] = home.lake.fetch(Assessment, "SELECT * FROM assessments")
    assert (found.name, found.value, found.source_type) == ("tone", 0.5, "code")
    assert (found.interaction_id == identity, found.workload == "coding") == (is_known, is_known)


def test_an_evaluation_that_comes_in_time_is_joined_with_its_span(home: Home) -> None:
    said: JsonObject = {"gen_ai.evaluation.name": "tone", "gen_ai.evaluation.score.label": "calm"}
    home.receiver.take_logs(
        [ASKED, ASKED._replace(name="gen_ai.evaluation.result", body=None, attributes=said)]
    )
    home.receiver.take_spans([bare()])
    home.after(JOIN_S + 1)
    [call] = home.calls()
    [found] = home.lake.fetch(Assessment, "SELECT * FROM assessments")
    assert (found.interaction_id, found.label) == (call.interaction_id, "calm")


def test_two_messages_that_are_alike_are_two_and_a_repeated_export_adds_none(home: Home) -> None:
    home.receiver.take_spans([bare()])
    for _ in range(2):
        home.receiver.take_logs([ASKED, ASKED, ANSWERED])
    home.after(JOIN_S + 1)
    [call] = home.calls()
    assert [message.text for message in call.messages] == ["My knee hurts."] * 2


def test_what_waits_outlives_the_gateway(home: Home) -> None:
    home.receiver.take_spans([bare()])
    home.another().take_logs([ASKED, ANSWERED])
    assert home.another().settle(time.time() + JOIN_S + 1) == 1
    [call] = home.calls()
    assert call.response is not None and call.response.text == "Rest it."


def test_nothing_is_forgotten_while_the_spool_takes_nothing(home: Home) -> None:
    home.receiver.take_spans([bare()])
    home.receiver.take_logs([ASKED._replace(trace_id="a" * 32)])
    home.spool.close()
    with pytest.raises(NotKeptError, match="the spool takes no records"):
        home.after(EVENT_S + 1)
    assert home.receiver.waiting() == (1, 1)
    with Spool(home.folder) as spool:
        home.spool = spool
        assert home.another().settle(time.time() + EVENT_S + 1) == 2
    assert (len(home.calls()), len(home.quarantine())) == (1, 1)


def test_a_file_that_cannot_be_used_is_said_and_nothing_is_acknowledged(home: Home) -> None:
    (home.folder / "otlp-waiting.db").write_bytes(b"no database" * 500)
    with pytest.raises(NotKeptError, match="not a database"):
        home.receiver.take_spans([bare()])
    assert home.receiver.counters["spans"].lost == 1


def test_many_are_settled_in_turns_and_the_counters_add_up(home: Home) -> None:
    spans = [bare(spanId=f"{number:016x}") for number in range(1, AT_ONCE + 20)]
    home.receiver.take_spans(spans)
    assert home.after(JOIN_S + 1) == len(spans)
    assert len(home.calls()) == len(spans)
    assert read_status(home.folder).totals.adds_up
