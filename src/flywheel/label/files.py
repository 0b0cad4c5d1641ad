"""Label files of our own, row by row: CSV and JSONL, each row with its original bytes.

CSV as programs write it and as Excel does: a `sep=;` line, semicolons or tabs, the decimal comma
that goes with them, empty columns at the end, apostrophes that keep a cell from being a formula.
"""

import csv
import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from flywheel.errors import BadRecordError, ConfigError
from flywheel.label.rows import COLUMNS, ITEMS, JUDGEMENTS, NUMBERS, Row
from flywheel.label.texts import FallbackEncoding, TextLine, text_lines

_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_KEPT_FROM_BEING_A_FORMULA = re.compile(r"'+[=+\-@\t\r]")
"""What `flywheel label export` and careful tools write (OWASP, CSV injection)."""
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Line:
    """One row of a file as it was found."""

    number: int
    """1-based; of its last line where a quoted cell spans several."""
    raw: bytes
    row: Row | BadRecordError


def read_lines(path: Path, encoding: FallbackEncoding | None = None) -> Iterator[Line]:
    """The rows of a label file; blank ones are passed over.

    Args:
        path: CSV or JSONL.
        encoding: of the rows that are not UTF-8; without it they are told as bad ones.

    Raises:
        ConfigError: it cannot be read at all: absent, another format, a header with mistakes.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(str(path), [f"{suffix or 'no suffix'}: give a .csv or .jsonl file"])
    lines = text_lines(path, encoding)
    if suffix in (".jsonl", ".ndjson"):
        yield from _read_jsonl(lines)
    else:
        yield from _read_csv(path, lines)


def _read_jsonl(lines: Iterable[TextLine]) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        if line.text.strip():
            yield Line(number, line.raw, line.problem or _parse_json_line(line.text))


def _parse_json_line(text: str) -> Row | BadRecordError:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRecordError("bad_json", str(error))
    if not isinstance(value, dict):
        return BadRecordError("bad_json", "each line must be an object {…}")
    return value


class _Remembering:
    """The lines of a file as text for `csv`, their bytes kept until taken."""

    def __init__(self, lines: Iterator[TextLine]) -> None:
        self._lines = lines
        self._taken: list[TextLine] = []
        self._put_back: list[TextLine] = []
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._put_back.pop() if self._put_back else next(self._lines)
        self._taken.append(line)
        self.read += 1
        return line.text

    def put_back(self) -> None:
        """The line read last comes again."""
        self._put_back.append(self._taken.pop())
        self.read -= 1

    def take(self) -> tuple[bytes, BadRecordError | None]:
        """The bytes read since the last time, and what is wrong with them."""
        problems = [line.problem for line in self._taken if line.problem is not None]
        raw = b"".join(line.raw for line in self._taken)
        self._taken.clear()
        return raw, problems[0] if problems else None


def _read_csv(path: Path, text: Iterator[TextLine]) -> Iterator[Line]:
    lines = _Remembering(text)
    delimiter = _delimiter(lines)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _header(path, reader)
    lines.take()
    while True:
        try:
            cells: list[str] | BadRecordError = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = BadRecordError("bad_csv", str(error))
        raw, problem = lines.take()
        if isinstance(cells, BadRecordError) or any(cell.strip() for cell in cells):
            row = problem or _to_row(header, cells, delimiter)
            yield Line(lines.read, raw, row)


def _delimiter(lines: _Remembering) -> str:
    """What Excel's first line says, or else the header's most frequent candidate."""
    first = next(lines, "")
    told = _SEPARATOR.fullmatch(first)
    if told is not None:
        return told[1]
    if first:
        lines.put_back()
    return max(",;\t", key=first.count)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        hint = (
            "; line ends of old Macs? In Excel: Save As, CSV UTF-8"
            if "new-line" in str(error)
            else ""
        )
        raise ConfigError(str(path), [f"line 1: {error}{hint}"]) from error
    while header and not header[-1]:
        header.pop()  # Excel saves the columns somebody once clicked into
    problems = _header_problems(header)
    if problems:
        raise ConfigError(str(path), problems)
    return header


def _header_problems(header: list[str]) -> list[str]:
    problems = [] if "name" in header else ["line 1: column name is missing"]
    if not any(set(item) <= set(header) for item in ITEMS):
        problems.append("line 1: column interaction_id is missing (or pair_a and pair_b)")
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
    header: list[str], cells: list[str] | BadRecordError, delimiter: str
) -> Row | BadRecordError:
    if isinstance(cells, BadRecordError):
        return cells
    while len(cells) > len(header) and not cells[-1].strip():
        cells.pop()
    if len(cells) != len(header):
        return BadRecordError(
            "column_count",
            f"{len(cells)} cells under {len(header)} columns; quote cells with commas",
        )
    row: dict[str, JsonValue] = {
        name: cell[1:] if _KEPT_FROM_BEING_A_FORMULA.match(cell) else cell
        for name, cell in zip(header, cells, strict=True)
    }
    if delimiter != ",":
        row |= {name: _point(row[name]) for name in NUMBERS if name in row}
    return row


def _point(cell: JsonValue) -> JsonValue:
    """`0,5` as `0.5`: where the comma is no delimiter, it is the decimal sign."""
    if isinstance(cell, str) and _DECIMAL_COMMA.fullmatch(cell):
        return cell.replace(",", ".")
    return cell
