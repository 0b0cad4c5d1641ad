"""lake.duckdb: a file of views that plain DuckDB opens, without Flywheel.

Input: the lake. Output: one DuckDB file without data, whose views list the active Parquet files of
every table. Command: `flywheel lake catalog`.

The views are a point in time: what is appended later is not in them, and after a vacuum they may
name files that are gone. Writing the catalog again refreshes it, atomically, for everyone who opens
it from then on; whoever has it open keeps what they opened. The nightly run does so. The table
`catalog` in it says what was written when, and at which Delta versions.
"""

from pathlib import Path

from flywheel.errors import QueryError
from flywheel.lake.delta import Storage
from flywheel.lake.session import VIEWS, files_sql, view_sql
from flywheel.lake.tables import TABLES
from flywheel.records import new_id, utcnow

OBJECT_STORE = (
    "A catalog of an object store needs DuckDB's httpfs extension and credentials on the machine "
    "that writes or opens it; `flywheel sql` needs neither."
)


def write_catalog(storage: Storage, path: Path) -> Path:
    """Writes or replaces the catalog, and returns its absolute path.

    Raises:
        QueryError: the lake is in an object store that DuckDB cannot read here.
    """
    import duckdb

    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{new_id()}")
    try:
        with duckdb.connect(str(draft)) as connection:
            # Nothing is downloaded behind anyone's back; what is installed is used.
            connection.execute("SET autoinstall_known_extensions = false")
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
    except duckdb.Error as error:
        if storage.is_local:
            raise
        # What DuckDB cannot open now it could not open later either.
        raise QueryError("catalog", f"{error}\n{OBJECT_STORE}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path
