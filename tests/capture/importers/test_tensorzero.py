import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import JsonValue

from flywheel.capture.importers import tensorzero
from flywheel.errors import BadRecordError
from flywheel.records import Interaction
from tests.capture.importers.rows import (
    CALL,
    DEMONSTRATION,
    FEEDBACK,
    SOURCE,
    TENSORZERO,
    call_of,
    judgement_of,
    said,
)


def read(**changes: JsonValue) -> Interaction:
    return call_of(tensorzero.read({**TENSORZERO, **changes}, SOURCE))


def test_an_inference_keeps_its_id_which_carries_the_time() -> None:
    """0x01942e2688ab ms after 1970 is 2025-01-03 20:47:02.955."""
    call = read()
    assert call.interaction_id == TENSORZERO["id"]
    assert call.started_at == datetime.fromtimestamp(0x01942E2688AB / 1000, UTC)
    assert call.started_at.year == 2025
    assert call.conversation_id == TENSORZERO["episode_id"]
    assert (call.request_model, call.response_model) == ("triage", "baseline")
    assert (call.duration_ms, call.request_params) == (421, {"temperature": 0.5})


def test_blocks_become_messages_and_results_of_tools_messages_of_their_own() -> None:
    call = read()
    assert said(call) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My knee hurts."},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]
    assert call.response is not None
    assert call.response.content == "Rest it."


def test_a_json_functions_output_is_its_raw_text_and_its_schema_a_parameter() -> None:
    output = json.dumps({"raw": '{"a": 1}', "parsed": {"a": 1}})
    call = read(output=output, output_schema='{"type":"object"}')
    assert call.response is not None
    assert call.response.content == '{"a": 1}'
    schema = {"name": "triage", "schema": {"type": "object"}}
    assert call.request_params["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_a_user_named_in_tags_becomes_an_hmac() -> None:
    call = read()
    assert call.tags == {"ward": "3"}
    assert call.subject_key is not None
    assert "patient-7" not in call.model_dump_json()


@pytest.mark.parametrize(("value", "expected"), [(True, 1.0), (False, 0.0), (0.25, 0.25)])
def test_a_metric_is_feedback(value: JsonValue, expected: float) -> None:
    judged = judgement_of(tensorzero.read({**FEEDBACK, "value": value}, SOURCE))
    assert (judged.name, judged.kind, judged.value) == ("helpful", "feedback", expected)
    assert (judged.assessment_id, judged.interaction_id) == (FEEDBACK["id"], TENSORZERO["id"])


def test_a_demonstration_is_a_correction_under_the_workloads_label() -> None:
    judged = judgement_of(tensorzero.read(DEMONSTRATION, SOURCE))
    assert (judged.kind, judged.name) == ("correction", "urgency")
    assert judged.correction is not None
    assert judged.correction.content == "See somebody today."


def test_a_comment_is_kept_as_what_somebody_said() -> None:
    row = {key: value for key, value in FEEDBACK.items() if key != "metric_name"}
    judged = judgement_of(tensorzero.read({**row, "value": "too long"}, SOURCE))
    assert (judged.name, judged.value, judged.rationale) == ("comment", None, "too long")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**TENSORZERO, "id": 7}, "bad_id"),
        ({**TENSORZERO, "id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"}, "missing_timestamp"),
        ({**TENSORZERO, "output": None}, "no_response"),
        ({**TENSORZERO, "input": "{}"}, "bad_request"),
        ({**FEEDBACK, "target_id": ""}, "no_target"),
        ({**FEEDBACK, "value": None}, "bad_number"),
        ({**DEMONSTRATION, "value": "[]"}, "empty_correction"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(row: dict[str, JsonValue], reason: str) -> None:
    with pytest.raises(BadRecordError) as caught:
        tensorzero.read(row, SOURCE)
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", ["chat", "json"])
def test_the_projects_own_fixtures_are_read_but_for_those_without_an_answer(
    kind: str, shared_data: Path
) -> None:
    path = shared_data / "formats" / "tensorzero" / f"{kind}_datapoint_fixture.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answered = 0
    for row in rows:
        if row["output"] is None:
            with pytest.raises(BadRecordError, match="no_response"):
                tensorzero.read(row, SOURCE)
        else:
            call = call_of(tensorzero.read(row, SOURCE))
            answered += bool(call.response and call.response.text)
    assert answered == sum(row["output"] is not None for row in rows) > 0
