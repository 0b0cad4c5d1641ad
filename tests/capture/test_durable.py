"""When a record is on disk: the three durabilities, and who waits for what."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flywheel.capture import Spool
from flywheel.capture.segment import Damage, decode_header, read_frames
from tests.capture.records import exchange
from tests.capture.tiny_disk import fill


def on_disk(folder: Path) -> int:
    """Whole records in segments, open or sealed."""
    count = 0
    for path in (*folder.glob("*.seg"), *folder.glob("*.open")):
        data = path.read_bytes()
        parts = list(read_frames(data, decode_header(data)[1]))
        assert not any(isinstance(part, Damage) for part in parts)
        count += len(parts)
    return count


async def eventually(claim: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


async def test_durable_returns_when_the_record_is_on_disk_and_not_after_the_window(
    spool_dir: Path,
) -> None:
    with Spool(spool_dir, fsync_interval_s=30) as spool:
        for count in (1, 2, 3):
            spool.append("exchange", exchange())
            assert await spool.durable()
            assert on_disk(spool_dir) == spool.counters.spooled == count


async def test_with_nothing_appended_durable_waits_for_nothing(spool_dir: Path) -> None:
    with Spool(spool_dir) as spool:
        assert await asyncio.wait_for(spool.durable(), 0.5)


async def test_one_fsync_serves_all_who_wait(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsyncs = 0
    fdatasync = __import__("os").fdatasync

    def counted(descriptor: int) -> None:
        nonlocal fsyncs
        fsyncs += 1
        time.sleep(0.02)
        fdatasync(descriptor)

    monkeypatch.setattr("flywheel.capture.writer.os.fdatasync", counted)
    with Spool(spool_dir) as spool:

        async def call() -> bool:
            spool.append("exchange", exchange())
            return await spool.durable()

        assert await asyncio.gather(*[call() for _ in range(100)]) == [True] * 100
        assert fsyncs <= 4
        assert on_disk(spool_dir) == 100


async def test_a_full_disk_delays_an_answer_for_a_bounded_time_and_is_counted_and_shouted(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(tiny_disk / "spool", durable_timeout_s=0.3) as spool:
        spool.append("exchange", exchange())
        assert await spool.durable()
        ballast = fill(tiny_disk)
        spool.append("exchange", exchange(response="x" * 5000))
        started = time.monotonic()
        assert not await spool.durable()
        assert 0.2 < time.monotonic() - started < 2
        counters = spool.counters
        assert (counters.late, counters.pending, counters.dropped) == (1, 1, {})
        assert "an answer left although its record is not on disk" in caplog.text
        ballast.unlink()
        await eventually(lambda: spool.counters.pending == 0)
        assert await spool.durable()
        assert spool.counters.late == 1


async def test_who_goes_away_while_waiting_leaves_nothing_behind(tiny_disk: Path) -> None:
    with Spool(tiny_disk / "spool", durable_timeout_s=30) as spool:
        ballast = fill(tiny_disk)
        spool.append("exchange", exchange(response="x" * 5000))
        waiting = asyncio.create_task(spool.durable())
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        ballast.unlink()
        assert await spool.durable()


async def test_a_spool_that_closes_without_the_record_says_so_at_once(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk / "spool", durable_timeout_s=30)
    fill(tiny_disk)
    spool.append("exchange", exchange(response="x" * 5000))
    waiting = asyncio.create_task(spool.durable())
    await asyncio.sleep(0.05)
    await asyncio.to_thread(spool.close)
    assert await asyncio.wait_for(waiting, 2) is False
    assert await spool.durable() is False
    assert spool.counters.dropped == {"disk_error": 1}


async def test_async_is_written_in_the_window_and_fsynced_with_the_seal(
    spool_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsyncs = 0
    fdatasync = __import__("os").fdatasync

    def counted(descriptor: int) -> None:
        nonlocal fsyncs
        fsyncs += 1
        fdatasync(descriptor)

    monkeypatch.setattr("flywheel.capture.writer.os.fdatasync", counted)
    with Spool(spool_dir, durability="async") as spool:
        spool.append("exchange", exchange())
        await eventually(lambda: spool.counters.spooled == 1)
        assert (on_disk(spool_dir), fsyncs) == (1, 0)
        assert spool.seal()
        assert fsyncs == 1
        spool.append("exchange", exchange())
        await eventually(lambda: spool.counters.spooled == 2)
        assert await spool.durable()
        assert fsyncs == 2, "who asks gets an fsync all the same"


async def test_workloads_of_one_spool_may_differ(spool_dir: Path) -> None:
    with Spool(spool_dir, fsync_interval_s=30) as spool:
        spool.append("exchange", exchange(), durability="async")
        spool.append("exchange", exchange(), durability="group")
        assert on_disk(spool_dir) == 0
        spool.append("exchange", exchange(), durability="before_response")
        assert await spool.durable()
        assert on_disk(spool_dir) == 3
