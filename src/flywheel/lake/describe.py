"""What is in the lake: its tables and views, their columns, and what each means.

Command: `flywheel lake tables [NAME]`.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from flywheel.errors import QueryError
from flywheel.lake import maintenance, session
from flywheel.lake.delta import Storage
from flywheel.lake.session import VIEWS, view_sql
from flywheel.lake.tables import TABLES


@dataclass(frozen=True)
class Relation:
    """A table or view."""

    name: str
    kind: Literal["table", "view"]
    rows: int
    version: int | None
    """Delta version; NULL for a view, and for a table nothing was written to yet."""
    about: str


@dataclass(frozen=True)
class ColumnInfo:
    """A column of a table or view."""

    name: str
    type: str
    about: str | None


def relations(storage: Storage) -> list[Relation]:
    """Every table and view, in pipeline order."""
    versions = maintenance.versions(storage)
    names = [*TABLES, *VIEWS]
    counts = " UNION ALL ".join(
        f"SELECT {position}, count(*) AS n FROM {name}"  # noqa: S608 - our own names
        for position, name in enumerate(names)
    )
    with session.session(storage, counts, versions=versions) as connection:
        counted = session.run(connection, f"{counts} ORDER BY 1").column("n").to_pylist()
    return [
        Relation(
            name=name,
            kind="table" if name in TABLES else "view",
            rows=rows,
            version=versions.get(name),
            about=_about(name),
        )
        for name, rows in zip(names, counted, strict=True)
    ]


def columns(storage: Storage, name: str) -> list[ColumnInfo]:
    """The columns of a table or view.

    Raises:
        QueryError: there is none of that name.
    """
    known = [*TABLES, *VIEWS]
    check_name(name, known)
    sql = f"SELECT * FROM {name} LIMIT 0"  # noqa: S608 - checked above
    with session.session(storage, sql) as connection:
        types = connection.sql(f"DESCRIBE {name}").fetchall()
    fields = TABLES[name].record.model_fields if name in TABLES else {}
    return [
        ColumnInfo(
            name=column,
            type=str(kind),
            about=fields[column].description if column in fields else None,
        )
        for column, kind, *_ in types
    ]


def check_name(name: str, known: list[str]) -> None:
    """Refuses a name that is not one of these.

    Raises:
        QueryError: with the nearest name there is.
    """
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}."
        raise QueryError(name, f"the lake has no {name!r}{hint}")


def _about(name: str) -> str:
    """The first sentence of the record's docstring, or of the comment a view begins with."""
    if name in TABLES:
        text = TABLES[name].record.__doc__ or ""
    else:
        comment = re.match(r"(--.*\n)+", view_sql(name))
        text = re.sub(r"^-- ?", "", comment[0] if comment else "", flags=re.M)
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)])[.:] ", paragraph)[0].rstrip(".")
