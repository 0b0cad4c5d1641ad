"""`flywheel sql "…"`: a query over the lake, for a person or a program to read."""

import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flywheel.cli.common import HomeOption, messages
from flywheel.cli.lake import open_lake

if TYPE_CHECKING:
    from flywheel.lake import Lake


class Format(StrEnum):
    """How a result is written."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def sql(
    query: Annotated[str, typer.Argument(help="One DuckDB query; - reads it from standard input.")],
    output_format: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Default: the ending of --output, else table."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", "-p", help="A value for the next ?; repeatable.")
    ] = None,
    as_of: Annotated[
        list[str] | None,
        typer.Option(help="The lake at a UTC time, or TABLE=VERSION; the latter is repeatable."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Query the lake with SQL. `flywheel lake tables` lists its tables and views.

    Example: flywheel sql "select adapter, count(*) n from interactions group by 1" --home demo
    """
    from flywheel.cli.results import write_result

    chosen = _format(output_format, output)
    lake = open_lake(home)
    text = sys.stdin.read() if query == "-" else query
    result = lake.query(text, param or (), versions=_versions(lake, as_of or []))
    write_result(result, chosen.value, output)
    if result.num_rows == 0 and not lake.versions():
        messages.print(
            f"Nothing was captured into {lake.root} yet; is --home right?", soft_wrap=True
        )


def _format(chosen: Format | None, output: Path | None) -> Format:
    """The format asked for, else the one the file's name ends with, else a table."""
    ending = output.suffix.removeprefix(".") if output else ""
    found = chosen or (Format(ending) if ending in set(Format) else Format.table)
    if found is Format.parquet and output is None:
        raise typer.BadParameter("parquet is not for a terminal: add --output FILE.parquet")
    return found


def _versions(lake: "Lake", as_of: list[str]) -> dict[str, int]:
    """The versions pinned by `--as-of`: a moment's, then those named."""
    from flywheel.lake.describe import check_name
    from flywheel.lake.tables import TABLES

    versions: dict[str, int] = {}
    pinned: dict[str, int] = {}
    for value in as_of:
        if named := re.fullmatch(r"(\w+)=(\d+)", value):
            check_name(named[1], list(TABLES))
            pinned[named[1]] = int(named[2])
        else:
            versions = lake.versions(as_of=_moment(value))
    return versions | pinned


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"--as-of {value!r} is neither TABLE=VERSION nor a time like 2026-01-02T03:04:05"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
