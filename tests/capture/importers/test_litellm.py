import hmac

import pytest
from pydantic import JsonValue

from flywheel.capture.importers import litellm
from flywheel.capture.importers.row import PassedOver
from flywheel.errors import BadRecordError
from flywheel.records import Interaction
from tests.capture.importers.rows import LITELLM, REQUEST, SOURCE, call_of, said


def read(**changes: JsonValue) -> Interaction:
    return call_of(litellm.read({**LITELLM, **changes}, SOURCE))


def test_a_payload_fills_the_columns() -> None:
    call = read()
    assert said(call) == REQUEST["messages"]
    assert (call.duration_ms, call.cost_usd, call.trace_id) == (1500, 0.002, "t-1")
    assert (call.input_tokens, call.output_tokens, call.cached_input_tokens) == (9, 4, 2)
    assert call.request_params == {"temperature": 0.5}
    assert call.tags["request_tags"] == ["ward-3"]


def test_neither_the_end_user_nor_an_address_is_stored() -> None:
    call = read()
    assert call.subject_key == hmac.new(b"secret", b"patient-7", "sha256").hexdigest()
    stored = call.model_dump_json()
    assert "patient-7" not in stored
    assert "203.0.113.9" not in stored


def test_calls_that_share_the_completions_id_are_still_two() -> None:
    """Local servers give every completion one id, and LiteLLM takes it for its own."""
    assert read().interaction_id != read(litellm_call_id="another").interaction_id


def test_zero_where_nobody_knew_is_null() -> None:
    call = read(prompt_tokens=0, completion_tokens=0, response_cost=0.0)
    assert (call.input_tokens, call.output_tokens, call.cost_usd) == (None, None, None)
    assert read(response_cost=0.0, cache_hit=True).cost_usd == 0.0


def test_the_first_token_of_an_answer_that_was_not_streamed_has_no_time() -> None:
    assert read().time_to_first_token_ms is None
    assert read(stream=True, completionStartTime=1767323045.5).time_to_first_token_ms == 250


def test_a_failure_keeps_its_class_and_message_and_no_traceback() -> None:
    problem: JsonValue = {
        "error_class": "RateLimitError",
        "error_message": "slow down",
        "traceback": "File /home/somebody/app.py",
    }
    call = read(status="failure", response={}, error_information=problem)
    assert (call.status, call.error_type, call.error_message) == (
        "error",
        "RateLimitError",
        "slow down",
    )
    assert "somebody" not in call.model_dump_json()


def test_what_is_no_chat_is_passed_over_and_what_was_not_logged_refused() -> None:
    assert litellm.read({**LITELLM, "call_type": "aembedding"}, SOURCE) == [
        PassedOver("call_type_aembedding")
    ]
    with pytest.raises(BadRecordError, match="no_response"):
        read(response={})
