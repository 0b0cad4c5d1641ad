"""One writer's segment files: append a batch durably, or leave no trace of it.

Input: encoded frames. Output: segment files. Everything here blocks: it belongs to the
spool's thread.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flywheel.capture.folder import SpoolFolder, sync_folder
from flywheel.capture.segment import SegmentHeader, encode_header
from flywheel.records import utcnow

IOV_MAX = 1024
"""Most buffers one writev takes (POSIX; Linux and macOS have the same)."""


class SegmentWriter:
    """Appends to one segment at a time and seals it by size and by age."""

    def __init__(
        self,
        folder: SpoolFolder,
        writer: str,
        *,
        segment_bytes: int,
        segment_seconds: float,
        default_workload: str | None,
    ) -> None:
        self._folder, self._writer = folder, writer
        self._segment_bytes, self._segment_seconds = segment_bytes, segment_seconds
        self._default_workload = default_workload
        self._number = 0
        self._descriptor: int | None = None
        self._path = Path()
        self._size = self._header_bytes = 0
        self._opened = 0.0
        self._is_dirty = False
        """Whether it holds what no fsync covers yet."""

    @property
    def is_due(self) -> bool:
        """Whether the open segment is large or old enough to be sealed."""
        if self._descriptor is None:
            return False
        age = time.monotonic() - self._opened
        return self._size >= self._segment_bytes or age >= self._segment_seconds

    def append(self, frames: Sequence[bytes], *, is_synced: bool = True) -> None:
        """Writes the frames and, unless told otherwise, fsyncs all the segment holds.

        Raises:
            OSError: the disk took none or part of them. What it took is cut off again and the
                segment closed, because after a failed fsync nobody knows which pages reached the
                disk; the same frames can be appended again, to a new segment.
        """
        try:
            descriptor = self._open() if self._descriptor is None else self._descriptor
            size = _write_all(descriptor, frames)
            if is_synced:
                os.fdatasync(descriptor)
        except OSError:
            self._abandon()
            raise
        self._size += size
        self._is_dirty = not is_synced

    def sync(self) -> None:
        """Fsyncs what was appended without.

        Raises:
            OSError: the disk refused. The segment is closed; what of it is on disk nobody knows.
        """
        if self._descriptor is None or not self._is_dirty:
            return
        try:
            os.fdatasync(self._descriptor)
        except OSError:
            self._abandon()
            raise
        self._is_dirty = False

    def seal(self) -> None:
        """Fsyncs and closes the open segment for good; a drain may take it from here."""
        self.sync()
        self._close()

    def _close(self) -> None:
        if self._descriptor is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        self._path.rename(self._path.with_suffix(".seg"))

    def _open(self) -> int:
        self._number += 1
        self._path = self._folder.path / f"{self._writer}-{self._number:08d}.open"
        self._size = self._header_bytes = 0
        self._is_dirty = False
        self._opened = time.monotonic()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(self._path, flags, 0o600)
        header = SegmentHeader(
            writer=self._writer, created_at=utcnow(), default_workload=self._default_workload
        )
        self._size = self._header_bytes = _write_all(self._descriptor, [encode_header(header)])
        sync_folder(self._folder.path)
        return self._descriptor

    def _abandon(self) -> None:
        """Keeps what was durable, drops the rest, and makes the next append open a new segment."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
        if self._size <= self._header_bytes:
            os.close(self._descriptor)
            self._descriptor = None
            self._path.unlink(missing_ok=True)
        else:
            self._close()


def _write_all(descriptor: int, parts: Sequence[bytes]) -> int:
    """Writes them one after the other without a copy of all: after a stall much may have gathered.

    Returns:
        Bytes written.
    """
    total = 0
    for begin in range(0, len(parts), IOV_MAX):
        some = parts[begin : begin + IOV_MAX]
        size = sum(map(len, some))
        written = os.writev(descriptor, some)
        if written < size:
            rest = memoryview(b"".join(some))[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        total += size
    return total
