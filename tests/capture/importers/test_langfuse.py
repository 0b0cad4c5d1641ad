import json
from datetime import UTC, datetime

import pytest
from pydantic import JsonValue

from flywheel.capture.importers import langfuse
from flywheel.capture.importers.row import PassedOver, derived_id
from flywheel.errors import BadRecordError
from flywheel.records import Interaction, JsonObject
from tests.capture.importers.rows import LANGFUSE, REQUEST, SOURCE, call_of, judgement_of, said

SCORE: JsonObject = {
    "id": "s-9",
    "trace_id": "trace-1",
    "observation_id": "obs-1",
    "name": "tone",
    "value": 2,
    "data_type": "CATEGORICAL",
    "string_value": "friendly",
    "source": "EVAL",
    "timestamp": "2026-01-03 00:00:00.000000",
}


def read(**changes: JsonValue) -> Interaction:
    return call_of(langfuse.read({**LANGFUSE, **changes}, SOURCE))


def test_a_generation_fills_the_columns() -> None:
    call = read()
    assert said(call) == REQUEST["messages"]
    assert call.response is not None
    assert call.response.content == "Rest it."
    assert call.started_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert (call.duration_ms, call.time_to_first_token_ms) == (1000, 500)
    assert (call.input_tokens, call.output_tokens, call.cost_usd) == (9, 4, 0.002)
    assert (call.conversation_id, call.trace_id) == ("trace-1", "trace-1")
    assert "patient-7" not in call.model_dump_json()


def test_the_blob_exports_spelling_is_the_same_call() -> None:
    blob: JsonObject = {
        "id": "obs-1",
        "trace_id": "trace-1",
        "type": "GENERATION",
        "start_time": "2026-01-02 03:04:05.678000",
        "end_time": "2026-01-02 03:04:06.678000",
        "completion_start_time": "2026-01-02 03:04:06.178000",
        "provided_model_name": "small",
        "model_parameters": json.dumps({"temperature": 0.5}),
        "input": json.dumps(REQUEST["messages"]),
        "output": json.dumps({"role": "assistant", "content": "Rest it."}),
        "usage_details": {"input": 9, "output": 4},
        "total_cost": 0.002,
        "user_id": "patient-7",
        "level": "DEFAULT",
    }
    assert call_of(langfuse.read(blob, SOURCE)) == read()


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        ("My knee hurts.", REQUEST["messages"]),
        ({"messages": REQUEST["messages"], "tools": []}, REQUEST["messages"]),
        ({"topic": "knee"}, [{"role": "user", "content": '{"topic":"knee"}'}]),
    ],
)
def test_input_may_be_text_a_request_or_anything(asked: JsonValue, messages: JsonValue) -> None:
    assert said(read(input=asked)) == messages


def test_output_may_be_text_or_what_an_sdk_parsed() -> None:
    text, parsed = read(output="Rest it.").response, read(output={"urgency": "low"}).response
    assert text is not None and parsed is not None
    assert (text.content, parsed.content) == ("Rest it.", '{"urgency":"low"}')


def test_an_observation_at_level_error_is_an_error() -> None:
    call = read(level="ERROR", statusMessage="timeout", output=None)
    assert (call.status, call.error_message, call.response) == ("error", "timeout", None)


def test_a_score_in_an_observation_judges_it() -> None:
    judged = judgement_of(langfuse.read(LANGFUSE, SOURCE))
    assert judged.interaction_id == read().interaction_id
    assert (judged.name, judged.value, judged.source_type) == ("helpful", 1.0, "human")
    assert judged.rationale == "clear"


def test_a_categorical_score_is_a_label_and_not_the_index_of_one() -> None:
    judged = judgement_of(langfuse.read(SCORE, SOURCE))
    assert (judged.label, judged.value, judged.source_type) == ("friendly", None, "llm_judge")
    assert judged.interaction_id == derived_id("langfuse", "obs-1") == read().interaction_id


def test_a_score_of_a_trace_waits_for_its_call_and_one_of_nothing_is_refused() -> None:
    judged = judgement_of(langfuse.read({**SCORE, "observation_id": None}, SOURCE))
    assert (judged.interaction_id, judged.conversation_id) == (None, "trace-1")
    with pytest.raises(BadRecordError, match="no_target"):
        langfuse.read({**SCORE, "observation_id": None, "trace_id": None}, SOURCE)


def test_other_observations_are_passed_over() -> None:
    row: JsonObject = {**LANGFUSE, "type": "SPAN"}
    assert langfuse.read(row, SOURCE) == [PassedOver("observation_SPAN")]
