"""The counters add up: over restarts, kills, drains that are killed, and full spools."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture import Spool, drain, read_status
from flywheel.capture.ledger import added, settled
from flywheel.capture.segment import encode_frame
from flywheel.capture.status import SpoolTotals
from flywheel.lake import Lake
from flywheel.records import CaptureCounters
from tests.capture.records import exchange, feedback
from tests.capture.test_drain import write_segment

counts = st.integers(0, 1000)


@given(said=st.tuples(counts, counts, counts, counts), on_disk=counts, is_closed=st.booleans())
def test_a_writers_final_counters_add_up_whatever_it_said_last(
    said: tuple[int, int, int, int], on_disk: int, is_closed: bool
) -> None:
    spooled, pending, full, invalid = said
    dropped = {"spool_full": full, "invalid": invalid}
    last = CaptureCounters(
        accepted=spooled + pending + full + invalid,
        spooled=spooled,
        pending=pending,
        dropped=dropped,
    )
    final = settled(last, on_disk, is_closed=is_closed)
    assert final.accepted == final.spooled + sum(final.dropped.values())
    assert (final.spooled, final.pending) == (on_disk, 0)
    assert final.accepted >= max(last.accepted, on_disk), "nothing a writer said is taken back"
    lost = final.dropped.get("damaged" if is_closed else "killed", 0)
    assert lost == max(0, spooled + pending - on_disk)
    both = added(final, final)
    assert both.accepted == both.spooled + sum(both.dropped.values()) == 2 * final.accepted


def totals(folder: Path) -> SpoolTotals:
    found = read_status(folder).totals
    assert found.adds_up, found
    return found


def test_totals_outlive_the_writers_and_the_segments(spool_dir: Path, lake: Lake) -> None:
    for round_ in range(1, 4):
        with Spool(spool_dir) as spool:
            for _ in range(5):
                spool.append("exchange", exchange())
            spool.append("exchange", exchange(response="<html>"))
            broken = exchange().model_copy(update={"response": "\ud800"})
            assert not spool.append("exchange", broken)
        before = totals(spool_dir)
        assert (before.waiting, before.drained) == (6, 6 * (round_ - 1))
        drain(spool_dir, lake)
        after = totals(spool_dir)
        assert (after.accepted, after.spooled, after.committed) == (
            7 * round_,
            6 * round_,
            5 * round_,
        )
        assert (after.quarantined, after.dropped) == (round_, {"invalid": round_})
    assert {path.name for path in spool_dir.iterdir()} == {"drain.lock", "ledger.json"}


def test_a_live_writer_its_segments_and_the_drained_add_up(spool_dir: Path, lake: Lake) -> None:
    with Spool(spool_dir) as one, Spool(spool_dir) as other:
        for spool in (one, other, one):
            spool.append("exchange", exchange())
            assert spool.seal()
        assert (totals(spool_dir).waiting, totals(spool_dir).accepted) == (3, 3)
        drain(spool_dir, lake)
        one.append("exchange", exchange())
        assert one.seal()
        found = totals(spool_dir)
        assert (found.accepted, found.drained, found.waiting) == (4, 3, 1)


def test_what_a_killed_writer_had_in_memory_and_told_of_is_dropped_as_killed(
    spool_dir: Path,
) -> None:
    said = CaptureCounters(accepted=10, spooled=6, pending=3, dropped={"invalid": 1})
    final = settled(said, 7, is_closed=False)
    assert (final.accepted, final.spooled) == (10, 7)
    assert final.dropped == {"invalid": 1, "killed": 2}


def test_segments_of_writers_nobody_knows_are_counted_where_they_are_found(
    spool_dir: Path, lake: Lake
) -> None:
    frames = [encode_frame("exchange", exchange().model_dump_json().encode()) for _ in range(3)]
    write_segment(spool_dir, "w-00000001.seg", *frames, frames[0][:-5])
    assert totals(spool_dir).waiting == 4
    drain(spool_dir, lake)
    found = totals(spool_dir)
    assert (found.accepted, found.committed, found.quarantined) == (4, 3, 1)


def test_a_ledger_that_cannot_be_read_is_said_and_begun_anew(
    spool_dir: Path, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    spool_dir.mkdir()
    (spool_dir / "ledger.json").write_text("{")
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange())
    drain(spool_dir, lake)
    assert "its counts begin anew" in caplog.text
    assert totals(spool_dir).committed == 1


@pytest.mark.parametrize(("moment", "count"), [("before", 1), ("after", 2), ("progress", 3)])
def test_a_killed_drain_counts_nothing_twice(
    spool_dir: Path, lake: Lake, moment: str, count: int
) -> None:
    with Spool(spool_dir, segment_bytes=2000, default_workload="triage") as spool:
        for _ in range(20):
            spool.append("exchange", exchange())
            spool.append("feedback", feedback())
            spool.seal()
    command = [sys.executable, "-m", "tests.capture.drainer", str(spool_dir), lake.root]
    subprocess.run([*command, moment, str(count)], check=False, timeout=100)
    totals(spool_dir)
    drain(spool_dir, lake)
    found = totals(spool_dir)
    assert (found.accepted, found.spooled, found.drained, found.waiting) == (40, 40, 40, 0)


def test_segments_counted_and_not_yet_deleted_are_not_drained_again(
    spool_dir: Path, lake: Lake
) -> None:
    """The moment between the ledger and the delete, made by putting a segment back."""
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange())
    [path] = spool_dir.glob("*.seg")
    data = path.read_bytes()
    with Spool(spool_dir) as live:
        live.append("exchange", exchange())
        drain(spool_dir, lake)
        ledger = (spool_dir / "ledger.json").read_text()
        path.write_bytes(data)
        (spool_dir / "ledger.json").write_text(
            ledger.replace('"deleting":[]', f'"deleting":["{path.name}"]')
        )
        assert totals(spool_dir).waiting == 0
        assert drain(spool_dir, lake).records == 0
        assert not path.exists()
        assert totals(spool_dir).drained == 2


@pytest.mark.parametrize("seed", range(2))
def test_counters_add_up_over_random_kills_closes_and_drains(
    spool_dir: Path, lake: Lake, seed: int
) -> None:
    """Two writers on one folder, one of them with a cap it reaches; each ends by chance."""
    chance = random.Random(seed)
    said = 0
    for _ in range(3):
        caps = (1 << 30, 12_000)
        writers = [start(spool_dir, cap) for cap in caps]
        for _ in range(3):
            for writer in writers:
                wanted = chance.randrange(1, 60)
                said += wanted
                tell(writer, f"{wanted}\n")
            if chance.random() < 0.5:
                drain(spool_dir, lake)
        for writer in writers:
            end(writer, is_killed=chance.random() < 0.6)
        totals(spool_dir)
        if chance.random() < 0.7:
            drain(spool_dir, lake)
            totals(spool_dir)
    drain(spool_dir, lake)
    found = totals(spool_dir)
    rows = lake.query("SELECT count(*) n FROM interactions").column("n")[0].as_py()
    assert found.committed == rows
    assert (found.waiting, found.pending) == (0, 0)
    assert found.accepted <= said, "more than was handed in is nowhere"


def start(folder: Path, max_bytes: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.capture.mortal_writer", str(folder), str(max_bytes)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "up\n"
    return writer


def tell(writer: "subprocess.Popen[str]", word: str) -> None:
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(word)
    writer.stdin.flush()
    assert writer.stdout.readline()


def end(writer: "subprocess.Popen[str]", *, is_killed: bool) -> None:
    if is_killed:
        time.sleep(random.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=20)
    else:
        writer.communicate("close\n", timeout=20)
