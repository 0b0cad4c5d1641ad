"""Records to Arrow and back, exactly."""

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json, to_jsonable_python

from flywheel.errors import BadRecordError
from flywheel.lake.tables import Column, TableSpec, arrow_schema, columns_of
from flywheel.records import Record

if TYPE_CHECKING:
    import pyarrow

R = TypeVar("R", bound=Record)

CACHED_ROWS = 256
_STRICT = json.JSONEncoder(allow_nan=False)


class Rows(NamedTuple):
    """Records of one type, made ready to be appended."""

    spec: TableSpec
    table: "pyarrow.Table"


def to_arrow(spec: TableSpec, records: Sequence[Record]) -> "pyarrow.Table":
    """The records as an Arrow table in the table's schema.

    Made column by column, for so few rows at a time that they stay in the processor's cache.

    Raises:
        BadRecordError: a value has no place in a column: NaN inside JSON, an integer over 64 bits.
    """
    import pyarrow as pa

    for name in spec.partition_by:
        for record in records:
            if getattr(record, name) == "":
                raise BadRecordError(
                    "empty_partition", f"{spec.name}.{name} is empty: {_key(spec, record)}"
                )
    schema = arrow_schema(spec.name)
    parts = [
        _to_batch(spec, schema, records[at : at + CACHED_ROWS])
        for at in range(0, len(records), CACHED_ROWS)
    ]
    return pa.Table.from_batches(parts, schema=schema).combine_chunks()


def _to_batch(
    spec: TableSpec, schema: "pyarrow.Schema", records: Sequence[Record]
) -> "pyarrow.RecordBatch":
    import pyarrow as pa

    arrays = []
    for column in spec.columns:
        name = column.name
        values = list(map(attrgetter(name), records))
        if column.type == "json":
            values = [
                _to_json(spec, record, value) for record, value in zip(records, values, strict=True)
            ]
        try:
            arrays.append(pa.array(values, schema.field(name).type))
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise BadRecordError("unstorable_value", f"{spec.name}: {error}") from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _to_json(spec: TableSpec, record: Record, value: object) -> str | None:
    if value is None:
        return None
    if not value and isinstance(value, dict | tuple | list):
        return "{}" if isinstance(value, dict) else "[]"
    try:
        text = to_json(value)
        # The words may also stand in a text, which is fine. One letter is found much faster.
        if (b"N" in text and b"NaN" in text) or b"Infinity" in text:
            _STRICT.encode(to_jsonable_python(value, inf_nan_mode="constants"))
    except ValueError as error:
        raise BadRecordError("not_json", f"{spec.name} {_key(spec, record)}: {error}") from error
    return text.decode()


def _key(spec: TableSpec, record: Record) -> str:
    return ", ".join(f"{name}={getattr(record, name)}" for name in spec.key)


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
