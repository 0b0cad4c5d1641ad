from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.rows import COLUMNS, RowDefaults, parse_row
from flywheel.records import Assessment, Message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEFAULTS = RowDefaults(workload="triage", now=NOW)


def parse(**row: JsonValue) -> Assessment:
    return parse_row({"interaction_id": "i1", "name": "urgency", **row}, DEFAULTS)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1.0),
        (" 0.5 ", 0.5),
        ("true", 1.0),
        ("No", 0.0),
        (True, 1.0),
        (3, 3.0),
        ("-2e-1", -0.2),
    ],
)
def test_a_rating_is_a_number_or_a_yes_or_no(cell: JsonValue, value: float) -> None:
    assert parse(value=cell).value == value


def test_a_correction_is_the_text_of_the_answer() -> None:
    assessment = parse(correction=' {"urgency": "urgent"}\n')
    assert assessment.kind == "correction"
    assert assessment.correction == Message(role="assistant", content='{"urgency": "urgent"}')


@pytest.mark.parametrize("as_text", [False, True])
def test_a_correction_may_be_a_message_with_tool_calls(as_text: bool) -> None:
    cell: JsonValue = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    text = '{"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}'
    correction = parse(correction=text if as_text else cell).correction
    assert correction is not None
    assert correction.model_dump() == cell


def test_a_row_without_a_time_was_judged_now_and_by_an_expert() -> None:
    assessment = parse(label="good")
    assert (assessment.created_at, assessment.source_type) == (NOW, "human")
    assert assessment.event_date == NOW.date()


def test_a_stated_time_source_and_round_hold() -> None:
    assessment = parse(
        label="good",
        created_at="2026-01-01T23:30:00-02:00",
        source_type="end_user",
        source_id="u7",
        round="adjudication",
    )
    assert assessment.created_at == datetime(2026, 1, 2, 1, 30, tzinfo=UTC)
    assert assessment.event_date.isoformat() == "2026-01-02"
    assert (assessment.source_type, assessment.source_id) == ("end_user", "u7")
    assert assessment.round == "adjudication"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"interaction_id": ""}, "missing_interaction_id"),
        ({"name": "  "}, "missing_name"),
        ({"value": "high"}, "bad_number"),
        ({"value": "1,5"}, "bad_number"),
        ({"value": "nan"}, "bad_number"),
        ({"value": "1e999"}, "bad_number"),
        ({"value": [1]}, "bad_number"),
        ({"value": 10**400}, "bad_number"),
        ({"value": "", "correction": " "}, "empty_correction"),
        ({"value": "1", "correction": {"role": "assistant", "content": " "}}, "empty_correction"),
        ({"value": None}, "empty_judgement"),
        ({"correction": {"urgency": "urgent"}}, "bad_correction"),
        ({"correction": {"role": "user", "content": "x"}}, "bad_correction"),
        ({"correction": 7}, "bad_correction"),
        ({"correction": {"role": "assistant", "content": 7}}, "bad_correction"),
        ({"labell": "good"}, "unknown_column"),
        ({"label": ["good"]}, "invalid_record"),
        ({"label": "\ud800"}, "bad_encoding"),
        ({"source_type": "clinician"}, "bad_source_type"),
        ({"round": "3"}, "bad_round"),
        ({"created_at": "yesterday"}, "bad_created_at"),
        ({"created_at": "2026-01-01T00:00:00"}, "bad_created_at"),
        ({"created_at": "2036-01-01T00:00:00Z"}, "bad_created_at"),
    ],
)
def test_a_row_that_cannot_be_read_has_a_reason(row: dict[str, JsonValue], reason: str) -> None:
    fine: dict[str, JsonValue] = {"interaction_id": "i1", "name": "urgency"}
    if not {"value", "correction"} & row.keys():
        fine["value"] = 1
    with pytest.raises(BadRecordError) as caught:
        parse_row({**fine, **row}, DEFAULTS)
    assert caught.value.reason == reason


def test_the_id_of_a_row_is_what_it_says_and_not_when_it_is_imported() -> None:
    later = DEFAULTS.model_copy(update={"now": NOW + timedelta(days=1)})
    row: dict[str, JsonValue] = {"interaction_id": "i1", "name": "urgency", "value": 1}
    first = parse_row(row, DEFAULTS)
    assert first.assessment_id == parse_row(row, later).assessment_id
    for change in ({"value": 0}, {"source_id": "b"}, {"created_at": "2026-01-01T00:00:00Z"}):
        assert parse_row({**row, **change}, DEFAULTS).assessment_id != first.assessment_id


def test_a_given_id_is_kept() -> None:
    assert parse(value=1, assessment_id="mine").assessment_id == "mine"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(COLUMNS) | st.text(max_size=4), JSON, max_size=6))
def test_any_row_becomes_an_assessment_or_a_reason(row: dict[str, JsonValue]) -> None:
    try:
        assert isinstance(parse_row(row, DEFAULTS), Assessment)
    except BadRecordError as error:
        assert error.reason


def test_the_guideline_of_a_row_goes_before_the_files() -> None:
    row: dict[str, JsonValue] = {"interaction_id": "i", "name": "urgency", "value": 1}
    defaults = RowDefaults(workload="triage", guideline="2026-01")
    assert parse_row(row, defaults).guideline == "2026-01"
    assert parse_row({**row, "guideline": "2026-02"}, defaults).guideline == "2026-02"
