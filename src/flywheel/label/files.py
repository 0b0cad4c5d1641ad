"""Label files, line by line: CSV and JSONL, each line with its original bytes."""

import csv
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from flywheel.errors import BadRecordError, ConfigError
from flywheel.label.rows import COLUMNS, JUDGEMENTS, REQUIRED, Row

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One row of a file as it was found."""

    number: int
    """1-based; of its last line where a quoted cell spans several."""
    raw: bytes
    row: Row | BadRecordError


def read_lines(path: Path) -> Iterator[Line]:
    """The rows of a label file; blank ones are passed over.

    Raises:
        ConfigError: it cannot be read at all: absent, another format, a header with mistakes.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(str(path), [f"{path.suffix or 'no suffix'}: give a .csv or .jsonl file"])
    try:
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise ConfigError(str(path), ["is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)"])
            file.seek(0)
            yield from reader(path, file)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error


def _read_jsonl(_: Path, file: BinaryIO) -> Iterator[Line]:
    for number, raw in enumerate(file, start=1):
        text = raw.removeprefix(BOM) if number == 1 else raw
        if text.strip():
            yield Line(number, raw, _parse_json_line(text))


def _parse_json_line(raw: bytes) -> Row | BadRecordError:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BadRecordError("bad_encoding", f"not UTF-8: {error}")
    except (ValueError, RecursionError) as error:
        return BadRecordError("bad_json", str(error))
    if not isinstance(value, dict):
        return BadRecordError("bad_json", "each line must be an object {…}")
    return value


class _Remembering:
    """The lines of a file as text for `csv`, their bytes kept until taken."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        for number, raw in enumerate(self._file):
            self._taken.append(raw)
            text = raw.removeprefix(BOM) if number == 0 else raw
            yield text.decode("utf-8", errors="surrogateescape")

    def take(self) -> bytes:
        """The bytes read since the last time."""
        raw = b"".join(self._taken)
        self._taken.clear()
        return raw


def _read_csv(path: Path, file: BinaryIO) -> Iterator[Line]:
    delimiter = _delimiter(file)
    lines = _Remembering(file)
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    header = [cell.strip() for cell in next(reader, [])]
    problems = _header_problems(header)
    if problems:
        raise ConfigError(str(path), problems)
    lines.take()
    while True:
        try:
            cells: list[str] | BadRecordError = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = BadRecordError("bad_csv", str(error))
        raw = lines.take()
        if isinstance(cells, BadRecordError) or any(cell.strip() for cell in cells):
            yield Line(reader.line_num, raw, _to_row(header, cells, raw))


def _delimiter(file: BinaryIO) -> str:
    """Comma, or what Excel writes where the comma is the decimal point."""
    header = file.readline()
    file.seek(0)
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def _header_problems(header: list[str]) -> list[str]:
    problems = [f"line 1: column {name} is missing" for name in REQUIRED if name not in header]
    if not set(JUDGEMENTS) & set(header):
        problems.append(f"line 1: at least one of the columns {', '.join(JUDGEMENTS)} is needed")
    for name in header:
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.append(f"line 1: unknown column {name!r}; {hint}valid: {', '.join(COLUMNS)}")
    doubled = sorted({name for name in header if header.count(name) > 1})
    return [*problems, *(f"line 1: column {name} is there twice" for name in doubled)]


def _to_row(
    header: list[str], cells: list[str] | BadRecordError, raw: bytes
) -> Row | BadRecordError:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRecordError("bad_encoding", f"not UTF-8: {error}")
    if isinstance(cells, BadRecordError):
        return cells
    if len(cells) != len(header):
        return BadRecordError(
            "column_count",
            f"{len(cells)} cells under {len(header)} columns; quote cells with commas",
        )
    return dict(zip(header, cells, strict=True))
