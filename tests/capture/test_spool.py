import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flywheel.capture import Spool, read_status
from flywheel.capture.folder import SpoolFolder
from flywheel.capture.segment import Damage, Frame, decode_header, read_frames
from flywheel.errors import ConfigError
from flywheel.records import Exchange
from tests.capture.records import exchange, feedback
from tests.capture.tiny_disk import fill


def frames_in(folder: Path, suffix: str = "seg") -> list[Frame]:
    frames: list[Frame] = []
    for path in sorted(folder.glob(f"*.{suffix}")):
        data = path.read_bytes()
        for part in read_frames(data, decode_header(data)[1]):
            assert not isinstance(part, Damage)
            frames.append(part)
    return frames


def has_sealed(folder: Path, count: int) -> bool:
    return len(list(folder.glob("*.seg"))) == count


def eventually(claim: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def test_what_is_appended_is_on_disk_after_close(spool_dir: Path) -> None:
    call, judgement = exchange(), feedback()
    with Spool(spool_dir) as spool:
        assert spool.append("exchange", call)
        assert spool.append("feedback", judgement)
    frames = frames_in(spool_dir)
    assert [frame.kind for frame in frames] == ["exchange", "feedback"]
    assert Exchange.model_validate_json(frames[0].payload) == call
    assert not list(spool_dir.glob("*.writer")), "a closed writer leaves nothing but segments"


def test_records_are_on_disk_within_the_window_without_a_close(spool_dir: Path) -> None:
    with Spool(spool_dir, fsync_interval_s=0.02) as spool:
        spool.append("exchange", exchange())
        eventually(lambda: spool.counters.spooled == 1)
        assert len(frames_in(spool_dir, "open")) == 1


def test_counters_add_up_while_threads_append(spool_dir: Path) -> None:
    with Spool(spool_dir, segment_bytes=20_000, max_bytes=100_000) as spool:
        call = exchange()

        def work() -> None:
            for _ in range(100):
                spool.append("exchange", call)
                counters = spool.counters
                dropped = sum(counters.dropped.values())
                assert counters.accepted == counters.spooled + counters.pending + dropped

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert spool.counters.accepted == 400
    assert spool.counters.pending == 0
    assert spool.counters.dropped.keys() == {"spool_full"}
    assert spool.counters.spooled == len(frames_in(spool_dir))


def test_a_segment_is_sealed_by_size_and_by_age(spool_dir: Path) -> None:
    with Spool(spool_dir, segment_bytes=1, segment_seconds=3600) as spool:
        for count in (1, 2, 3):
            spool.append("exchange", exchange())
            eventually(partial(has_sealed, spool_dir, count))
    with Spool(spool_dir, segment_seconds=0.1) as spool:
        spool.append("exchange", exchange())
        eventually(partial(has_sealed, spool_dir, 4))


def test_a_seal_covers_everything_appended_before_it(spool_dir: Path) -> None:
    with Spool(spool_dir, fsync_interval_s=5) as spool:
        for _ in range(50):
            spool.append("exchange", exchange())
        started = time.monotonic()
        assert spool.seal()
        assert time.monotonic() - started < 3, "a seal does not wait for the window"
        assert len(frames_in(spool_dir)) == 50


def test_two_spools_share_a_folder_and_do_not_touch_each_other(spool_dir: Path) -> None:
    with Spool(spool_dir) as one, Spool(spool_dir) as other:
        one.append("exchange", exchange())
        other.append("exchange", exchange())
        assert one.seal()
        assert len(list(spool_dir.glob("*.seg"))) == 1
        eventually(lambda: other.counters.spooled == 1)
        assert len(list(spool_dir.glob("*.open"))) == 1
        assert read_status(spool_dir).open_segments == 1
    assert len(frames_in(spool_dir)) == 2


def test_at_its_cap_the_spool_drops_counts_and_says_so_then_takes_records_again(
    spool_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(spool_dir, max_bytes=3000) as spool:
        while spool.append("exchange", exchange()):
            pass
        assert spool.counters.dropped == {"spool_full": 1}
        assert "dropped a record: spool_full" in caplog.text
        assert "flywheel capture drain" in caplog.text
        assert spool.seal()
        for path in spool_dir.glob("*.seg"):
            path.unlink()
        eventually(lambda: spool.append("exchange", exchange()))
        assert spool.is_writable


def test_a_record_without_utf8_is_dropped_and_counted(spool_dir: Path) -> None:
    with Spool(spool_dir) as spool:
        broken = exchange().model_copy(update={"response": "\ud800"})
        assert not spool.append("exchange", broken)
        assert spool.counters.dropped == {"invalid": 1}


def test_a_closed_spool_refuses_and_counts(spool_dir: Path) -> None:
    spool = Spool(spool_dir)
    spool.close()
    spool.close()
    assert not spool.append("exchange", exchange())
    assert spool.counters.dropped == {"closed": 1}
    assert not spool.is_writable


def test_a_full_disk_loses_nothing_until_memory_is_full_then_counts_then_recovers(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A real file system that is full: ENOSPC comes from the kernel."""
    caplog.set_level(logging.WARNING)
    folder = tiny_disk / "spool"
    with Spool(folder, queue_bytes=20_000) as spool:
        spool.append("exchange", exchange())
        eventually(lambda: spool.counters.spooled == 1)
        ballast = fill(tiny_disk)
        large = exchange(response="x" * 5000)
        assert spool.append("exchange", large)
        eventually(lambda: not spool.is_writable)
        assert "cannot be written to: [Errno 28] No space left on device" in caplog.text
        while spool.append("exchange", large):
            pass
        counters = spool.counters
        assert counters.dropped == {"disk_error": 1}
        assert counters.accepted == counters.spooled + counters.pending + 1
        assert "dropped a record: disk_error ([Errno 28]" in caplog.text
        ballast.unlink()
        eventually(lambda: spool.counters.pending == 0)
        assert spool.is_writable
        assert "is written to again" in caplog.text
        assert spool.append("exchange", exchange())
    assert len(frames_in(folder)) == spool.counters.spooled == counters.accepted


def test_what_a_full_disk_never_took_is_counted_at_the_close(
    tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Spool(tiny_disk / "spool") as spool:
        fill(tiny_disk)
        for _ in range(3):
            assert spool.append("exchange", exchange(response="x" * 5000))
    assert spool.counters.dropped == {"disk_error": 3}
    assert spool.counters.pending == 0
    assert "closed with 3 records lost" in caplog.text


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("in the way")
    with pytest.raises(ConfigError, match="the spool cannot be written to"):
        Spool(path)


def test_an_appending_thread_never_waits_for_the_disk(spool_dir: Path) -> None:
    with Spool(spool_dir, fsync_interval_s=1) as spool:
        call = exchange()
        started = time.monotonic()
        for _ in range(1000):
            spool.append("exchange", call)
        assert time.monotonic() - started < 1


def test_a_dead_writer_is_told_from_a_live_one(spool_dir: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child is killed
        spool = Spool(spool_dir)
        spool.append("exchange", exchange())
        while spool.counters.spooled < 1:
            time.sleep(0.01)
        os.write(writer, spool.writer.encode())
        time.sleep(60)
    name = os.read(reader, 100).decode()
    folder = SpoolFolder(spool_dir)
    assert folder.is_alive(name)
    assert folder.leftovers() == []
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert not folder.is_alive(name)
    assert len(folder.leftovers()) == 1
    status = read_status(spool_dir)
    assert (status.leftover_segments, status.writers[0].is_alive) == (1, False)
    os.close(reader)
    os.close(writer)
