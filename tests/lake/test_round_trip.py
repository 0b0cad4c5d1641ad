"""A record that went into the lake comes out equal, whatever JSON it carries."""

import tempfile
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flywheel.errors import BadRecordError
from flywheel.lake import Lake
from flywheel.lake.rows import R, from_arrow, to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import (
    Adapter,
    Assessment,
    Decision,
    EvaluationItem,
    Interaction,
    JsonObject,
    Message,
    QuarantineRecord,
    Record,
    Snapshot,
    SnapshotRow,
    utcnow,
)
from flywheel.testing import make_assessment, make_interaction

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | text,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
    max_leaves=8,
)
json_objects: st.SearchStrategy[JsonObject] = st.dictionaries(text, json_values, max_size=3)
absent: st.SearchStrategy[JsonObject] = st.just({})
messages = st.builds(
    lambda role, *parts: Message.model_validate(
        {"role": role} | {key: value for part in parts for key, value in part.items()}
    ),
    text,
    absent | st.fixed_dictionaries({"content": st.none() | text | st.lists(json_objects)}),
    absent | st.fixed_dictionaries({"tool_calls": st.none() | st.lists(json_objects, max_size=2)}),
    absent | st.fixed_dictionaries({"tool_call_id": st.none() | text}),
    absent | st.fixed_dictionaries({"refusal": json_values}),
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
interactions = st.builds(
    make_interaction,
    started_at=moments,
    duration_ms=st.none() | numbers,
    turn_index=st.none() | st.integers(-(2**63), 2**63 - 1),
    messages=st.lists(messages, max_size=3),
    tools=st.none() | st.lists(json_objects, max_size=2),
    request_params=json_objects,
    response=st.none() | messages,
    alternatives=st.lists(messages, max_size=2),
    error_message=st.none() | text,
    purposes=st.lists(text, max_size=2),
    tags=json_objects,
    inclusion_prob=st.none() | st.floats(0, 1),
    ingested_at=st.none() | moments,
)
assessments = st.builds(
    make_assessment,
    created_at=moments,
    interaction_id=st.none() | text,
    pair_ids=st.none() | st.tuples(text, text),
    value=st.none() | numbers,
    label=st.none() | text,
    correction=st.none()
    | st.builds(Message, role=st.just("assistant"), content=text.map("x{}".format)),
    rationale=st.none() | text,
    blinded=st.none() | st.booleans(),
    round=st.sampled_from([None, "1", "2", "adjudication"]),
)


def written_and_read(records: list[R]) -> list[R]:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        result = lake.append(records)
        return lake.fetch(type(records[0]), f"SELECT * FROM {result.table}")


@settings(max_examples=100, deadline=None)
@given(interactions)
def test_any_interaction_survives_as_a_row(record: Interaction) -> None:
    assert from_arrow(Interaction, to_arrow(TABLES["interactions"], [record])) == [record]


@settings(max_examples=100, deadline=None)
@given(assessments)
def test_any_assessment_survives_as_a_row(record: Assessment) -> None:
    assert from_arrow(Assessment, to_arrow(TABLES["assessments"], [record])) == [record]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(interactions, min_size=5, max_size=20))
def test_any_interaction_survives_the_lake(records: list[Interaction]) -> None:
    found = {record.interaction_id: record for record in written_and_read(records)}
    assert found == {record.interaction_id: record for record in records}


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(assessments, min_size=5, max_size=20))
def test_any_assessment_survives_the_lake(records: list[Assessment]) -> None:
    found = {record.assessment_id: record for record in written_and_read(records)}
    assert found == {record.assessment_id: record for record in records}


def test_null_content_with_tool_calls_stays_null_and_absent_stays_absent(lake: Lake) -> None:
    call: JsonObject = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    response = Message(role="assistant", content=None, tool_calls=[call])
    bare = Message(role="assistant")
    lake.append([make_interaction(interaction_id="calls", response=response)])
    lake.append([make_interaction(interaction_id="bare", response=bare)])
    found = lake.fetch(Interaction, "SELECT * FROM interactions ORDER BY interaction_id")
    dumped = [record.response.model_dump() for record in found if record.response]
    assert dumped == [
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]


@pytest.mark.parametrize(
    "record",
    [
        Snapshot(
            snapshot_id="s",
            workload="triage",
            created_at=utcnow(),
            path="p",
            lake_versions={"interactions": 3},
            recipe={"dataset": {"kinds": ["sft"]}},
            counts={"sft/train": 2},
            labels=2,
            new_labels=1,
        ),
        SnapshotRow(
            snapshot_id="s",
            workload="triage",
            interaction_id="i",
            conversation_id="c",
            kind="sft",
            split="train",
            label_source="expert",
            raters=1,
        ),
        Adapter(
            adapter_id="ab",
            name="triage-ab",
            workload="triage",
            created_at=utcnow(),
            base_model="b",
            spec={"lora": {"rank": 16}},
            rank=16,
            target_modules=("q_proj", "v_proj"),
            size_bytes=10,
            path="p",
            metrics={"loss": 0.1},
        ),
        EvaluationItem(
            evaluation_id="e",
            workload="triage",
            created_at=utcnow(),
            suite="holdout",
            suite_hash="h",
            item_id="1",
            cluster_id="1",
            model="m",
            role="candidate",
            output=None,
            scores={"correct": None, "valid": 1.0},
        ),
        Decision(
            decision_id="d",
            workload="triage",
            created_at=utcnow(),
            candidate="c",
            champion="b",
            verdict="FAIL",
            reasons=("worse",),
            comparisons=(),
            suite="holdout",
            suite_hash="h",
            candidate_evaluation_id="1",
            champion_evaluation_id="2",
        ),
        QuarantineRecord(
            quarantine_id="q",
            event_date=date(2026, 1, 2),
            created_at=utcnow(),
            source="f.jsonl:3",
            reason="bad_json",
            detail="d",
            payload=b"\x00\xff{",
        ),
    ],
    ids=lambda record: type(record).__name__,
)
def test_every_other_record_survives_too(record: Record) -> None:
    assert written_and_read([record]) == [record]


def test_a_number_json_cannot_hold_is_refused_and_nothing_is_written(lake: Lake) -> None:
    good = make_interaction()
    bad = make_interaction(interaction_id="bad", tags={"score": float("nan")})
    with pytest.raises(BadRecordError, match="interaction_id=bad"):
        lake.append([good, bad])
    assert lake.versions() == {}


def test_an_integer_over_64_bits_is_refused(lake: Lake) -> None:
    with pytest.raises(BadRecordError, match="unstorable_value"):
        lake.append([make_interaction(input_tokens=2**70)])


def test_a_record_without_its_partition_is_refused(lake: Lake) -> None:
    with pytest.raises(BadRecordError, match="interactions.workload is empty"):
        lake.append([make_interaction(workload="")])


def test_fetch_leaves_out_columns_the_record_does_not_have(lake: Lake) -> None:
    record = make_interaction()
    lake.append([record])
    assert lake.fetch(Interaction, "SELECT *, 1 AS other FROM responses") == [record]


def test_fetch_says_which_field_is_missing(lake: Lake) -> None:
    lake.append([make_interaction()])
    with pytest.raises(BadRecordError, match="started_at"):
        lake.fetch(Interaction, "SELECT interaction_id FROM interactions")
