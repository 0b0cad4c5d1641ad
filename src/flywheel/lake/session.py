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


def table_sql(spec: TableSpec, uris: Sequence[str]) -> str:
    """The SELECT of a table over these files; typed and empty when there are none.

    The empty typed relation also gives a column younger than the files its type, all NULL.
    """
    names = ", ".join(column.name for column in spec.columns)
    typed = ", ".join(f"NULL::{SQL_TYPES[c.type]} AS {c.name}" for c in spec.columns)
    empty = f"SELECT {typed} WHERE false"  # noqa: S608 - names from TABLES
    if not uris:
        return empty
    types = {column.name: SQL_TYPES[column.type] for column in spec.columns}
    hive = ", ".join(f"{name}: {types[name]}" for name in spec.partition_by)
    scan = (
        f"SELECT * FROM read_parquet([{', '.join(map(literal, uris))}], "  # noqa: S608 - quoted paths
        f"hive_partitioning = true, hive_types = {{{hive}}}, union_by_name = true)"
    )
    return f"SELECT {names} FROM ({empty} UNION ALL BY NAME {scan})"  # noqa: S608 - as above


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
    if is_local or table is None or not uris:
        # A view over files is bound at creation, while they may still be read.
        connection.execute(f"CREATE VIEW {spec.name} AS {table_sql(spec, uris)}")
        return uris
    raise NotImplementedError


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


def without_known(spec: TableSpec, table: "DeltaTable", rows: "pyarrow.Table") -> "pyarrow.Table":
    """The rows whose key is neither in the table, at its version, nor earlier among them."""
    import duckdb
    import pyarrow.compute as pc

    uris = table.file_uris(_partition_filters(spec, rows))
    key = ", ".join(spec.key)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET python_enable_replacements = false; SET TimeZone = 'UTC'")
        connection.register("batch", rows.select(list(spec.key)))
        connection.execute(f"CREATE VIEW known AS {table_sql(spec, uris)}")
        fresh = connection.sql(
            f"SELECT min(position) AS position FROM (SELECT *, row_number() OVER () - 1 AS position FROM batch) "  # noqa: S608
            f"ANTI JOIN (SELECT {key} FROM known) USING ({key}) GROUP BY {key} ORDER BY ALL"
        ).to_arrow_table()
    positions = pc.cast(fresh.column("position"), "int64")
    return rows if fresh.num_rows == rows.num_rows else rows.take(positions)


def _partition_filters(
    spec: TableSpec, rows: "pyarrow.Table"
) -> list[tuple[str, str, list[str]]] | None:
    return [
        (name, "in", sorted({str(value) for value in rows.column(name).unique().to_pylist()}))
        for name in spec.search_by
    ] or None
