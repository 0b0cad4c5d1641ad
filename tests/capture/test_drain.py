import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flywheel.capture import Spool, drain, read_status
from flywheel.capture.drain import DrainReport
from flywheel.capture.folder import SpoolFolder
from flywheel.capture.parse import to_assessment, to_interaction
from flywheel.capture.segment import SegmentHeader, encode_frame, encode_header
from flywheel.errors import LakeConflictError, SpoolBusyError
from flywheel.lake import AppendResult, Lake, Rows
from flywheel.records import Assessment, Exchange, Interaction, QuarantineRecord, new_id
from tests.capture.records import STARTED, exchange, feedback


def adds_up(report: DrainReport) -> bool:
    arrived = report.interactions + report.assessments + report.quarantined + report.duplicates
    return report.records + report.damaged == arrived


def interactions(lake: Lake) -> list[Interaction]:
    return lake.fetch(Interaction, "SELECT * FROM interactions ORDER BY interaction_id")


def assessments(lake: Lake) -> list[Assessment]:
    return lake.fetch(Assessment, "SELECT * FROM assessments ORDER BY assessment_id")


def quarantine(lake: Lake) -> list[QuarantineRecord]:
    return lake.fetch(QuarantineRecord, "SELECT * FROM quarantine ORDER BY source")


