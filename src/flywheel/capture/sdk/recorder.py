"""Calls that are over, on their way into a spool: a queue and a thread.

Input: a Seen, from any thread, any event loop, or a garbage collector. Output: its Exchange in a
spool. Handing in costs the call nothing but an append to a queue; what goes wrong after is counted
and logged once.
"""

import atexit
import logging
import os
import threading
import weakref
from collections import Counter
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from flywheel.capture.folder import SpoolFolder
from flywheel.capture.sdk.seen import Seen, to_exchange
from flywheel.capture.spool import Spool
from flywheel.records import CaptureCounters, Exchange

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 64 << 20
"""Most memory for calls that wait for the thread; beyond it they are dropped and counted."""
CLOSE_S = 5.0
FORK_WAIT_S = 1.0
"""Longest a fork waits for a record that is being written."""


class _Locks:
    """Locks of the process, made anew in the child of a fork."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """All of them, let go."""
        self.clients = threading.RLock()
        """Held while a recorder is found or given up."""
        self.recording = threading.Lock()
        """Held while a thread works on a record. A fork waits for it: what that thread holds
        further down (pydantic builds a model under a lock) would stay locked in the child."""
        self.is_quiet = False


_locks = _Locks()
_recorders: dict[Path, "Recorder"] = {}
_all: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


class Recorder:
    """One spool's queue and thread. Both begin with the first call, in the process that makes it.

    Args:
        spool: a folder, opened here and shared by every client that records into it, or a Spool,
            which stays its owner's to close.
        workload: the default of feedback that names none.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, spool: Path | Spool, workload: str) -> None:
        self._folder = spool if isinstance(spool, Path) else None
        self._spool = spool if isinstance(spool, Spool) else None
        self._workload = workload
        if self._folder is not None:
            SpoolFolder(self._folder).create()
        Exchange.model_rebuild()  # now, and not beside the first call
        self.users = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        # Reentrant, and nothing is waited for while it is held: a collector may want it anywhere,
        # in the middle of the spool's own locked lines too.
        self._lock = threading.RLock()
        self._starting = threading.Lock()
        self._queue: SimpleQueue[tuple[Seen, bytes] | threading.Event | None] = SimpleQueue()
        self._streams: dict[int, Seen] = {}
        self._pending_bytes = self._accepted = self._appended = 0
        self._dropped: Counter[str] = Counter()
        self._has_failed = False

    def begin(self) -> None:
        """Makes ready for a call. Not left to `hand_in`: a collector must not start a thread."""
        if self._thread is None and not self._is_closed:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run, name="flywheel-sdk", daemon=True
                    )
                    self._thread.start()

    def streams(self, seen: Seen) -> None:
        """Remembers a stream that is being read, for the case that the process ends before it."""
        self._streams[id(seen)] = seen

    def hand_in(self, seen: Seen, secret: bytes) -> None:
        """Takes a call that is over. Neither waits nor raises."""
        self._streams.pop(id(seen), None)
        size = _size(seen)
        with self._lock:
            self._accepted += 1
            reason = self._refusal(seen, size)
            if reason is not None:
                self._dropped[reason] += 1
                return
            self._pending_bytes += size
        self._queue.put((seen, secret))

    def _refusal(self, seen: Seen, size: int) -> str | None:
        if self._is_closed or self._thread is None:
            return "closed"
        if seen.is_too_large:
            return "too_large"
        return "queue_full" if self._pending_bytes + size > MAX_PENDING_BYTES else None

    def fail(self, error: Exception) -> None:
        """Counts a call that could not be captured; the first is logged with its traceback."""
        with self._lock:
            self._accepted += 1
        self._lose("sdk_error", error)

    @property
    def counters(self) -> CaptureCounters:
        """What became of every call so far. Of a Spool that is not ours: until it took them."""
        # The spool first: what it has by now was counted here before.
        spool = self._spool if self._folder is not None else None
        theirs = spool.counters if spool is not None else CaptureCounters()
        with self._lock:
            accepted, dropped, spooled = self._accepted, self._dropped.copy(), self._appended
        if self._folder is not None:
            dropped.update(theirs.dropped)
            spooled = theirs.spooled
        pending = accepted - spooled - dropped.total()
        update = {"accepted": accepted, "spooled": spooled, "dropped": dict(dropped)}
        return theirs.model_copy(update={**update, "pending": pending})

    def flush(self, timeout_s: float) -> bool:
        """Waits until every call handed in can be drained; False when the time was not enough."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._queue.put(reached)
        if not reached.wait(timeout_s):
            return False
        spool = self._spool
        return spool is None or spool.seal(timeout_s=timeout_s)

    def release(self) -> None:
        """One client fewer; with the last the recorder is closed."""
        with _locks.clients:
            self.users -= 1
            if self.users > 0:
                return
            if self._folder is not None:
                _recorders.pop(self._folder, None)
        self.close()

    def close(self) -> None:
        """Records what waits, streams that are still open included, and gives the spool up."""
        for seen in list(self._streams.values()):
            seen.leave("the process ended, or the client was closed, before the stream did")
        self._is_closed = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(CLOSE_S)
            self._thread = None
        if self._folder is not None and self._spool is not None:
            self._spool.close()

    def forget(self) -> None:
        """In the child of a fork: the thread and the spool are the parent's."""
        for seen in self._streams.values():
            seen.is_over = True
        self._thread = None
        if self._folder is not None:
            self._spool = None
        else:
            self._is_closed = True  # a Spool of the parent's has no thread here; drops are counted
        self._reset()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            seen, secret = item
            try:
                with _locks.recording:
                    self._record(seen, secret)
            except Exception as error:  # noqa: BLE001 - the thread outlives whatever a call holds
                self._lose("sdk_error", error)
            finally:
                with self._lock:
                    self._pending_bytes -= _size(seen)

    def _record(self, seen: Seen, secret: bytes) -> None:
        if self._spool is None:
            assert self._folder is not None
            self._spool = Spool(self._folder, default_workload=self._workload)
        is_taken = self._spool.append("exchange", to_exchange(seen, secret))
        with self._lock:
            self._appended += is_taken
            if not is_taken and self._folder is None:
                self._dropped["spool_refused"] += 1

    def _lose(self, reason: str, error: Exception) -> None:
        with self._lock:
            self._dropped[reason] += 1
            is_first, self._has_failed = not self._has_failed, True
        if is_first:
            logger.error(
                "a call could not be captured; it went on as if nobody watched. Further ones are "
                "counted (Instrumentation.counters) and not logged",
                exc_info=error,
            )


def _size(seen: Seen) -> int:
    return len(seen.request) + seen.size


def recorder_of(spool: Path | Spool, workload: str) -> Recorder:
    """The recorder of a folder, one for all clients of the process; or a Spool's own.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    with _locks.clients:
        if isinstance(spool, Spool):
            found = Recorder(spool, workload)
        else:
            path = spool.expanduser().absolute()
            found = _recorders.get(path) or _recorders.setdefault(path, Recorder(path, workload))
        found.users += 1
    return found


def _close_all() -> None:
    for recorder in list(_all):
        with suppress(OSError):
            recorder.close()


def _before_fork() -> None:
    _locks.clients.acquire()
    _locks.is_quiet = _locks.recording.acquire(timeout=FORK_WAIT_S)


def _after_fork_here() -> None:
    if _locks.is_quiet:
        _locks.recording.release()
    _locks.clients.release()


def _after_fork_in_child() -> None:
    _locks.renew()
    for recorder in list(_all):
        recorder.forget()


atexit.register(_close_all)
os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_here, after_in_child=_after_fork_in_child
)
