"""Records to Arrow and back, exactly."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from flywheel.errors import BadRecordError
from flywheel.lake.tables import Column, TableSpec, arrow_schema, columns_of, nested_columns
from flywheel.records import Record

if TYPE_CHECKING:
    import pyarrow

R = TypeVar("R", bound=Record)

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def to_arrow(spec: TableSpec, records: Sequence[Record]) -> "pyarrow.Table":
    """The records as an Arrow table in the table's schema.

    Raises:
        BadRecordError: a value has no place in a column: NaN inside JSON, an integer over 64 bits.
    """
    import pyarrow as pa

    rows = [_to_row(spec, record) for record in records]
    try:
        return pa.Table.from_pylist(rows, schema=arrow_schema(spec.name))
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise BadRecordError("unstorable_value", f"{spec.name}: {error}") from error


def _to_row(spec: TableSpec, record: Record) -> dict[str, object]:
    row = record.model_dump()
    for name in nested_columns(spec.record):
        if row[name] is not None:
            row[name] = _to_json(spec, record, row[name])
    for name in spec.partition_by:
        if row[name] == "":
            raise BadRecordError(
                "empty_partition", f"{spec.name}.{name} is empty: {_key(spec, row)}"
            )
    return row


def _to_json(spec: TableSpec, record: Record, value: object) -> str:
    try:
        return _JSON.encode(value)
    except (ValueError, TypeError) as error:
        where = _key(spec, record.model_dump(include=set(spec.key)))
        raise BadRecordError("not_json", f"{spec.name} {where}: {error}") from error


def _key(spec: TableSpec, row: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={row[name]}" for name in spec.key)


def from_arrow(record: type[R], table: "pyarrow.Table") -> list[R]:
    """Rows back into records; columns the record does not have are left out.

    Raises:
        BadRecordError: a row lacks a field the record requires, or holds one it refuses.
    """
    columns = [column for column in columns_of(record) if column.name in table.column_names]
    rows = table.select([column.name for column in columns]).to_pylist()
    try:
        return [record.model_validate(_from_row(columns, row)) for row in rows]
    except ValidationError as error:
        raise BadRecordError("not_a_record", f"not {record.__name__}: {error}") from error


def _from_row(columns: Sequence[Column], row: Mapping[str, object]) -> dict[str, object]:
    """NULL where the record takes none means a column younger than the row: the default applies."""
    values: dict[str, object] = {}
    for column in columns:
        value = row[column.name]
        if value is None and not column.is_nullable:
            continue
        values[column.name] = (
            json.loads(value) if column.type == "json" and isinstance(value, str) else value
        )
    return values
