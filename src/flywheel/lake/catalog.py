"""lake.duckdb: a file of views that plain DuckDB opens, without Flywheel.

Input: the lake. Output: one DuckDB file without data, whose views list the active Parquet files of
every table. Command: `flywheel lake catalog`.

The views are a point in time: what is appended later is not in them, and after a vacuum they may
name files that are gone. Writing the catalog again refreshes it, atomically, for everyone who opens
it from then on; whoever has it open keeps what they opened. The nightly run does so. The table
`catalog` in it says what was written when, and at which Delta versions.
"""

from pathlib import Path

from flywheel.lake.delta import Storage
from flywheel.lake.session import VIEWS, files_sql, view_sql
from flywheel.lake.tables import TABLES
from flywheel.records import new_id, utcnow


def write_catalog(storage: Storage, path: Path) -> Path:
    """Writes or replaces the catalog, and returns its absolute path."""
    import duckdb

    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{new_id()}")
    try:
        with duckdb.connect(str(draft)) as connection:
            connection.execute(
                "CREATE TABLE catalog (name VARCHAR, version BIGINT, written_at TIMESTAMPTZ)"
            )
            for name, spec in TABLES.items():
                table = storage.open(name)
                uris = storage.files(table, name) if table is not None else []
                connection.execute(f"CREATE VIEW {name} AS {files_sql(spec, uris)}")
                version = table.version() if table is not None else None
                connection.execute(
                    "INSERT INTO catalog VALUES (?, ?, ?)", [name, version, utcnow()]
                )
            for name in VIEWS:
                connection.execute(f"CREATE VIEW {name} AS {view_sql(name)}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
