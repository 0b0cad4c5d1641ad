"""Options every command shares, and how results are printed."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue, TypeAdapter
from rich.console import Console
from rich.table import Table

from flywheel.settings import Settings
from flywheel.workload import Workload

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Deployment folder. Default: $FLYWHEEL_HOME or ./.flywheel."),
]
WorkloadOption = Annotated[
    Path,
    typer.Option("--workload", "-w", envvar="FLYWHEEL_WORKLOAD", help="The workload file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]

DEFAULT_WORKLOAD = Path("flywheel.yaml")
console = Console(highlight=False)
"""Results, on stdout."""
messages = Console(stderr=True, highlight=False)
"""Everything else, on stderr."""


def load(home: Path | None, workload: Path) -> tuple[Settings, Workload]:
    """The deployment's settings and the workload, both validated."""
    return Settings.load(home=home), Workload.load(workload)


def moment(text: str) -> datetime:
    """An ISO 8601 day or time; UTC where it has no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not ISO 8601: 2026-01-31 or 2026-01-31T08:00+01:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def print_json(value: object) -> None:
    """Any record, or plain container of records, as JSON on stdout."""
    sys.stdout.write(TypeAdapter(object).dump_json(value, indent=2).decode() + "\n")


def print_table(title: str, columns: list[str], rows: list[list[JsonValue]]) -> None:
    """A table for a person."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console.print(table)
