"""The only door to DuckDB: a read-only session over pinned versions of the tables.

Every session is a private in-memory database. It sees the active files of the tables its SQL names
and nothing else: no other file, no network, no extension download, no change of settings.
"""

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
    "judgements": ("assessments",),
    "labels": ("judgements",),
    "responses": ("interactions", "labels"),
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
    """A locked connection in which everything `sql` names exists, at the pinned versions."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        connection.execute(
            "SET TimeZone = 'UTC'; SET python_enable_replacements = false; "
            "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; "
            "SET enable_progress_bar = false"
        )
        uris: list[str] = []
        for name in relations_in(sql):
            if name in VIEWS:
                connection.execute(f"CREATE VIEW {name} AS {view_sql(name)}")
                continue
            table = storage.open(name, version=(versions or {}).get(name))
            uris += _add_table(connection, TABLES[name], table, is_local=storage.is_local)
        _lock(connection, uris)
        yield connection


def _add_table(
    connection: "duckdb.DuckDBPyConnection",
    spec: TableSpec,
    table: "DeltaTable | None",
    *,
    is_local: bool,
) -> list[str]:
    """Creates the table's view and returns the files it must be allowed to read."""
    uris = table.file_uris() if table is not None else []
    if table is None or is_local or not uris:
        # The view is bound at creation, while its files may still be read.
        connection.execute(f"CREATE VIEW {spec.name} AS {files_sql(spec, uris)}")
        return uris
    # DuckDB would need an extension for an object store; delta-rs reads it for Arrow instead.
    source = f"{spec.name}_files"
    connection.register(source, table.to_pyarrow_dataset())
    connection.execute(f"CREATE VIEW {spec.name} AS {typed_sql(spec, source)}")
    return []


def _lock(connection: "duckdb.DuckDBPyConnection", uris: Sequence[str]) -> None:
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, uris))}]")
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")


def run(
    connection: "duckdb.DuckDBPyConnection", sql: str, params: Sequence[object] = ()
) -> "pyarrow.Table":
    """The result of one read-only statement.

    Raises:
        QueryError: DuckDB refuses it, or it is not one statement that only reads.
    """
    import duckdb

    try:
        _refuse_writes(connection, sql)
        relation = connection.sql(sql, params=list(params) or None)
        return relation.to_arrow_table()
    except duckdb.Error as error:
        raise QueryError(sql, str(error)) from error


def _refuse_writes(connection: "duckdb.DuckDBPyConnection", sql: str) -> None:
    """COPY could overwrite the very files the session may read, so only queries pass."""
    import duckdb

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(sql, f"one statement is expected, {len(statements)} were found")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(sql, f"only queries can be run on the lake, not {kind.name}")
