"""The spool: every call and every judgement on local disk before anything else happens to it.

Input: Exchange and Feedback records, Interactions and Assessments that came parsed, and what could
not be, from an event loop or any thread. Output: segment files in one folder, which `drain` turns
into rows of the lake.

`append` never waits for the disk: one thread writes and fsyncs what has gathered within
`fsync_interval_s`. A process that is killed loses at most that window (`group`). Who must know that
a record is on disk awaits `durable` after it (`before_response`): the thread then writes at once,
and one fsync serves all who wait. What is `async` is written in the same window and fsynced when
its segment is sealed, or with a neighbour that is not. A disk that is full or
read-only loses nothing until `queue_bytes` wait in memory; from then on records are dropped,
counted by reason and logged as errors, while requests go on being answered. Several spools may
share a folder: each has its own segments. The file system must be local (flock).
"""

import asyncio
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

from flywheel.capture.alarm import Alarm
from flywheel.capture.folder import SpoolFolder, WriterLock, WriterState
from flywheel.capture.parsed import Refused
from flywheel.capture.seal import SealRequests
from flywheel.capture.segment import FRAME_OVERHEAD, MAX_PAYLOAD, Kind, encode_frame
from flywheel.capture.waiters import Waiters
from flywheel.capture.writer import SegmentWriter
from flywheel.records import (
    Assessment,
    CaptureCounters,
    Durability,
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


class Spool:
    """Appends records to segment files. Close it, or use it as a context manager.

    Args:
        folder: made when absent.
        max_bytes: of all segments in the folder together; beyond it records are dropped. Other
            writers' share is known to within a second.
        segment_bytes: a larger segment is sealed.
        segment_seconds: an older segment is sealed.
        durability: of records whose append names none.
        fsync_interval_s: the window of the group fsync.
        durable_timeout_s: longest `durable` waits for a disk that refuses or hangs.
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
        durability: Durability = "group",
        fsync_interval_s: float = 0.02,
        durable_timeout_s: float = 2.0,
        queue_bytes: int = 64 << 20,
        default_workload: str | None = None,
    ) -> None:
        self.folder = SpoolFolder(folder)
        self.folder.create()
        self.writer = new_id()
        self._max_bytes, self._queue_bytes = max_bytes, queue_bytes
        self._durability: Durability = durability
        self._fsync_interval_s, self._durable_timeout_s = fsync_interval_s, durable_timeout_s
        self._started_at = utcnow()
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._folder_bytes = self.folder.size()
        self._accepted = self._spooled = self._bytes_spooled = self._late = 0
        self._taken = self._synced = 0
        """Records ever queued, and how many of the first of them an fsync covers."""
        self._is_sync_wanted = False
        self._waiters = Waiters()
        self._dropped: Counter[str] = Counter()
        self._disk_error: OSError | None = None
        self._is_full = False
        self._takes_files = True
        self._is_closing = False
        self._seals_asked = self._seals_done = 0
        self._sealed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stated = self._tried = float("-inf")
        self._seal_requests = SealRequests(self.folder)
        self._seal_done: str | None = None
        self._alarm = Alarm(folder)
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

    def append(
        self,
        kind: Kind,
        record: Exchange | Feedback | Interaction | Assessment | Refused,
        *,
        durability: Durability | None = None,
    ) -> bool:
        """Takes a record without waiting for the disk.

        Args:
            kind: which of the two the record is.
            record: the call or the judgement.
            durability: the spool's own when absent.

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
                self._taken += 1
                self._is_sync_wanted |= (durability or self._durability) != "async"
                self._queue.append(frame)
                self._queued_bytes += size
        if reason is not None:
            return self._drop(reason)
        if not self._wake.is_set():
            self._wake.set()
        return True

    async def durable(self) -> bool:
        """Waits until everything taken so far is on disk, fsynced.

        Returns:
            False when the disk did not take it within the timeout: counted as late, and logged.
            The records stay in memory and are still written when the disk can.
        """
        with self._lock:
            if self._synced >= self._taken or not self._thread.is_alive():
                return self._synced >= self._taken
            self._is_sync_wanted = True
            future = self._waiters.add(self._taken)
        self._hurry.set()
        self._wake.set()
        try:
            is_durable = await asyncio.wait_for(future, self._durable_timeout_s)
        except TimeoutError:
            is_durable = False
        finally:
            with self._lock:
                self._waiters.discard(future)
        if not is_durable:
            with self._lock:
                self._late += 1
                total = self._late
            self._alarm.late(self._durable_timeout_s, total)
        return is_durable

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
                late=self._late,
            )

    @property
    def is_writable(self) -> bool:
        """Whether what is appended now will be kept, as far as a look a second ago tells."""
        is_well = self._disk_error is None and self._takes_files
        return is_well and not self._is_full and not self._is_closing

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
            self._waiters.give_up()
        if lost:
            logger.error("spool %s closed with %d records lost", self.folder.path, lost)
        self._claim.release(self._state())

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
        self._alarm.dropped(reason, self._disk_error, total)
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
            self._settle()

    def _gather(self) -> None:
        """Waits out the window, less when somebody asks to seal."""
        deadline = time.monotonic() + self._fsync_interval_s
        while (left := deadline - time.monotonic()) > 0:
            is_asked = self._hurry.wait(min(left, IDLE_S))
            if is_asked or self._seal_requests.latest() != self._seal_done:
                return

    def _turn(self) -> None:
        """Writes what has gathered, then seals if asked, so that a seal covers what came before."""
        nonce = self._seal_requests.latest()
        with self._lock:
            seals_wanted, frames = self._seals_asked, self._queue[:]
            is_synced, self._is_sync_wanted = self._is_sync_wanted, False
        is_asked = nonce != self._seal_done or seals_wanted > self._seals_done
        if not self._write(frames, is_synced=is_synced):
            with self._lock:
                self._is_sync_wanted |= is_synced
            return
        if is_asked or self._segments.is_due:
            try:
                self._segments.seal()
            except OSError as error:
                self._fail(error)
                return
            self._settle()
        if is_asked:
            self._seal_done = nonce
        if is_asked or time.monotonic() - self._stated > STATE_S:
            self._publish()
        if is_asked:
            with self._sealed:
                self._seals_done = seals_wanted
                self._sealed.notify_all()

    def _write(self, frames: Sequence[bytes], *, is_synced: bool) -> bool:
        """Appends the head of the queue and takes it off; False while the disk refuses."""
        if not frames and not is_synced:
            self._disk_error = None  # a seal that failed; the next record tries the disk anew
            return True
        if self._disk_error and not self._is_closing and time.monotonic() - self._tried < RETRY_S:
            return False
        self._tried = time.monotonic()
        try:
            if frames:
                self._segments.append(frames, is_synced=is_synced)
            else:
                self._segments.sync()
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
        if is_synced:
            self._settle()
        if self._disk_error:
            self._disk_error = None
            logger.warning("spool %s is written to again", self.folder.path)
        return True

    def _settle(self) -> None:
        """Everything written is fsynced: whoever waits for it may go on."""
        with self._lock:
            self._synced = self._spooled
            self._waiters.wake(self._synced)

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

    def _publish(self) -> None:
        """Tells drains and `flywheel capture status` how this writer is."""
        self._stated = time.monotonic()
        size = self.folder.size()
        if size < self._folder_bytes:  # drained: nobody may append before this says that one can
            self._is_full = False
        self._is_full |= size >= self._max_bytes  # another writer's doing, or before this one came
        self._folder_bytes = size
        self._takes_files = self.folder.takes_files()
        # A full disk must not end the thread: who waits for the state waits in vain and says so.
        with suppress(OSError):
            self._claim.write(self._state())

    def _state(self) -> WriterState:
        return WriterState(
            writer=self.writer,
            pid=os.getpid(),
            started_at=self._started_at,
            counters=self.counters,
            is_writable=self.is_writable,
            sealed=self._seal_done,
        )
