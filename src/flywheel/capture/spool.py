"""The spool: every call and every judgement on local disk before anything else happens to it.

Input: Exchange and Feedback records, or Interactions and Assessments that came parsed, from an
event loop or any thread. Output: segment files in one folder, which `drain` turns into rows of the
lake.

`append` never waits for the disk: one thread writes and fsyncs what has gathered within
`fsync_interval_s`. A process that is killed loses at most that window. A disk that is full or
read-only loses nothing until `queue_bytes` wait in memory; from then on records are dropped,
counted by reason and logged as errors, while requests go on being answered. Several spools may
share a folder: each has its own segments. The file system must be local (flock).
"""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic_core import PydanticSerializationError

from flywheel.capture.folder import SpoolFolder, WriterLock, WriterState
from flywheel.capture.segment import FRAME_OVERHEAD, MAX_PAYLOAD, Kind, encode_frame
from flywheel.capture.writer import SegmentWriter
from flywheel.records import (
    Assessment,
    CaptureCounters,
    Exchange,
    Feedback,
    Interaction,
    new_id,
    utcnow,
)

logger = logging.getLogger(__name__)

DropReason = Literal["spool_full", "queue_full", "disk_error", "invalid", "closed"]

IDLE_S = 0.05
"""How often an idle writer looks whether a drain asks it to seal."""
STATE_S = 1.0
RETRY_S = 0.25
"""Pause between attempts on a disk that refuses."""
SHOUT_S = 10.0
"""A loss that goes on is logged this often, not once a record."""


