"""Log files, row by row, in memory that does not grow with the file.

Input: a file, gzip'd or not: a row a line, or one JSON array, or JSON documents over many lines.
Output: each row's bytes as found, and how far into the file it ends.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from flywheel.errors import ConfigError

MAX_ROW = 64 << 20
"""A longer row is cut and refused."""
KEPT_OF_TOO_LONG = 1 << 20
CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BETWEEN = b" \t\r\n,[]"
_MARKS = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'[\\"]')


class RawRow(NamedTuple):
    """One row as found."""

    number: int
    """1-based: of its line, or among the elements of an array."""
    raw: bytes
    is_whole: bool
    """False where it was longer than MAX_ROW and `raw` is its beginning."""
    position: int
    """Bytes of the file read when it ended; of the compressed file where it is compressed."""


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file; blank lines are passed over.

    Raises:
        ConfigError: the file cannot be read, or ends in the middle of its gzip stream.
    """
    try:
        with path.open("rb") as raw, _decompressed(raw) as file:
            yield from _rows(raw, file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        problem = f"not a whole gzip file: {error}; the rows before that were read"
        raise ConfigError(str(path), [problem]) from error
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror or error}"]) from error


@contextmanager
def _decompressed(raw: BinaryIO) -> Iterator[BinaryIO]:
    """By what the file begins with, not by its name."""
    is_gzip = raw.read(2) == GZIP_MAGIC
    raw.seek(0)
    if not is_gzip:
        yield raw
        return
    with gzip.open(raw, "rb") as file:
        yield file  # type: ignore[misc]  # GzipFile is no BinaryIO by name only


def is_protobuf(path: Path) -> bool:
    """Whether a file begins as an ExportTraceServiceRequest does and no JSON can."""
    with path.open("rb") as raw, _decompressed(raw) as file:
        head = file.read(1)
    return head == b"\x0a" and path.suffix not in (".json", ".jsonl", ".ndjson")


def read_whole(path: Path) -> RawRow:
    """A file that is one row: protobuf has no lines."""
    with path.open("rb") as raw, _decompressed(raw) as file:
        data = file.read(MAX_ROW + 1)
        is_whole = len(data) <= MAX_ROW
        return RawRow(1, data if is_whole else data[:KEPT_OF_TOO_LONG], is_whole, raw.tell())


def _rows(raw: BinaryIO, file: BinaryIO) -> Iterator[RawRow]:
    first = file.readline(MAX_ROW + 1)
    while first and not first.removeprefix(_BOM).strip():
        first = file.readline(MAX_ROW + 1)
    start = first.removeprefix(_BOM).lstrip()
    if start.startswith(b"[") or start.strip() == b"{":
        yield from _values(raw, file, start)
    else:
        yield from _lines(raw, file, first.removeprefix(_BOM))


def _lines(raw: BinaryIO, file: BinaryIO, line: bytes) -> Iterator[RawRow]:
    number = 1
    while line:
        is_whole = len(line) <= MAX_ROW
        if line.strip():
            kept = line if is_whole else line[:KEPT_OF_TOO_LONG]
            yield RawRow(number, kept, is_whole, raw.tell())
        while not is_whole and not line.endswith(b"\n") and line:
            line = file.readline(CHUNK)
        number += 1
        line = file.readline(MAX_ROW + 1)


class _Splitter:
    """Finds where JSON objects begin and end, one array around them or none."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_array = False

    def ends(self, data: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
        """Slices (begin or -1 where it began before `at`, end) of objects ended in data[at:]."""
        found: list[tuple[int, int]] = []
        begin = -1
        while True:
            if self._in_string:
                mark = _STRING_END.search(data, at)
                if mark is None or (mark[0] == b"\\" and mark.end() >= len(data)):
                    return found, len(data) if mark is None else mark.start()
                at = mark.end() + (mark[0] == b"\\")
                self._in_string = mark[0] != b'"'
                continue
            mark = _MARKS.search(data, at)
            if mark is None:
                return found, len(data)
            at = mark.end()
            if mark[0] == b'"':
                self._in_string = True
            elif mark[0] in b"{[":
                if self._depth == 0 and mark[0] == b"[" and not self._is_array:
                    self._is_array = True
                    continue
                begin = mark.start() if self._depth == 0 else begin
                self._depth += 1
            elif self._depth > 0:
                self._depth -= 1
                if self._depth == 0:
                    found.append((begin, at))
                    begin = -1

    @property
    def is_inside(self) -> bool:
        """Whether an object has begun that has not ended."""
        return self._depth > 0


def _values(raw: BinaryIO, file: BinaryIO, data: bytes) -> Iterator[RawRow]:
    """Objects, and whatever lies between them that is no separator: a row nobody can read."""
    splitter, number, at, is_whole = _Splitter(), 0, 0, True
    while True:
        ends, at = splitter.ends(data, at)
        used = 0
        for begin, end in ends:
            junk = data[used : max(begin, used)].strip(_BETWEEN)
            for row in filter(None, (junk, data[max(begin, used) : end].lstrip(_BETWEEN))):
                number += 1
                yield RawRow(number, row, is_whole, raw.tell())
            used, is_whole = end, True
        data, at = data[used:], at - used
        if not splitter.is_inside:
            if junk := data[:at].strip(_BETWEEN):
                number += 1
                yield RawRow(number, junk, True, raw.tell())
            data, at = data[at:], 0
        elif len(data) > MAX_ROW:  # keep the beginning for quarantine, read on to its end
            data, at = data[:KEPT_OF_TOO_LONG] + data[at:], KEPT_OF_TOO_LONG
            is_whole = False
        more = file.read(CHUNK)
        if not more:
            break
        data += more
    if rest := data.lstrip(_BETWEEN) if splitter.is_inside else data.strip(_BETWEEN):
        yield RawRow(number + 1, rest, is_whole, raw.tell())
