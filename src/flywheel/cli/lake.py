"""`flywheel lake …`: what is in the lake, a catalog for DuckDB, and its upkeep."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue

from flywheel.cli.common import HomeOption, JsonOption, console, print_json, print_table
from flywheel.settings import Settings

if TYPE_CHECKING:
    from flywheel.lake import Lake

Rows = list[list[JsonValue]]

app = typer.Typer(
    help="Tables of everything captured, judged, trained and released.", no_args_is_help=True
)


def open_lake(home: Path | None) -> "Lake":
    """The deployment's lake."""
    from flywheel.lake import Lake

    return Lake.open(Settings.load(home=home))


@app.command()
def tables(
    name: Annotated[str | None, typer.Argument(help="Show the columns of this one.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List tables and views, or the columns of one.

    Example: flywheel lake tables interactions --home demo
    """
    lake = open_lake(home)
    if name is None:
        found = lake.relations()
        rows: Rows = [[r.name, r.kind, r.rows, r.version, r.about] for r in found]
        _show(lake.root, ["name", "kind", "rows", "version", "what it is"], rows, found, as_json)
        return
    columns = lake.columns(name)
    rows = [[c.name, c.type, c.about] for c in columns]
    _show(name, ["column", "type", "meaning"], rows, columns, as_json)


@app.command()
def catalog(
    output: Annotated[
        Path | None, typer.Option(help="The file. Default: lake.duckdb in the deployment folder.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write lake.duckdb: views over the lake for the DuckDB CLI or a notebook.

    It shows the lake as it is now; write it again to refresh it.

    Example: flywheel lake catalog --home demo && duckdb demo/lake.duckdb
    """
    settings = Settings.load(home=home)
    path = open_lake(home).catalog(output or settings.root / "lake.duckdb")
    console.print(f"{path}  (open it with: duckdb -readonly {path})", soft_wrap=True, markup=False)


@app.command()
def compact(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Merge small files, beside whatever else is running.

    Example: flywheel lake compact --home demo
    """
    done = open_lake(home).compact()
    rows: Rows = [[c.table, c.files_before, c.files_after, c.version] for c in done]
    _show("compacted", ["table", "files before", "files after", "version"], rows, done, as_json)


@app.command()
def vacuum(
    retention_hours: Annotated[
        int, typer.Option(min=0, help="Keep files that left their table later than this.")
    ] = 168,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete files no longer part of a table; versions older than the retention go with them.

    Example: flywheel lake vacuum --home demo --retention-hours 168
    """
    done = open_lake(home).vacuum(retention_hours=retention_hours)
    rows: Rows = [[v.table, v.files_removed] for v in done]
    _show("vacuumed", ["table", "files removed"], rows, done, as_json)


@app.command()
def history(
    table: Annotated[str, typer.Argument(help="Table.")],
    limit: Annotated[int, typer.Option(min=1, help="Newest versions shown.")] = 20,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a table's versions, newest first; `flywheel sql --as-of` reads one.

    Example: flywheel lake history interactions --home demo
    """
    commits = open_lake(home).history(table, limit=limit)
    rows: Rows = [
        [c.version, c.committed_at.isoformat(timespec="seconds"), c.operation, c.rows_added]
        for c in commits
    ]
    _show(table, ["version", "committed at", "operation", "rows added"], rows, commits, as_json)


def _show(
    title: str, columns: list[str], rows: Rows, records: Sequence[object], as_json: bool
) -> None:
    """The records as JSON, or their rows as a table."""
    if as_json:
        print_json(records)
    else:
        print_table(title, columns, rows)
