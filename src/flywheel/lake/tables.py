"""The tables: which record each holds, its key, its partitions, what may carry statistics.

Columns are derived from the records in `records.py`: scalars become scalars, everything nested
becomes JSON text in one column. Nothing is written down twice.
"""

import types
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from flywheel.records import (
    Adapter,
    Assessment,
    Decision,
    EvaluationItem,
    Interaction,
    JudgeRun,
    Qualification,
    QuarantineRecord,
    Record,
    Release,
    ReviewItem,
    Snapshot,
    SnapshotRow,
)

if TYPE_CHECKING:
    import pyarrow

ColumnType = Literal["text", "json", "integer", "real", "boolean", "date", "timestamp", "bytes"]

_SCALARS: dict[object, ColumnType] = {
    str: "text",
    int: "integer",
    float: "real",
    bool: "boolean",
    date: "date",
    datetime: "timestamp",
    AwareDatetime: "timestamp",
    bytes: "bytes",
}

SQL_TYPES: dict[ColumnType, str] = {
    "text": "VARCHAR",
    "json": "VARCHAR",
    "integer": "BIGINT",
    "real": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "bytes": "BLOB",
}


@dataclass(frozen=True)
class Column:
    """One column of a table, derived from one field of its record."""

    name: str
    type: ColumnType
    is_nullable: bool


@dataclass(frozen=True)
class TableSpec:
    """One Delta table."""

    name: str
    record: type[Record]
    key: tuple[str, ...]
    """Columns that identify a row; an append whose key is there already adds nothing."""
    partition_by: tuple[str, ...]
    search_by: tuple[str, ...]
    """Partition columns a key determines: duplicates are looked for only there."""
    search_within: str | None
    """A column with statistics that a key determines too: only files whose range of it meets the
    batch's are opened. Without one an append opens every file of the partitions searched."""
    statistics: tuple[str, ...]
    """Columns with min/max in Delta's log. Never one with content or an identity: statistics
    outlive the rows they describe, so an erased value would survive there."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The record's fields as columns, in the record's order."""
        return columns_of(self.record)


TABLES: dict[str, TableSpec] = {
    spec.name: spec
    for spec in (
        TableSpec(
            name="interactions",
            record=Interaction,
            key=("interaction_id",),
            partition_by=("workload", "event_date"),
            search_by=("workload", "event_date"),
            search_within="started_at",
            statistics=("started_at",),
        ),
        # A repeated judgement may come a day later under the same id, so the day does not narrow.
        TableSpec(
            name="assessments",
            record=Assessment,
            key=("assessment_id",),
            partition_by=("workload", "event_date"),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="review_items",
            record=ReviewItem,
            key=("review_item_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="snapshots",
            record=Snapshot,
            key=("snapshot_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="snapshot_rows",
            record=SnapshotRow,
            key=("snapshot_id", "kind", "interaction_id"),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=(),
        ),
        TableSpec(
            name="adapters",
            record=Adapter,
            key=("adapter_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="evaluations",
            record=EvaluationItem,
            key=("evaluation_id", "item_id"),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="qualifications",
            record=Qualification,
            key=("qualification_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="judge_runs",
            record=JudgeRun,
            key=("entry_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="decisions",
            record=Decision,
            key=("decision_id",),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("created_at",),
        ),
        TableSpec(
            name="releases",
            record=Release,
            key=("workload", "epoch"),
            partition_by=("workload",),
            search_by=("workload",),
            search_within=None,
            statistics=("epoch", "created_at"),
        ),
        TableSpec(
            name="quarantine",
            record=QuarantineRecord,
            key=("quarantine_id",),
            partition_by=("event_date",),
            search_by=(),
            search_within=None,
            statistics=("created_at",),
        ),
    )
}
"""Every table of a lake, in pipeline order."""

_BY_RECORD = {spec.record: spec for spec in TABLES.values()}


def table_of(records: Sequence[Record]) -> TableSpec:
    """The table these records belong in.

    Raises:
        TypeError: they are of several types, or of one the lake does not keep.
    """
    kinds = {type(record) for record in records}
    spec = _BY_RECORD.get(next(iter(kinds))) if len(kinds) == 1 else None
    if spec is None:
        found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
        known = ", ".join(kind.__name__ for kind in _BY_RECORD)
        raise TypeError(f"append takes records of one of these types: {known}; found: {found}")
    return spec


@cache
def columns_of(record: type[Record]) -> tuple[Column, ...]:
    """The columns a record's fields become."""
    return tuple(_column(name, field) for name, field in record.model_fields.items())


@cache
def nested_columns(record: type[Record]) -> tuple[str, ...]:
    """Names of the columns that hold JSON text."""
    return tuple(column.name for column in columns_of(record) if column.type == "json")


def _column(name: str, field: FieldInfo) -> Column:
    annotation: object = field.annotation
    is_nullable = False
    if get_origin(annotation) in (Union, types.UnionType):
        options = get_args(annotation)
        is_nullable = type(None) in options
        rest = [option for option in options if option is not type(None)]
        annotation = rest[0] if len(rest) == 1 else object
    return Column(name, _column_type(annotation), is_nullable)


def _column_type(annotation: object) -> ColumnType:
    while get_origin(annotation) is not None and hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return "text"
    return _SCALARS.get(annotation, "json")


@cache
def arrow_schema(name: str) -> "pyarrow.Schema":
    """The Arrow schema of a table; every column nullable, so that a later version can add some."""
    import pyarrow as pa

    arrow_types: dict[ColumnType, pa.DataType] = {
        "text": pa.string(),
        "json": pa.string(),
        "integer": pa.int64(),
        "real": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "bytes": pa.binary(),
    }
    return pa.schema([(column.name, arrow_types[column.type]) for column in TABLES[name].columns])
