"""Whole imports into a real lake, by the function and by the command."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flywheel.capture.importers import ImportReport, Source, detect_format, import_files, run
from flywheel.cli import app
from flywheel.errors import ConfigError
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, JsonObject, QuarantineRecord
from tests.capture.importers import rows

SOURCE = Source(workload="triage", subject_secret=b"secret", label_name="urgency")
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "triage" / "flywheel.yaml"


def log(path: Path, *found: JsonObject | bytes) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in found]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def numbered(count: int) -> list[JsonObject]:
    return [
        {"request": {**rows.REQUEST, "seed": n}, "response": rows.COMPLETION} for n in range(count)
    ]


def quarantine(lake: Lake) -> list[QuarantineRecord]:
    return lake.fetch(QuarantineRecord, "SELECT * FROM quarantine ORDER BY source")


GOOD: dict[str, list[JsonObject]] = {
    "openai": [rows.OPENAI],
    "nvidia": [rows.NVIDIA],
    "openpipe": [rows.OPENPIPE],
    "litellm": [rows.LITELLM],
    "langfuse": [rows.LANGFUSE],
    "tensorzero": [rows.TENSORZERO, rows.FEEDBACK, rows.DEMONSTRATION],
    "otlp": [rows.OTLP],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_format_is_told_by_its_rows_and_importing_twice_adds_nothing(
    name: str, lake: Lake, tmp_path: Path
) -> None:
    path = log(tmp_path / "log.jsonl", *GOOD[name])
    assert detect_format(path) == name
    first, again = import_files(lake, [path], SOURCE), import_files(lake, [path], SOURCE)
    assert first.format == name
    assert (first.interactions, first.quarantined, first.duplicates) == (1, 0, 0)
    assert (again.interactions, again.assessments) == (0, 0)
    assert again.duplicates == first.interactions + first.assessments
    [call] = lake.fetch(Interaction, "SELECT * FROM interactions")
    assert (call.workload, call.source) == ("triage", f"import:{name}")


def test_rows_that_cannot_be_read_go_to_quarantine_with_their_bytes_and_the_rest_go_on(
    lake: Lake, tmp_path: Path
) -> None:
    bad: list[JsonObject | bytes] = [b"{not json", b"\xff\xfe", b"[1]", {"request": 1}]
    one, two = numbered(2)
    path = log(tmp_path / "log.jsonl", one, *bad, two)
    first = import_files(lake, [path], SOURCE, format_name="openai")
    report = import_files(lake, [path], SOURCE, format_name="openai")
    assert (first.quarantined, first.interactions) == (4, 2)
    assert (report.rows, report.quarantined, report.duplicates) == (6, 0, 6)
    assert report.reasons == {"bad_json": 2, "bad_encoding": 1, "bad_request": 1}
    kept = quarantine(lake)
    payloads = [b"{not json", b"\xff\xfe", b"[1]", b'{"request": 1}']
    assert [row.payload.strip() for row in kept] == payloads
    assert kept[0].source == "import:openai:log.jsonl:2"
    assert len(lake.fetch(Interaction, "SELECT * FROM interactions")) == 2


def test_a_row_the_lake_refuses_is_quarantined_alone(lake: Lake, tmp_path: Path) -> None:
    """A number over 64 bits has no place in a column."""
    calls = import_files(
        lake,
        [log(tmp_path / "log.jsonl", *numbered(5))],
        SOURCE,
        prepare=lambda call: (
            call.model_copy(update={"turn_index": 2**70})
            if call.request_params["seed"] == 3
            else call
        ),
    )
    assert (calls.interactions, calls.quarantined) == (4, 1)
    [kept] = quarantine(lake)
    assert (kept.reason, json.loads(kept.payload)["request"]["seed"]) == ("unstorable_value", 3)


def test_a_batch_and_its_input_are_joined_in_any_order(lake: Lake, tmp_path: Path) -> None:
    asked = [
        {"custom_id": f"r-{n}", "method": "POST", "url": "/v1", "body": {**rows.REQUEST, "seed": n}}
        for n in range(3)
    ]
    answered: list[JsonObject] = [
        {"custom_id": f"r-{n}", "response": {"status_code": 200, "body": rows.COMPLETION}}
        for n in (2, 0, 9)
    ]
    output = log(tmp_path / "output.jsonl", *answered)
    source = log(tmp_path / "input.jsonl", *(dict(row) for row in asked))  # type: ignore[arg-type]
    report = import_files(lake, [output, source], SOURCE)
    assert (report.interactions, report.reasons) == (2, {"no_batch_request": 1})
    assert report.passed_over == {"batch_request": 3}
    calls = lake.fetch(Interaction, "SELECT * FROM interactions")
    assert {call.tags["log_id"]: call.request_params["seed"] for call in calls} == {
        "r-2": 2,
        "r-0": 0,
    }


def test_feedback_on_an_episode_judges_the_conversation(lake: Lake, tmp_path: Path) -> None:
    on_episode: JsonObject = {**rows.FEEDBACK, "target_id": rows.TENSORZERO["episode_id"]}
    on_episode["id"] = "01968d2c-553d-7cd3-a803-fd5241200111"
    inferences = log(tmp_path / "ChatInference.jsonl", rows.TENSORZERO)
    feedback = log(tmp_path / "Feedback.jsonl", rows.FEEDBACK, on_episode, rows.DEMONSTRATION)
    report = import_files(lake, [inferences, feedback], SOURCE)
    assert (report.interactions, report.assessments) == (1, 3)
    found = lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY assessment_id")
    targets = [(item.interaction_id, item.conversation_id) for item in found]
    own, episode = rows.TENSORZERO["id"], rows.TENSORZERO["episode_id"]
    assert targets == [(own, None), (own, None), (None, episode)]
    label = lake.query("SELECT label_source FROM labels WHERE name = 'urgency'").to_pylist()
    assert label, "a demonstration is a label of the workload"


def test_a_score_of_a_trace_with_one_call_judges_that_call(lake: Lake, tmp_path: Path) -> None:
    score: JsonObject = {
        "id": "s-2",
        "traceId": "trace-1",
        "name": "tone",
        "value": 0.5,
        "timestamp": "2026-01-03T00:00:00Z",
    }
    path = log(tmp_path / "log.jsonl", score, rows.LANGFUSE)
    import_files(lake, [path], SOURCE)
    [call] = lake.fetch(Interaction, "SELECT * FROM interactions")
    found = lake.fetch(Assessment, "SELECT * FROM assessments")
    assert {item.interaction_id for item in found} == {call.interaction_id}


def test_log_events_need_not_come_with_their_spans_in_one_file(lake: Lake, tmp_path: Path) -> None:
    bare = rows.otlp({"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"})
    event: Any = {
        "traceId": "5b8efff798038103d269b633813fc60c",
        "spanId": "eee19b7ec3c1b174",
        "eventName": "gen_ai.user.message",
        "body": {"kvlistValue": {"values": [rows.attribute("content", "My knee hurts.")]}},
    }
    records: JsonObject = {"resourceLogs": [{"scopeLogs": [{"logRecords": [event]}]}]}
    paths = [log(tmp_path / "spans.jsonl", bare), log(tmp_path / "logs.jsonl", records)]
    import_files(lake, paths, SOURCE)
    [call] = lake.fetch(Interaction, "SELECT * FROM interactions")
    assert rows.said(call) == rows.REQUEST["messages"]


def test_a_dry_run_writes_nothing(lake: Lake, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", *numbered(3), b"{")
    report = import_files(lake, [path], SOURCE, is_dry_run=True)
    assert (report.interactions, report.quarantined, report.is_dry_run) == (3, 1, True)
    assert not Path(lake.root).exists()


def test_calls_are_prepared_before_their_first_commit(lake: Lake, tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", rows.OPENAI)
    import_files(
        lake, [path], SOURCE, prepare=lambda call: call.model_copy(update={"redactions": 7})
    )
    assert [c.redactions for c in lake.fetch(Interaction, "SELECT * FROM interactions")] == [7]


def test_progress_ends_at_the_bytes_there_are(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH_ROWS", 10)
    path = log(tmp_path / "log.jsonl", *numbered(45))
    seen: list[tuple[int, int]] = []
    report = import_files(
        lake, [path], SOURCE, on_progress=lambda done, total: seen.append((done, total))
    )
    assert report.interactions == 45
    assert len(seen) == 5 and seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


def test_an_import_that_was_interrupted_is_simply_run_again(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH_ROWS", 10)
    path = log(tmp_path / "log.jsonl", *numbered(45))

    def interrupted(call: Interaction) -> Interaction:
        if call.request_params["seed"] == 25:
            raise KeyboardInterrupt
        return call

    with pytest.raises(KeyboardInterrupt):
        import_files(lake, [path], SOURCE, prepare=interrupted)
    report = import_files(lake, [path], SOURCE)
    assert (report.interactions, report.duplicates) == (25, 20)


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times the rows, the same peak: of what Python allocates, in a dry run."""
    monkeypatch.setattr(run, "BATCH_ROWS", 200)
    row = json.dumps(rows.OPENAI).encode() + b"\n"
    peaks = []
    for count in (1_000, 8_000):
        path = tmp_path / f"{count}.jsonl.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(count // 1000):
                file.write(row * 1000)
        tracemalloc.start()
        import_files(Lake(str(tmp_path / "none")), [path], SOURCE, is_dry_run=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_files_that_are_absent_or_of_no_known_format_are_said_at_once(
    lake: Lake, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        import_files(lake, [tmp_path / "a", tmp_path / "b"], SOURCE)
    with pytest.raises(ConfigError, match="give --format, one of: openai, nvidia"):
        import_files(lake, [log(tmp_path / "log.jsonl", {"hello": 1})], SOURCE)


def test_the_command_imports_and_reports(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(rows.OPENAI).encode() + b"\n{\n"))
    command = ["capture", "import", str(path), "--home", str(tmp_path / "home")]
    command += ["--workload", str(EXAMPLE), "--json"]
    finished = CliRunner().invoke(app, command)
    assert finished.exit_code == 0, finished.output
    report = ImportReport.model_validate_json(finished.stdout)
    assert (report.format, report.interactions, report.quarantined) == ("openai", 1, 1)
    plain = CliRunner().invoke(app, command[:-1])
    assert "imported 0 interactions" in plain.stdout
    assert "bad_json 1" in plain.stderr
    missing = CliRunner().invoke(app, [*command[:2], str(tmp_path / "none"), *command[3:]])
    assert isinstance(missing.exception, ConfigError)
