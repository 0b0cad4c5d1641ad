import json
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.capture.parse import to_assessment, to_interaction
from flywheel.errors import BadRecordError
from flywheel.records import Message
from tests.capture.records import STARTED, completion, exchange, feedback

CHUNK = 'data: {"model":"base","choices":[{"index":0,"delta":{"content":"Rest"}}]}\n\n'


def test_a_call_becomes_a_row_with_every_field() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    request = {
        "model": "triage",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": [{"type": "text", "text": "My knee"}], "x": 1},
        ],
        "tools": tools,
        "temperature": 0.5,
        "unknown": {"kept": True},
    }
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    call = exchange(
        request=json.dumps(request),
        response=json.dumps(completion(model="triage-abc", usage=usage)),
        served_model="triage-abc",
        adapter="triage-abc",
        conversation_id="c1",
        trace_id="t" * 32,
    )
    row = to_interaction(call, ingested_at=STARTED)
    assert row.interaction_id == call.interaction_id
    assert row.event_date == STARTED.date()
    assert (row.conversation_id, row.turn_index, row.trace_id) == ("c1", 1, "t" * 32)
    assert (row.request_model, row.response_model, row.adapter) == (
        "triage",
        "triage-abc",
        "triage-abc",
    )
    assert [message.model_dump() for message in row.messages] == request["messages"]
    assert row.tools == tuple(tools)
    assert row.request_params == {"temperature": 0.5, "unknown": {"kept": True}}
    assert row.response == Message(role="assistant", content="Rest it.")
    assert (row.input_tokens, row.output_tokens) == (30, 20)
    assert (row.cached_input_tokens, row.reasoning_tokens) == (10, 5)
    assert (row.status, row.finish_reason, row.source) == ("ok", "stop", "gateway")


def test_a_call_without_a_conversation_is_one_of_its_own() -> None:
    call = exchange()
    assert to_interaction(call).conversation_id == call.interaction_id


def test_further_choices_are_alternatives() -> None:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in ((2, "c"), (0, "a"), (1, "b"))
    ]
    row = to_interaction(exchange(response=json.dumps(completion(choices=choices))))
    assert row.response is not None
    assert [row.response.text, *(m.text for m in row.alternatives)] == ["a", "b", "c"]


def test_an_answer_cut_by_max_tokens_is_truncated() -> None:
    choices = [{"message": {"role": "assistant", "content": "Re"}, "finish_reason": "length"}]
    row = to_interaction(exchange(response=json.dumps(completion(choices=choices))))
    assert (row.status, row.finish_reason) == ("truncated", "length")


def test_usage_that_was_not_reported_is_null_and_not_zero() -> None:
    row = to_interaction(exchange(response=json.dumps(completion(usage=None))))
    assert (row.input_tokens, row.output_tokens) == (None, None)


def test_a_stream_that_was_cancelled_keeps_what_was_sent() -> None:
    call = exchange(
        response=CHUNK + 'data: {"cho', streamed=True, status="cancelled", error_type="gone"
    )
    row = to_interaction(call)
    assert row.response == Message(role="assistant", content="Rest")
    assert (row.status, row.error_type, row.finish_reason) == ("cancelled", "gone", None)


def test_a_stream_that_ends_without_a_finish_is_an_error_and_not_an_answer() -> None:
    row = to_interaction(exchange(response=CHUNK, streamed=True))
    assert (row.status, row.error_type) == ("error", "incomplete_stream")


def test_an_error_event_in_a_stream_is_an_error() -> None:
    event = 'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n'
    row = to_interaction(exchange(response=CHUNK + event, streamed=True))
    assert (row.status, row.error_type, row.error_message) == (
        "error",
        "server_error",
        "out of memory",
    )


