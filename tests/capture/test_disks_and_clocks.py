"""What the spool does where its disk or its clock misbehaves; docs/capture.md declares it.

A full disk, and a spool at its cap, are in test_spool.py, test_limit.py and test_durable.py.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path

import pytest

from flywheel.capture import Spool, drain, read_status
from flywheel.errors import ConfigError
from flywheel.lake import Lake
from flywheel.records import Interaction, new_id, utcnow
from tests.capture.records import exchange
from tests.capture.test_spool import eventually, has_sealed
from tests.capture.tiny_disk import fill


def test_a_read_only_disk_is_refused_at_the_start(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(ConfigError, match="the spool cannot be written to"):
        Spool(tiny_disk)


@pytest.fixture
def frozen(spool_dir: Path) -> Iterator[list[str]]:
    """The command that lets nobody make a file in the folder, not even root."""
    spool_dir.mkdir()
    chattr = shutil.which("chattr")
    command = [chattr or "chattr", "+i", str(spool_dir)]
    if not chattr or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user or file system cannot make a folder immutable")
    subprocess.run([chattr, "-i", str(spool_dir)], check=True)
    yield command
    subprocess.run([chattr, "-i", str(spool_dir)], check=True)


def test_a_folder_that_becomes_read_only_keeps_records_in_memory_until_it_is_not(
    spool_dir: Path, frozen: list[str], lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    """The open segment can still be written; the next one cannot be begun."""
    with Spool(spool_dir) as spool:
        spool.append("exchange", exchange())
        assert spool.seal()
        subprocess.run(frozen, check=True)
        assert spool.append("exchange", exchange())
        eventually(lambda: not spool.is_writable)
        assert "cannot be written to: [Errno 1]" in caplog.text
        counters = spool.counters
        assert (counters.spooled, counters.pending, counters.dropped) == (1, 1, {})
        subprocess.run([frozen[0], "-i", str(spool_dir)], check=True)
        eventually(lambda: spool.counters.pending == 0)
        assert spool.is_writable
    assert drain(spool_dir, lake).interactions == 2
    assert read_status(spool_dir).totals.adds_up


def test_a_full_disk_is_drained_and_its_books_are_kept(tiny_disk: Path, lake: Lake) -> None:
    """Where the ledger finds no room, deleting comes first: that makes it."""
    folder = tiny_disk / "spool"
    for _ in range(2):
        with Spool(folder) as spool:
            for _ in range(20):
                spool.append("exchange", exchange())
    with Spool(folder) as live:
        ballast = fill(tiny_disk)
        assert drain(folder, lake, seal_timeout_s=0.2).interactions == 40
        assert read_status(folder).totals.adds_up
        live.append("exchange", exchange())
        ballast.unlink()
    drain(folder, lake)
    totals = read_status(folder).totals
    assert totals.adds_up
    assert (totals.accepted, totals.committed) == (41, 41)


class JumpingClock(datetime):
    """The wall clock, set wrong by `offset`."""

    offset = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "JumpingClock":
        return datetime.now(tz) + cls.offset  # type: ignore[return-value]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[JumpingClock]:
    time_ns = time.time_ns
    monkeypatch.setattr("flywheel.records.datetime", JumpingClock)
    monkeypatch.setattr(
        "flywheel.records.time.time_ns",
        lambda: time_ns() + int(JumpingClock.offset.total_seconds() * 1e9),
    )
    monkeypatch.setattr(JumpingClock, "offset", timedelta())
    return JumpingClock


def test_a_clock_that_jumps_costs_no_record_and_doubles_none(
    spool_dir: Path, lake: Lake, clock: type[JumpingClock]
) -> None:
    """Each call has the day its clock said; segments age by a clock that cannot be set."""
    days = [0, -3, 400, -400, 0]
    expected = []
    with Spool(spool_dir, segment_seconds=0.05) as spool:
        for number, day in enumerate(days, start=1):
            clock.offset = timedelta(days=day)
            call = exchange(interaction_id=new_id(), started_at=utcnow())
            expected.append((call.interaction_id, (datetime.now(UTC) + clock.offset).date()))
            spool.append("exchange", call)
            eventually(partial(has_sealed, spool_dir, number))
        clock.offset = timedelta(days=-500)
        assert read_status(spool_dir).oldest_age_s == 0.0, "no negative age"
        saved = {path.name: path.read_bytes() for path in spool_dir.glob("*.seg")}
        assert drain(spool_dir, lake).interactions == len(days)
        for name, data in saved.items():
            (spool_dir / name).write_bytes(data)
        clock.offset = timedelta(days=500)
        assert drain(spool_dir, lake).duplicates == len(days)
    rows = lake.fetch(Interaction, "SELECT * FROM interactions")
    assert {(row.interaction_id, row.event_date) for row in rows} == set(expected)
    assert len(rows) == len(days)


def test_ids_made_while_the_clock_stands_or_goes_back_are_all_different(
    clock: type[JumpingClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel.records.time.time_ns", lambda: 1_700_000_000_000_000_000)
    assert len({new_id() for _ in range(10_000)}) == 10_000