class Spool:
    """Appends records to segment files. Close it, or use it as a context manager.

    Args:
        folder: made when absent.
        max_bytes: of all segments in the folder together; beyond it records are dropped. Other
            writers' share is known to within a second.
        segment_bytes: a larger segment is sealed.
        segment_seconds: an older segment is sealed.
        fsync_interval_s: the window of the group fsync.
        queue_bytes: most memory for records that wait for the disk.
        default_workload: of feedback that names none and judges an interaction nobody knows.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(  # noqa: PLR0913 - each is a fact of a deployment, all but one with a default
        self,
        folder: Path,
        *,
        max_bytes: int = 4 << 30,
        segment_bytes: int = 32 << 20,
        segment_seconds: float = 60.0,
        fsync_interval_s: float = 0.02,
        queue_bytes: int = 64 << 20,
        default_workload: str | None = None,
    ) -> None:
        self.folder = SpoolFolder(folder)
        self.folder.create()
        self.writer = new_id()
        self._max_bytes, self._queue_bytes = max_bytes, queue_bytes
        self._fsync_interval_s = fsync_interval_s
        self._started_at = utcnow()
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._folder_bytes = self.folder.size()
        self._accepted = self._spooled = self._bytes_spooled = 0
        self._dropped: Counter[str] = Counter()
        self._disk_error: OSError | None = None
        self._is_full = False
        self._is_closing = False
        self._seals_asked = self._seals_done = 0
        self._sealed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._shouted = self._stated = self._tried = float("-inf")
        self._seal_asked: str | None = None
        self._seal_done: str | None = None
        self._seal_stat: tuple[int, int] | None = None
        self._segments = SegmentWriter(
            self.folder,
            self.writer,
            segment_bytes=segment_bytes,
            segment_seconds=segment_seconds,
            default_workload=default_workload,
        )
        self._claim = WriterLock(self.folder, self.writer)
        self._publish()
        self._thread = threading.Thread(target=self._run, name="flywheel-spool", daemon=True)
        self._thread.start()

    def append(self, kind: Kind, record: Exchange | Feedback | Interaction | Assessment) -> bool:
        """Takes a record without waiting for the disk.

        Returns:
            Whether it was taken; False means it was dropped and counted.
        """
        try:
            payload = record.model_dump_json().encode()
        except PydanticSerializationError:  # a lone surrogate has no UTF-8
            payload = b""
        size = len(payload) + FRAME_OVERHEAD
        if not payload or size > MAX_PAYLOAD:
            return self._drop("invalid")
        frame = encode_frame(kind, payload)
        with self._lock:
            reason = self._refusal(size)
            if reason is None:
                self._accepted += 1
                self._queue.append(frame)
                self._queued_bytes += size
        if reason is not None:
            return self._drop(reason)
        if not self._wake.is_set():
            self._wake.set()
        return True

    @property
    def counters(self) -> CaptureCounters:
        """What became of every record handed in so far."""
        with self._lock:
            return CaptureCounters(
                accepted=self._accepted,
                spooled=self._spooled,
                pending=self._accepted - self._spooled - self._dropped.total(),
                dropped=dict(self._dropped),
                bytes_spooled=self._bytes_spooled,
            )

    @property
    def is_writable(self) -> bool:
        """Whether what is appended now will be kept, as far as the last write and the cap tell."""
        return self._disk_error is None and not self._is_full and not self._is_closing

    def seal(self, *, timeout_s: float = 10.0) -> bool:
        """Waits until everything appended so far is on disk in sealed segments.

        Returns:
            False when the disk did not take it within the timeout.
        """
        with self._lock:
            self._seals_asked += 1
            wanted = self._seals_asked
        self._hurry.set()
        self._wake.set()
        with self._sealed:
            return self._sealed.wait_for(lambda: self._seals_done >= wanted, timeout_s)

    def close(self) -> None:
        """Writes what waits, seals, and gives the folder up. What the disk refuses is counted."""
        if self._is_closing:
            return
        self._is_closing = True
        self._hurry.set()
        self._wake.set()
        self._thread.join()
        with self._lock:
            lost, self._queue, self._queued_bytes = len(self._queue), [], 0
            self._dropped["disk_error"] += lost
            self._dropped += Counter()  # leaves out the zero
        if lost:
            logger.error("spool %s closed with %d records lost", self.folder.path, lost)
        self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refusal(self, size: int) -> DropReason | None:
        if self._is_closing:
            return "closed"
        self._is_full = self._folder_bytes + self._queued_bytes + size > self._max_bytes
        if self._is_full:
            return "spool_full"
        if self._queued_bytes + size > self._queue_bytes:
            return "disk_error" if self._disk_error else "queue_full"
        return None

    def _drop(self, reason: DropReason) -> bool:
        with self._lock:
            self._accepted += 1
            self._dropped[reason] += 1
            total = self._dropped.total()
            is_time = time.monotonic() - self._shouted > SHOUT_S
            if is_time:
                self._shouted = time.monotonic()
        if is_time:
            cause = f" ({self._disk_error})" if reason == "disk_error" else ""
            logger.error(
                "spool %s dropped a record: %s%s; %d lost since the start. Calls go on being "
                "answered and are not captured: make room, or run `flywheel capture drain`",
                self.folder.path,
                reason,
                cause,
                total,
            )
        return False

    def _run(self) -> None:
        """The writer thread."""
        while not self._is_closing:
            if self._wake.wait(IDLE_S):
                self._gather()
            self._wake.clear()
            self._hurry.clear()
            self._turn()
        self._turn()
        with suppress(OSError):
            self._segments.seal()

    def _gather(self) -> None:
        """Waits out the window, less when somebody asks to seal."""
        deadline = time.monotonic() + self._fsync_interval_s
        while (left := deadline - time.monotonic()) > 0:
            is_asked = self._hurry.wait(min(left, IDLE_S))
            if is_asked or self._read_seal_request() != self._seal_done:
                return

    def _turn(self) -> None:
        """Writes what has gathered, then seals if asked, so that a seal covers what came before."""
        nonce = self._read_seal_request()
        with self._lock:
            seals_wanted, frames = self._seals_asked, self._queue[:]
        is_asked = nonce != self._seal_done or seals_wanted > self._seals_done
        if not self._write(frames):
            return
        if is_asked or self._segments.is_due:
            try:
                self._segments.seal()
            except OSError as error:
                self._fail(error)
                return
        if is_asked:
            self._seal_done = nonce
            with self._sealed:
                self._seals_done = seals_wanted
                self._sealed.notify_all()
        if is_asked or time.monotonic() - self._stated > STATE_S:
            self._publish()

    def _write(self, frames: Sequence[bytes]) -> bool:
        """Appends the head of the queue and takes it off; False while the disk refuses."""
        if not frames:
            self._disk_error = None  # a seal that failed; the next record tries the disk anew
            return True
        if self._disk_error and not self._is_closing and time.monotonic() - self._tried < RETRY_S:
            return False
        self._tried = time.monotonic()
        try:
            self._segments.append(frames)
        except OSError as error:
            self._fail(error)
            return False
        size = sum(map(len, frames))
        with self._lock:
            del self._queue[: len(frames)]
            self._queued_bytes -= size
            self._folder_bytes += size
            self._spooled += len(frames)
            self._bytes_spooled += size
        if self._disk_error:
            self._disk_error = None
            logger.warning("spool %s is written to again", self.folder.path)
        return True

    def _fail(self, error: OSError) -> None:
        if self._disk_error is None:
            logger.error(
                "spool %s cannot be written to: %s. Calls go on being answered; "
                "records wait in memory",
                self.folder.path,
                error,
            )
        self._disk_error = error
        if time.monotonic() - self._stated > STATE_S:
            self._publish()

    def _read_seal_request(self) -> str | None:
        """The nonce of the latest request; the file is read only when it changed."""
        try:
            stat = self.folder.seal_request.stat()
            if (stat.st_ino, stat.st_mtime_ns) == self._seal_stat:
                return self._seal_asked
            self._seal_asked = self.folder.seal_request.read_text(encoding="utf-8")
        except OSError:  # there is none, or it went while we looked
            return self._seal_asked
        self._seal_stat = (stat.st_ino, stat.st_mtime_ns)
        return self._seal_asked

    def _publish(self) -> None:
        """Tells drains and `flywheel capture status` how this writer is."""
        self._stated = time.monotonic()
        state = WriterState(
            writer=self.writer,
            pid=os.getpid(),
            started_at=self._started_at,
            counters=self.counters,
            is_writable=self.is_writable,
            sealed=self._seal_done,
        )
        size = self.folder.size()
        if size < self._folder_bytes:  # drained: nobody may append before this says that one can
            self._is_full = False
        self._folder_bytes = size
        # A full disk must not end the thread: who waits for the state waits in vain and says so.
        with suppress(OSError):
            self._claim.write(state)