@pytest.mark.parametrize(
    ("body", "error_type", "message"),
    [
        ('{"error":{"message":"too long","type":"bad","code":400}}', "bad", "too long"),
        ('{"object":"error","message":"too long","type":"BadRequest"}', "BadRequest", "too long"),
        ('{"detail":"too long"}', "http_400", "too long"),
        ('{"error":"too long"}', "http_400", "too long"),
        ("<html>too long</html>", "http_400", "<html>too long</html>"),
    ],
)
def test_an_upstream_error_keeps_its_type_and_its_sentence(
    body: str, error_type: str, message: str
) -> None:
    row = to_interaction(exchange(response=body, http_status=400, status="error"))
    assert (row.status, row.error_type, row.error_message) == ("error", error_type, message)
    assert row.response is None


def test_a_call_that_reached_no_model_server_is_an_error_with_the_gateways_reason() -> None:
    call = exchange(
        response="",
        http_status=None,
        status="error",
        error_type="upstream_unavailable",
        error_message="connection refused",
    )
    row = to_interaction(call)
    assert (row.error_type, row.error_message) == ("upstream_unavailable", "connection refused")


def test_a_request_the_server_refused_for_its_messages_is_kept_without_them() -> None:
    call = exchange(request='{"model":"triage"}', response='{"error":{}}', status="error")
    assert to_interaction(call).messages == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request": "{"}, "bad_request"),
        ({"request": "[]"}, "bad_request"),
        ({"request": '{"messages":[{"content":1}]}'}, "invalid_record"),
        ({"request": '{"messages":[],"top_p":NaN}'}, "bad_request"),
        ({"response": "<html>"}, "bad_response"),
        ({"response": "{}"}, "bad_response"),
        ({"response": "[]"}, "bad_response"),
        ({"response": '{"choices":[{"message":7}]}'}, "invalid_record"),
        ({"response": "data: <html>\n\n", "streamed": True}, "bad_response"),
        ({"response": "AP8=", "tags": {"response_encoding": "base64"}}, "bad_response"),
    ],
)
def test_what_cannot_be_read_says_why(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(BadRecordError) as caught:
        to_interaction(exchange(**fields))
    assert caught.value.reason == reason


def test_a_persons_identifier_in_a_request_is_never_kept() -> None:
    request = {"messages": [], "user": "grace@example.org", "safety_identifier": "grace"}
    row = to_interaction(exchange(request=json.dumps(request)))
    assert "grace" not in row.model_dump_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["messages", "tools", "user", "n"]), json_values),
    st.dictionaries(st.sampled_from(["choices", "usage", "error", "model"]), json_values),
    st.booleans(),
)
def test_no_json_makes_the_parser_fail_otherwise(
    request: dict[str, object], response: dict[str, object], streamed: bool
) -> None:
    text = json.dumps(response)
    call = exchange(
        request=json.dumps(request),
        response=f"data: {text}\n\n" if streamed else text,
        streamed=streamed,
    )
    with suppress(BadRecordError):
        to_interaction(call)


def test_feedback_becomes_a_judgement() -> None:
    judged = feedback(comment="too soft", source_type="human", source_id="dr-1", label="urgent")
    row = to_assessment(judged, workload="triage", received_at=STARTED)
    assert row.kind == "correction"
    assert row.correction == Message(role="assistant", content="See a doctor today.")
    assert (row.rationale, row.source_type, row.source_id) == ("too soft", "human", "dr-1")
    assert (row.workload, row.label, row.value) == ("triage", "urgent", None)
    assert (row.event_date, row.created_at) == (STARTED.date(), STARTED)


@pytest.mark.parametrize(("value", "stored"), [(True, 1.0), (False, 0.0), (3, 3.0), (0.5, 0.5)])
def test_a_rating_is_a_number(value: float, stored: float) -> None:
    row = to_assessment(
        feedback(correction=None, value=value), workload="triage", received_at=STARTED
    )
    assert (row.kind, row.value) == ("feedback", stored)


def test_feedback_without_a_time_takes_that_of_its_segment() -> None:
    later = STARTED + timedelta(days=1)
    row = to_assessment(feedback(created_at=None), workload="triage", received_at=later)
    assert (row.created_at, row.event_date) == (later, later.date())