def write_segment(folder: Path, name: str, *frames: bytes, default: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    header = SegmentHeader(writer="w", created_at=STARTED, default_workload=default)
    path = folder / name
    path.write_bytes(encode_header(header) + b"".join(frames))
    return path


def test_everything_spooled_arrives_and_the_spool_is_empty(spool_dir: Path, lake: Lake) -> None:
    calls = [exchange() for _ in range(30)]
    with Spool(spool_dir, segment_bytes=3000) as spool:
        for call in calls:
            spool.append("exchange", call)
        spool.append("feedback", feedback(interaction_id=calls[3].interaction_id))
    report = drain(spool_dir, lake)
    assert (report.records, report.interactions, report.assessments) == (31, 30, 1)
    assert adds_up(report)
    assert [row.interaction_id for row in interactions(lake)] == sorted(
        call.interaction_id for call in calls
    )
    assert read_status(spool_dir).bytes == 0
    assert drain(spool_dir, lake).records == 0


def test_a_spool_that_was_never_written_drains_to_nothing(spool_dir: Path, lake: Lake) -> None:
    report = drain(spool_dir, lake)
    assert (report.records, report.segments) == (0, 0)
    assert not spool_dir.exists()


def test_a_live_writer_hands_over_everything_appended_before_the_drain(
    spool_dir: Path, lake: Lake
) -> None:
    with Spool(spool_dir, fsync_interval_s=30) as one, Spool(spool_dir) as other:
        for spool in (one, other):
            for _ in range(20):
                spool.append("exchange", exchange())
        assert drain(spool_dir, lake).interactions == 40
        one.append("exchange", exchange())
        assert drain(spool_dir, lake).interactions == 1


def test_a_drain_while_calls_keep_coming_loses_and_doubles_none(
    spool_dir: Path, lake: Lake
) -> None:
    calls = [exchange() for _ in range(400)]

    def work(spool: Spool) -> None:
        for call in calls:
            spool.append("exchange", call)
            time.sleep(0.001)

    drained = 0
    with Spool(spool_dir, segment_bytes=10_000) as spool:
        thread = threading.Thread(target=work, args=(spool,))
        thread.start()
        while thread.is_alive():
            drained += drain(spool_dir, lake).interactions
        thread.join()
    drained += drain(spool_dir, lake).interactions
    assert drained == 400
    ids = sorted(call.interaction_id for call in calls)
    assert [row.interaction_id for row in interactions(lake)] == ids


def test_a_writer_that_cannot_seal_does_not_stop_the_rest(spool_dir: Path, lake: Lake) -> None:
    """A stopped process holds its lock and answers nothing."""
    script = (
        "import sys, time; from pathlib import Path; from flywheel.capture import Spool\n"
        "spool = Spool(Path(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(spool_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGSTOP)
        with Spool(spool_dir) as spool:
            spool.append("exchange", exchange())
            report = drain(spool_dir, lake, seal_timeout_s=0.5)
        assert (report.interactions, report.unsealed_writers) == (1, 1)
        child.kill()
    assert drain(spool_dir, lake).unsealed_writers == 0
    assert SpoolFolder(spool_dir).writers() == [], "a dead writer is forgotten"


def test_what_a_killed_writer_left_is_drained_and_its_torn_end_kept_in_quarantine(
    spool_dir: Path, lake: Lake
) -> None:
    whole, torn = (
        encode_frame("exchange", exchange().model_dump_json().encode()) for _ in range(2)
    )
    write_segment(spool_dir, "dead-00000001.open", whole, torn[:-5])
    report = drain(spool_dir, lake)
    assert (report.records, report.damaged, report.interactions, report.quarantined) == (1, 1, 1, 1)
    assert adds_up(report)
    [kept] = quarantine(lake)
    assert (kept.reason, kept.payload) == ("torn_frame", torn[:-5])
    assert kept.source.startswith("spool:dead-00000001@")
    assert list(spool_dir.glob("*.open")) == []


def test_a_damaged_frame_costs_itself_only(spool_dir: Path, lake: Lake) -> None:
    frames = [encode_frame("exchange", exchange().model_dump_json().encode()) for _ in range(3)]
    frames[1] = frames[1][:50] + b"#" + frames[1][51:]
    write_segment(spool_dir, "w-00000001.seg", *frames)
    report = drain(spool_dir, lake)
    assert (report.interactions, report.quarantined, adds_up(report)) == (2, 1, True)
    assert quarantine(lake)[0].reason == "corrupt_frame"


def test_a_segment_without_a_readable_header_still_gives_its_frames(
    spool_dir: Path, lake: Lake
) -> None:
    path = write_segment(
        spool_dir,
        "w-00000001.seg",
        encode_frame("exchange", exchange().model_dump_json().encode()),
    )
    path.write_bytes(b"XX" + path.read_bytes()[2:])
    report = drain(spool_dir, lake)
    assert (report.interactions, report.quarantined, adds_up(report)) == (1, 1, True)


def test_a_segment_of_a_newer_flywheel_is_left_alone(
    spool_dir: Path, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_segment(spool_dir, "w-00000001.seg", b"whatever")
    data = bytearray(path.read_bytes())
    data[8] = 9
    path.write_bytes(data)
    report = drain(spool_dir, lake)
    assert (report.skipped_segments, report.segments) == (1, 0)
    assert path.read_bytes() == data
    assert "upgrade Flywheel" in caplog.text


def test_records_that_cannot_be_read_go_to_quarantine_with_their_bytes_and_the_rest_go_on(
    spool_dir: Path, lake: Lake
) -> None:
    html = exchange(response="<html>")
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange())
        spool.append("exchange", html)
        spool.append("exchange", exchange())
    write_segment(spool_dir, "x-00000001.seg", encode_frame("exchange", b'{"new_field":1}'))
    report = drain(spool_dir, lake)
    assert (report.interactions, report.quarantined, adds_up(report)) == (2, 2, True)
    kept = {row.reason: row for row in quarantine(lake)}
    assert Exchange.model_validate_json(kept["bad_response"].payload) == html
    assert kept["invalid_record"].payload == b'{"new_field":1}'


def test_a_row_the_lake_refuses_does_not_block_the_others(spool_dir: Path, lake: Lake) -> None:
    """A token count over 64 bits is JSON and a record, and has no place in a column."""
    response = json.loads(exchange().response) | {"usage": {"prompt_tokens": 2**70}}
    with Spool(spool_dir) as spool:
        for _ in range(5):
            spool.append("exchange", exchange())
        spool.append("exchange", exchange(response=json.dumps(response)))
        for _ in range(5):
            spool.append("exchange", exchange())
    report = drain(spool_dir, lake)
    assert (report.interactions, report.quarantined, adds_up(report)) == (10, 1, True)
    assert quarantine(lake)[0].reason == "unstorable_value"


def test_the_same_record_twice_is_one_row(spool_dir: Path, lake: Lake) -> None:
    call, judgement = exchange(), feedback(workload="triage")
    reports = []
    for _ in range(2):
        with Spool(spool_dir) as spool:
            for _ in range(2):
                spool.append("exchange", call)
                spool.append("feedback", judgement)
        reports.append(drain(spool_dir, lake))
    assert [(r.interactions, r.assessments, r.duplicates) for r in reports] == [
        (1, 1, 2),
        (0, 0, 4),
    ]
    assert all(adds_up(report) for report in reports)
    assert len(interactions(lake)) == len(assessments(lake)) == 1


def test_feedback_finds_its_workload_in_itself_its_call_or_the_gateways_default(
    spool_dir: Path, lake: Lake
) -> None:
    earlier = exchange(workload="coding")
    with Spool(spool_dir) as spool:
        spool.append("exchange", earlier)
    drain(spool_dir, lake)
    same = exchange(workload="notes", conversation_id="c-9")
    with Spool(spool_dir, default_workload="triage") as spool:
        names = {
            "own": feedback(workload="letters"),
            "in the lake": feedback(interaction_id=earlier.interaction_id),
            "same batch, before it": feedback(interaction_id=same.interaction_id),
            "conversation": feedback(interaction_id=None, conversation_id="c-9"),
            "unknown": feedback(),
        }
        for judgement in names.values():
            spool.append("feedback", judgement)
        spool.append("exchange", same)
    drain(spool_dir, lake)
    found = {row.assessment_id: row.workload for row in assessments(lake)}
    assert {name: found[item.assessment_id or ""] for name, item in names.items()} == {
        "own": "letters",
        "in the lake": "coding",
        "same batch, before it": "notes",
        "conversation": "notes",
        "unknown": "triage",
    }


def test_feedback_nobody_can_place_goes_to_quarantine(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir) as spool:
        spool.append("feedback", feedback())
    report = drain(spool_dir, lake)
    assert (report.quarantined, adds_up(report)) == (1, True)
    assert quarantine(lake)[0].reason == "unknown_workload"


def test_feedback_keeps_its_workload_when_a_killed_drain_is_repeated_after_its_call_came(
    spool_dir: Path, lake: Lake
) -> None:
    """Else the second drain would file the same judgement a second time, under another workload."""
    call = exchange(workload="coding")
    judgement = feedback(interaction_id=call.interaction_id).model_dump_json().encode()
    frame = encode_frame("feedback", judgement)
    write_segment(spool_dir, "w-00000001.seg", frame, default="triage")
    drain(spool_dir, lake)
    write_segment(spool_dir, "w-00000001.seg", frame, default="triage")
    call_frame = encode_frame("exchange", call.model_dump_json().encode())
    write_segment(spool_dir, "w-00000002.seg", call_frame)
    report = drain(spool_dir, lake)
    assert (report.assessments, report.duplicates) == (0, 1)
    assert [row.workload for row in assessments(lake)] == ["triage"]


def test_calls_and_judgements_that_came_parsed_are_committed_as_they_are(
    spool_dir: Path, lake: Lake
) -> None:
    call = to_interaction(exchange(), ingested_at=STARTED)
    judged = feedback(interaction_id=call.interaction_id)
    judgement = to_assessment(judged, workload="triage", received_at=STARTED)
    reports = []
    for _ in range(2):
        with Spool(spool_dir) as spool:
            spool.append("interaction", call)
            spool.append("assessment", judgement)
        reports.append(drain(spool_dir, lake))
    assert all(adds_up(report) for report in reports)
    assert [report.duplicates for report in reports] == [0, 2]
    [row] = interactions(lake)
    assert row.ingested_at is not None
    assert row.ingested_at > STARTED, "when it was committed, not when it was read"
    assert row.model_copy(update={"ingested_at": STARTED}) == call
    assert assessments(lake) == [judgement]


def test_only_one_drain_works_on_a_spool_at_a_time(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir):
        with (
            SpoolFolder(spool_dir).draining(),
            pytest.raises(SpoolBusyError, match="another drain is working on"),
        ):
            drain(spool_dir, lake)
        assert drain(spool_dir, lake).records == 0


@pytest.mark.parametrize(
    ("moment", "count"),
    [
        *[("before", count) for count in (1, 2, 3)],
        *[("after", count) for count in (1, 2, 3)],
        *[("progress", count) for count in (1, 3)],
    ],
)
def test_a_drain_killed_at_any_moment_is_simply_run_again(
    spool_dir: Path, lake: Lake, moment: str, count: int
) -> None:
    """Appends come in the order interactions, quarantine, assessments; deletes follow."""
    calls = [exchange() for _ in range(20)]
    judgements = [feedback(interaction_id=call.interaction_id) for call in calls[::2]]
    with Spool(spool_dir, segment_bytes=2000, default_workload="triage") as spool:
        for call in calls:
            spool.append("exchange", call)
            if call in calls[::4]:
                spool.seal()
        for judgement in judgements:
            spool.append("feedback", judgement)
        spool.append("exchange", exchange(response="<html>"))
    assert len(list(spool_dir.glob("*.seg"))) > 4
    command = [sys.executable, "-m", "tests.capture.drainer", str(spool_dir), lake.root]
    killed = subprocess.run([*command, moment, str(count)], check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    report = drain(spool_dir, lake)
    assert adds_up(report)
    ids = sorted(call.interaction_id for call in calls)
    assert [row.interaction_id for row in interactions(lake)] == ids
    assert len(assessments(lake)) == len(judgements)
    assert len(quarantine(lake)) == 1
    assert list(spool_dir.glob("*.seg")) == []


def test_progress_ends_at_the_total(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir, segment_bytes=1) as spool:
        for _ in range(3):
            spool.append("exchange", exchange(interaction_id=new_id()))
            spool.seal()
    seen: list[tuple[int, int]] = []
    report = drain(spool_dir, lake, on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (report.bytes, report.bytes)


def test_the_report_says_what_never_reached_the_disk(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir, max_bytes=3000) as spool:
        while spool.append("exchange", exchange()):
            pass
        report = drain(spool_dir, lake)
    assert (report.dropped, report.interactions > 0) == (1, True)


def test_segments_are_only_readable_by_their_owner(spool_dir: Path) -> None:
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange())
    [path] = spool_dir.glob("*.seg")
    assert path.stat().st_mode & 0o077 == 0


class StumblingLake(Lake):
    """A lake that loses one commit to other writers."""

    def __init__(self, root: str, at: int) -> None:
        super().__init__(root)
        self.left = at

    def append_rows(self, parts: Sequence[Rows]) -> AppendResult:
        self.left -= 1
        if self.left == 0:
            raise LakeConflictError(parts[0].spec.name, 1)
        return super().append_rows(parts)


@pytest.mark.parametrize("at", [1, 2, 4, 7, 10])
def test_a_segment_committed_in_several_commits_survives_one_that_fails(
    spool_dir: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """While one commit runs the next rows are parsed; no segment goes before all it held."""
    module = sys.modules["flywheel.capture.drain"]
    monkeypatch.setattr(module, "COMMIT_ROWS", 7)
    monkeypatch.setattr(module, "BATCH_BYTES", 10_000)
    calls = [exchange() for _ in range(60)]
    with Spool(spool_dir, default_workload="triage") as spool:
        for number, call in enumerate(calls, start=1):
            spool.append("exchange", call)
            if number % 20 == 0:
                spool.append("exchange", exchange(response="<html>"))
                spool.seal()
        spool.append("feedback", feedback())
        spool.append("exchange", exchange())
    with pytest.raises(LakeConflictError):
        drain(spool_dir, StumblingLake(lake.root, at))
    assert read_status(spool_dir).totals.adds_up
    report = drain(spool_dir, lake)
    assert adds_up(report)
    assert {call.interaction_id for call in calls} < {r.interaction_id for r in interactions(lake)}
    assert len(interactions(lake)) == 61
    assert (len(assessments(lake)), len(quarantine(lake))) == (1, 3)
    totals = read_status(spool_dir).totals
    assert totals.adds_up
    assert (totals.accepted, totals.drained, totals.waiting) == (65, 65, 0)
