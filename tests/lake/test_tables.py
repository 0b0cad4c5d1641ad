import pyarrow as pa
import pytest

from flywheel.lake.tables import TABLES, arrow_schema, columns_of, table_of
from flywheel.records import Interaction, SuiteItem
from flywheel.testing import make_assessment, make_interaction

DESIGNED = {
    "interactions": ("workload", "event_date"),
    "assessments": ("workload", "event_date"),
    "review_items": ("workload",),
    "snapshots": ("workload",),
    "snapshot_rows": ("workload",),
    "adapters": ("workload",),
    "evaluations": ("workload",),
    "qualifications": ("workload",),
    "judge_runs": ("workload",),
    "decisions": ("workload",),
    "releases": ("workload",),
    "quarantine": ("event_date",),
}


def test_tables_and_partitions_are_the_designed_ones() -> None:
    assert {name: spec.partition_by for name, spec in TABLES.items()} == DESIGNED


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_the_records_fields_in_their_order(name: str) -> None:
    assert arrow_schema(name).names == list(TABLES[name].record.model_fields)


@pytest.mark.parametrize("name", TABLES)
def test_keys_partitions_and_statistics_are_columns(name: str) -> None:
    spec = TABLES[name]
    used = {*spec.key, *spec.partition_by, *spec.search_by, *spec.statistics}
    assert used <= set(arrow_schema(name).names)
    assert set(spec.search_by) <= set(spec.partition_by)
    assert spec.search_within is None or spec.search_within in spec.statistics


@pytest.mark.parametrize("name", TABLES)
def test_only_numbers_and_times_carry_statistics(name: str) -> None:
    kinds = {column.name: column.type for column in TABLES[name].columns}
    assert {kinds[column] for column in TABLES[name].statistics} <= {"timestamp", "integer"}


def test_scalars_become_scalars_and_everything_nested_json_text() -> None:
    schema = arrow_schema("interactions")
    assert schema.field("started_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("event_date").type == pa.date32()
    assert schema.field("duration_ms").type == pa.float64()
    assert schema.field("input_tokens").type == pa.int64()
    assert schema.field("status").type == pa.string()
    assert arrow_schema("quarantine").field("payload").type == pa.binary()
    nested = {column.name for column in columns_of(Interaction) if column.type == "json"}
    assert nested == {
        "messages",
        "tools",
        "request_params",
        "response",
        "alternatives",
        "purposes",
        "tags",
    }


def test_records_of_two_types_or_none_have_no_table() -> None:
    with pytest.raises(TypeError, match="found: Assessment, Interaction"):
        table_of([make_interaction(), make_assessment()])
    with pytest.raises(TypeError, match="found: nothing"):
        table_of([])
    with pytest.raises(TypeError, match="found: SuiteItem"):
        table_of([SuiteItem(item_id="1", messages=())])
