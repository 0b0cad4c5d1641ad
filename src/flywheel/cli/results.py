"""Query results as a table, JSON, CSV or Parquet."""

import base64
import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from flywheel.cli.common import messages

if TYPE_CHECKING:
    import pyarrow

TABLE_ROWS = 200
"""Rows a person is shown; the other formats write all of them."""
TABLE_CELL = 120
"""Characters of a cell a person is shown."""
READABLE_COLUMN = 10
"""Characters a column needs on average; with less, a row is shown as lines."""
PIPE_WIDTH = 160
"""Width of a table that no terminal limits."""


def write_result(result: "pyarrow.Table", output_format: str, output: Path | None) -> None:
    """Writes to a file, complete or not at all, or to stdout."""
    if output_format == "parquet":
        assert output is not None
        _write_file(output, _parquet(result))
        return
    render: dict[str, Callable[[pyarrow.Table], str]] = {
        "table": _table,
        "json": _json,
        "csv": _csv,
    }
    text = render[output_format](result)
    if output is None:
        sys.stdout.write(text)
    else:
        _write_file(output, text.encode())


def _write_file(output: Path, content: bytes) -> None:
    draft = output.with_name(f".{output.name}.part")
    draft.write_bytes(content)
    draft.replace(output)


def _parquet(result: "pyarrow.Table") -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(result, buffer)
    return buffer.getvalue()


def _rows(result: "pyarrow.Table") -> list[list[JsonValue]]:
    columns = [column.to_pylist() for column in result.columns]
    return [[_plain(cell) for cell in row] for row in zip(*columns, strict=True)]


def _plain(value: object) -> JsonValue:
    """A cell as JSON can say it: times in ISO 8601, bytes in base64, what is no number as null."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)


def _json(result: "pyarrow.Table") -> str:
    names = result.column_names
    rows = [dict(zip(names, row, strict=True)) for row in _rows(result)]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _csv(result: "pyarrow.Table") -> str:
    """RFC 4180 with a header; NULL is an empty field, nested values are JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(result.column_names)
    writer.writerows([_text(cell) for cell in row] for row in _rows(result))
    return buffer.getvalue()


def _text(cell: JsonValue) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)


def _table(result: "pyarrow.Table") -> str:
    """A table where the terminal is wide enough, else a line for each field of each row."""
    hidden = result.num_rows - TABLE_ROWS
    if hidden > 0:
        messages.print(f"{hidden} more rows: add a LIMIT, or --output FILE.csv for all of them")
    width = shutil.get_terminal_size((PIPE_WIDTH, 0)).columns
    rows = [
        [_shortened("NULL" if cell is None else _text(cell)) for cell in row]
        for row in _rows(result.slice(0, TABLE_ROWS))
    ]
    if len(result.column_names) * READABLE_COLUMN <= width:
        return _columns(result.column_names, rows, width)
    return _lines(result.column_names, rows)


def _columns(names: list[str], rows: list[list[str]], width: int) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Names and cells are data, never markup.
    table = Table()
    for name in names:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _lines(names: list[str], rows: list[list[str]]) -> str:
    longest = max(map(len, names))
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        lines.append(f"── row {number} " + "─" * 40)
        lines += [f"{name:>{longest}}  {cell}" for name, cell in zip(names, row, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def _shortened(cell: str) -> str:
    return cell if len(cell) <= TABLE_CELL else f"{cell[: TABLE_CELL - 1]}…"
