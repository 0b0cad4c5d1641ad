"""The spool folder: which files there are, who is alive, how a drain asks for what is in memory.

    <writer>.writer            held with flock by a live writer; its state, one block of JSON
    <writer>.closed            the last state of a writer that ended by itself, until a drain
    <writer>-<number>.open     the segment a writer appends to
    <writer>-<number>.seg      sealed: no longer written to
    ledger.json                what became of everything that left no other trace; the drain's
    drain.lock                 held with flock by the drain at work
    seal.request               a drain's nonce: each live writer seals and repeats it in its state

A lock of a killed process is gone with it, so that a leftover is told from a live writer without a
timeout. flock needs a local file system; so does the spool.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from flywheel.errors import ConfigError, SpoolBusyError
from flywheel.records import CaptureCounters, Record, UtcDatetime, new_id

STATE_BYTES = 4096
"""A state is rewritten in place, in one block: that works on a full disk too."""


class WriterState(Record):
    """What a writer says of itself, about once a second."""

    writer: str
    pid: int
    started_at: UtcDatetime
    counters: CaptureCounters = CaptureCounters()
    is_writable: bool = True
    sealed: str | None = None
    """The last seal request it fulfilled."""


class SpoolFolder:
    """Paths and locks of one spool folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seal_request = path / "seal.request"
        self.ledger = path / "ledger.json"

    def create(self) -> None:
        """Makes the folder.

        Raises:
            ConfigError: it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            is_writable = os.access(self.path, os.W_OK)
        except OSError:
            is_writable = False
        if not is_writable:
            raise ConfigError(
                str(self.path), ["the spool cannot be written to; choose another --home"]
            )

    def takes_files(self) -> bool:
        """Whether a segment could be begun now: not read-only, and room on the disk."""
        try:
            room = os.statvfs(self.path)
        except OSError:
            return False
        return room.f_bavail > 0 and os.access(self.path, os.W_OK)

    def segments(self) -> list[Path]:
        """Sealed segments, oldest first."""
        return sorted(self.path.glob("*.seg"))

    def open_segments(self) -> list[Path]:
        """Segments being written, and what dead writers left."""
        return sorted(self.path.glob("*.open"))

    def all_segments(self) -> list[Path]:
        """Sealed and open ones."""
        return [*self.segments(), *self.open_segments()]

    def writers(self) -> list[str]:
        """Writers that live or were killed."""
        return sorted(path.stem for path in self.path.glob("*.writer"))

    def states(self) -> list[str]:
        """Writers that left a state here: those, and the ones that closed."""
        return sorted({*self.writers(), *(path.stem for path in self.path.glob("*.closed"))})

    def closed_file(self, writer: str) -> Path:
        """Where a writer that closed leaves its last state."""
        return self.path / f"{writer}.closed"

    def is_closed(self, writer: str) -> bool:
        """Whether the writer ended by itself."""
        return self.closed_file(writer).exists()

    def forget(self, writer: str) -> None:
        """Removes what a writer that is gone left of itself, but for its segments."""
        self.writer_file(writer).unlink(missing_ok=True)
        self.closed_file(writer).unlink(missing_ok=True)

    def writer_file(self, writer: str) -> Path:
        """Where a writer keeps its lock and its state."""
        return self.path / f"{writer}.writer"

    def size(self) -> int:
        """Bytes in segments."""
        total = 0
        for path in self.all_segments():
            with suppress(FileNotFoundError):  # a drain deletes while we look
                total += path.stat().st_size
        return total

    def is_alive(self, writer: str) -> bool:
        """Whether the writer's process holds its lock."""
        try:
            descriptor = os.open(self.writer_file(writer), os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that two who look at once do not take each other for the writer.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def leftovers(self) -> list[Path]:
        """Open segments whose writer is dead."""
        return [path for path in self.open_segments() if not self.is_alive(writer_of(path))]

    def state(self, writer: str) -> WriterState | None:
        """What the writer last said; None while it is being rewritten or when it is gone."""
        for path in (self.writer_file(writer), self.closed_file(writer)):
            with suppress(FileNotFoundError, ValidationError):
                return WriterState.model_validate_json(path.read_bytes().rstrip(b"\0 "))
        return None

    def ask_to_seal(self) -> str:
        """Asks every live writer to seal what it has, and returns the nonce to wait for."""
        nonce = new_id()
        temporary = self.path / f"{nonce}.tmp"
        temporary.write_text(nonce, encoding="utf-8")
        temporary.replace(self.seal_request)
        return nonce

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Holds the folder for one drain.

        Raises:
            SpoolBusyError: another one holds it.
        """
        descriptor = os.open(self.path / "drain.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SpoolBusyError(str(self.path)) from error
            yield
        finally:
            os.close(descriptor)


class WriterLock:
    """A writer's claim on a folder: the lock that says it lives, and the state beside it."""

    def __init__(self, folder: SpoolFolder, writer: str) -> None:
        self._path, self._closed_path = folder.writer_file(writer), folder.closed_file(writer)
        # Locked first and named after, so that nobody ever sees the file without the lock.
        temporary = self._path.with_suffix(".tmp")
        self._descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(self._path)

    def write(self, state: WriterState) -> None:
        """Publishes the state; raises OSError where the disk does not take it."""
        os.pwrite(self._descriptor, state.model_dump_json().encode().ljust(STATE_BYTES, b" "), 0)

    def release(self, state: WriterState) -> None:
        """Ends the writer: nothing of it is left but its segments and its last word."""
        with suppress(OSError):  # on a disk that refuses it looks like one that was killed
            self.write(state)
            self._path.rename(self._closed_path)
        os.close(self._descriptor)


def writer_of(segment: Path) -> str:
    """The writer a segment's name carries."""
    return segment.stem.rpartition("-")[0]


def sync_folder(path: Path) -> None:
    """Makes new names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
