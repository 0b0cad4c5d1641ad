"""The only door to DuckDB: a read-only session over pinned versions of the tables.

Every session is a private in-memory database. It sees the active files of the tables its SQL names
and nothing else: no other file, no network, no extension download, no change of settings.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from flywheel.errors import QueryError
from flywheel.lake.delta import Storage
from flywheel.lake.tables import SQL_TYPES, TABLES, TableSpec

if TYPE_CHECKING:
    import duckdb
    import pyarrow
    from deltalake import DeltaTable

VIEWS: dict[str, tuple[str, ...]] = {
    "submissions": ("assessments", "qualifications", "judge_runs"),
    "judgements": ("submissions",),
    "ratings": ("submissions", "interactions"),
    "verdicts": ("judgements",),
    "labels": ("verdicts",),
    "responses": ("interactions", "labels"),
    "pairs": ("interactions", "labels", "verdicts"),
    "label_agreement": ("submissions",),
    "adjudication_queue": ("judgements", "verdicts"),
    "adapter_lineage": ("adapters", "snapshots", "decisions", "releases"),
    "cost_daily": ("interactions", "assessments"),
    "route_requests": ("interactions",),
}
"""Every view, with the tables and views it reads."""

_LISTS_EVERYTHING = re.compile(r"\b(show|describe|information_schema|duckdb_\w+|pragma)\b", re.I)


@cache
def view_sql(name: str) -> str:
    """The SELECT of a view."""
    return (files("flywheel.lake") / "views" / f"{name}.sql").read_text(encoding="utf-8")


def relations_in(sql: str) -> list[str]:
    """Tables and views a statement may read, each after what it reads itself.

    A name counts wherever it appears as a word: one too many costs a file list, one too few an
    error.
    """
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    everything = bool(_LISTS_EVERYTHING.search(sql))
    found: list[str] = []

    def add(name: str) -> None:
        for inner in VIEWS.get(name, ()):
            add(inner)
        if name not in found:
            found.append(name)

    for name in (*TABLES, *VIEWS):
        if everything or name in words:
            add(name)
    return found


def literal(value: str) -> str:
    """A SQL string literal. Only for paths inside a view, where nothing can be bound."""
    return "'" + value.replace("'", "''") + "'"


def files_sql(spec: TableSpec, uris: Sequence[str]) -> str:
    """The SELECT of a table over these Parquet files, of which there may be none."""
    if not uris:
        return typed_sql(spec, None)
    types = {column.name: SQL_TYPES[column.type] for column in spec.columns}
    hive = ", ".join(f"{name}: {types[name]}" for name in spec.partition_by)
    return typed_sql(
        spec,
        f"read_parquet([{', '.join(map(literal, uris))}], "
        f"hive_partitioning = true, hive_types = {{{hive}}}, union_by_name = true)",
    )


def typed_sql(spec: TableSpec, source: str | None) -> str:
    """The SELECT of a table over a source that may be absent or lack its younger columns.

    The empty typed relation gives what is missing its type, with every row NULL.
    """
    names = ", ".join(column.name for column in spec.columns)
    typed = ", ".join(f"NULL::{SQL_TYPES[c.type]} AS {c.name}" for c in spec.columns)
    empty = f"SELECT {typed} WHERE false"
    if source is None:
        return empty
    return f"SELECT {names} FROM ({empty} UNION ALL BY NAME SELECT * FROM {source})"  # noqa: S608


@contextmanager
def session(
    storage: Storage, sql: str, *, versions: Mapping[str, int] | None = None
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A locked connection in which everything `sql` names exists, at the pinned versions.

    Raises:
        QueryError: DuckDB refuses the SQL, now or while the block runs.
    """
    import duckdb

    try:
        with duckdb.connect(":memory:") as connection:
            connection.execute(
                "SET TimeZone = 'UTC'; SET python_enable_replacements = false; "
                "SET autoinstall_known_extensions = false; "
                "SET autoload_known_extensions = false; SET enable_progress_bar = false"
            )
            paths: list[str] = []
            for name in relations_in(sql):
                if name in VIEWS:
                    connection.execute(f"CREATE VIEW {name} AS {view_sql(name)}")
                else:
                    table = storage.open(name, version=(versions or {}).get(name))
                    paths += _add_table(connection, TABLES[name], table, storage)
            # From here on: these files, and no file or address besides.
            connection.execute(f"SET allowed_paths = [{', '.join(map(literal, paths))}]")
            connection.execute("SET enable_external_access = false; SET lock_configuration = true")
            yield connection
    except duckdb.IOException as error:
        hint = "The files of an old version are gone once `flywheel lake vacuum` ran past them."
        raise QueryError(sql, f"{error}\n{hint}") from error
    except duckdb.Error as error:
        raise QueryError(sql, _reason(str(error))) from error


def _reason(message: str) -> str:
    """DuckDB's message; of an unknown table, with a better guess at the one that was meant.

    DuckDB can only guess among what the session holds, and that is what the SQL named.
    """
    unknown = re.search(r"Table with name (\w+) does not exist", message)
    if not unknown:
        return message
    close = difflib.get_close_matches(unknown[1], [*TABLES, *VIEWS], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"Catalog Error: {unknown[0]}.{hint}"


def _add_table(
    connection: "duckdb.DuckDBPyConnection",
    spec: TableSpec,
    table: "DeltaTable | None",
    storage: Storage,
) -> list[str]:
    """Creates the table's view and returns the files it must be allowed to read."""
    uris = storage.files(table, spec.name) if table is not None else []
    if table is None or storage.is_local or not uris:
        connection.execute(f"CREATE VIEW {spec.name} AS {files_sql(spec, uris)}")
        return uris
    # DuckDB would need an extension for an object store; delta-rs reads it for Arrow instead.
    source = f"{spec.name}_files"
    connection.register(source, storage.dataset(table, spec.name))
    connection.execute(f"CREATE VIEW {spec.name} AS {typed_sql(spec, source)}")
    return []


def run(
    connection: "duckdb.DuckDBPyConnection", sql: str, params: Sequence[object] = ()
) -> "pyarrow.Table":
    """The result of one statement that only reads.

    Raises:
        QueryError: it does more than read, or it is not one statement.
    """
    _refuse_writes(connection, sql)
    return connection.sql(sql, params=list(params) or None).to_arrow_table()


def _refuse_writes(connection: "duckdb.DuckDBPyConnection", sql: str) -> None:
    """Lets queries pass and nothing else: COPY could overwrite the files the session may read."""
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(sql, f"one statement is expected, {len(statements)} were found")
    kind = statements[0].type.name
    # MULTI is what DuckDB makes of PIVOT.
    if kind not in ("SELECT", "EXPLAIN", "MULTI"):
        raise QueryError(sql, f"only queries can be run on the lake, not {kind}")
    # COPY also hides in WITH, EXPLAIN and PIVOT, whose kinds do not tell.
    encoded = sql.encode()
    for start, token in duckdb.tokenize(sql):
        word = encoded[start : start + 4].upper()
        if token == duckdb.token_type.keyword and word == b"COPY":
            raise QueryError(
                sql, 'only queries can be run on the lake, not COPY (a column is "copy")'
            )
