"""The spool folder: which files there are, who is alive, how a drain asks for what is in memory.

    <writer>.writer            held with flock by a live writer; its state, one block of JSON
    <writer>-<number>.open     the segment a writer appends to
    <writer>-<number>.seg      sealed: no longer written to
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

    def segments(self) -> list[Path]:
        """Sealed segments, oldest first."""
        return sorted(self.path.glob("*.seg"))

    def open_segments(self) -> list[Path]:
        """Segments being written, and what dead writers left."""
        return sorted(self.path.glob("*.open"))

    def writers(self) -> list[str]:
        """Writers that have a file here, dead or alive."""
        return sorted(path.stem for path in self.path.glob("*.writer"))

    def writer_file(self, writer: str) -> Path:
        """Where a writer keeps its lock and its state."""
        return self.path / f"{writer}.writer"

    def size(self) -> int:
        """Bytes in segments."""
        total = 0
        for path in (*self.path.glob("*.seg"), *self.path.glob("*.open")):
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
        try:
            return WriterState.model_validate_json(
                self.writer_file(writer).read_bytes().rstrip(b"\0 ")
            )
        except (FileNotFoundError, ValidationError):
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
        self._path = folder.writer_file(writer)
        # Locked first and named after, so that nobody ever sees the file without the lock.
        temporary = self._path.with_suffix(".tmp")
        self._descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.rename(self._path)

    def write(self, state: WriterState) -> None:
        """Publishes the state; raises OSError where the disk does not take it."""
        os.pwrite(self._descriptor, state.model_dump_json().encode().ljust(STATE_BYTES, b" "), 0)

    def release(self) -> None:
        """Ends the writer: nothing of it is left but its segments."""
        self._path.unlink(missing_ok=True)
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
