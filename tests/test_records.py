"""The nouns: round trips, refusals and identities."""

import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from flywheel.records import Assessment, Feedback, Message, new_id

NOW = datetime(2026, 1, 2, tzinfo=UTC)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    content=st.none() | st.text(max_size=40),
    extra=st.dictionaries(st.text("abcxyz_", min_size=1, max_size=6), json_values, max_size=3),
    calls=st.none()
    | st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=2), max_size=2),
)
def test_a_message_survives_the_round_trip_unchanged(
    content: str | None, extra: dict[str, JsonValue], calls: list[dict[str, JsonValue]] | None
) -> None:
    message = {**extra, "role": "assistant", "content": content, "tool_calls": calls}
    assert Message.model_validate(message).model_dump() == message


def test_an_absent_content_stays_absent_and_a_null_one_stays_null() -> None:
    assert Message.model_validate({"role": "assistant"}).model_dump() == {"role": "assistant"}
    assert Message.model_validate_json('{"role":"tool","content":null}').model_dump_json() == (
        '{"role":"tool","content":null}'
    )


def test_text_joins_the_text_parts_and_leaves_images_out() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    assert Message.model_validate({"role": "user", "content": parts}).text == "ab"


def test_new_ids_are_uuid7_and_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert UUID(first).version == 7 and UUID(first).variant == "specified in RFC 4122"
    assert first < second
    assert abs((UUID(first).int >> 80) / 1000 - time.time()) < 5


@pytest.mark.parametrize("correction", ["", "  ", {"role": "assistant", "content": None}])
def test_an_empty_correction_is_refused(correction: object) -> None:
    with pytest.raises(ValidationError, match="correction is empty"):
        Feedback.model_validate({"interaction_id": "a", "name": "n", "correction": correction})


def test_feedback_needs_something_to_judge_and_a_judgement() -> None:
    with pytest.raises(ValidationError, match="interaction_id or conversation_id"):
        Feedback.model_validate({"name": "n", "value": 1})
    with pytest.raises(ValidationError, match="at least one of value, label and correction"):
        Feedback.model_validate({"interaction_id": "a", "name": "n"})


def test_a_failed_assessment_has_no_value() -> None:
    with pytest.raises(ValidationError, match="value NULL"):
        Assessment(
            assessment_id="a",
            workload="triage",
            event_date=NOW.date(),
            name="n",
            kind="feedback",
            source_type="llm_judge",
            status="error",
            value=0.0,
            created_at=NOW,
        )


def test_a_naive_time_is_refused_and_another_zone_becomes_utc() -> None:
    body = {"interaction_id": "a", "name": "n", "value": True}
    with pytest.raises(ValidationError, match="timezone"):
        Feedback.model_validate({**body, "created_at": "2026-01-02T03:04:05"})
    moment = Feedback.model_validate({**body, "created_at": "2026-01-02T03:04:05+02:00"}).created_at
    assert moment == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC) and moment.tzinfo is UTC
