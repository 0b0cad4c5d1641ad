"""OpenAI's bodies, and the two formats that wrap them differently."""

import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from flywheel.capture.importers import nvidia, openai, openpipe
from flywheel.capture.importers.row import PassedOver, Source
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject
from tests.capture.importers.rows import (
    CALL,
    COMPLETION,
    NOW,
    NVIDIA,
    OPENAI,
    OPENPIPE,
    REQUEST,
    SOURCE,
    TOOL,
    call_of,
    said,
)


def read(**changes: JsonValue) -> Any:
    return call_of(openai.read({**OPENAI, **changes}, SOURCE))


def completion(message: JsonObject, **choice: JsonValue) -> JsonObject:
    return {**COMPLETION, "choices": [{"index": 0, "message": message, **choice}]}


def test_a_pair_of_request_and_response_fills_the_columns() -> None:
    call = read()
    assert said(call) == REQUEST["messages"]
    assert call.response is not None
    assert call.response.content == "Rest it."
    assert (call.request_model, call.response_model) == ("small", "small-2026")
    assert (call.input_tokens, call.output_tokens) == (9, 4)
    assert (call.cached_input_tokens, call.reasoning_tokens) == (2, 1)
    assert (call.finish_reason, call.status, call.arm) == ("stop", "ok", "baseline")
    assert call.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (call.request_params, call.source) == ({"temperature": 0.5}, "import:openai")
    assert call.ingested_at == NOW


def test_the_same_content_has_the_same_id_however_it_is_written() -> None:
    reordered: JsonObject = {"response": dict(reversed(COMPLETION.items())), "request": REQUEST}
    assert call_of(openai.read(reordered, SOURCE)).interaction_id == read().interaction_id
    assert read(request={**REQUEST, "seed": 1}).interaction_id != read().interaction_id


def test_further_choices_are_alternatives_in_their_order() -> None:
    choices: list[JsonValue] = [
        {"index": index, "message": {"role": "assistant", "content": text}}
        for index, text in ((1, "second"), (0, "first"))
    ]
    call = read(response={**COMPLETION, "choices": choices})
    assert (call.response.content, call.alternatives[0].content) == ("first", "second")


def test_content_that_is_null_beside_tool_calls_stays_null() -> None:
    message: JsonObject = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    call = read(response=completion(message, finish_reason="tool_calls"))
    assert call.response.model_dump() == message


def chunk(delta: JsonObject, finish: str | None = None) -> JsonObject:
    choice: JsonObject = {"index": 0, "delta": delta, "finish_reason": finish}
    head: JsonObject = {"object": "chat.completion.chunk", "created": 1767323045, "model": "m"}
    return {**head, "choices": [choice]}


CHUNKS: list[JsonValue] = [
    chunk({"role": "assistant", "content": None, "tool_calls": None}),
    chunk({"tool_calls": [{**CALL, "index": 0, "function": {"name": "look", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]}, "tool_calls"),
]


@pytest.mark.parametrize("as_text", [False, True])
def test_streaming_chunks_are_put_together(as_text: bool) -> None:
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS) + "data: [DONE]\n\n"
    call = read(response=text if as_text else CHUNKS, timestamp=1767323045)
    assert call.response.model_dump()["tool_calls"] == [CALL]
    assert call.finish_reason == "tool_calls"


def test_missing_usage_is_null_and_not_zero() -> None:
    response = {key: value for key, value in COMPLETION.items() if key not in ("usage", "id")}
    call = read(response=response)
    assert (call.input_tokens, call.output_tokens, call.cost_usd) == (None, None, None)


def test_an_error_keeps_its_type_and_message() -> None:
    problem: JsonObject = {"error": {"type": "rate_limit", "message": "slow down"}}
    call = read(response=problem, timestamp=1767323045)
    assert (call.status, call.error_type, call.error_message) == (
        "error",
        "rate_limit",
        "slow down",
    )
    assert call.response is None


def test_a_person_becomes_an_hmac_or_nothing() -> None:
    request: JsonObject = {**REQUEST, "user": "patient-7", "metadata": {"user_id": "patient-7"}}
    call = read(request=request, tags={"email": "a@b.example", "ward": "3"})
    expected = hmac.new(b"secret", b"patient-7", "sha256").hexdigest()
    assert call.subject_key == expected
    assert "patient-7" not in call.model_dump_json()
    assert "a@b.example" not in call.model_dump_json()
    assert call.tags == {"ward": "3"}
    without = Source(workload="triage", now=NOW)
    row: JsonObject = {**OPENAI, "request": request}
    assert call_of(openai.read(row, without)).subject_key is None


def test_a_row_that_does_not_say_when_is_refused_unless_a_time_is_assumed() -> None:
    """A time made up at import would differ the next time, and the row come in twice."""
    row: JsonObject = {"request": REQUEST, "response": {**COMPLETION, "created": 0}}
    with pytest.raises(BadRecordError, match="--assume-time"):
        openai.read(row, SOURCE)
    assumed = Source(workload="triage", assumed_time=NOW)
    assert call_of(openai.read(row, assumed)).started_at == NOW


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"request": None}, "bad_request"),
        ({"request": {"model": "m"}}, "bad_request"),
        ({"request": {"messages": ["hi"]}}, "bad_message"),
        ({"request": {"messages": [{"content": "hi"}]}}, "bad_message"),
        ({"response": None}, "no_response"),
        ({"response": {"choices": []}}, "no_response"),
        ({"response": 7}, "bad_response"),
        ({"response": "<html>"}, "bad_response"),
        ({"response": "data: {\n\n"}, "bad_response"),
        ({"timestamp": "yesterday"}, "bad_timestamp"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(changes: JsonObject, reason: str) -> None:
    with pytest.raises(BadRecordError) as caught:
        read(**changes)
    assert caught.value.reason == reason


def test_an_answer_of_a_batch_finds_its_request() -> None:
    asked: JsonObject = {"custom_id": "a", "method": "POST", "url": "/v1", "body": REQUEST}
    answered: JsonObject = {
        "id": "batch_req_1",
        "custom_id": "a",
        "response": {"status_code": 200, "body": COMPLETION},
        "error": None,
    }
    requests = dict(openai.requests_of(asked))
    source = Source(workload="triage", joined=lambda key: [requests[key]])
    call = call_of(openai.read(answered, source))
    assert said(call) == REQUEST["messages"]
    assert call.tags == {"log_id": "a"}
    assert openai.read(asked, source) == [PassedOver("batch_request")]
    failed: JsonObject = {**answered, "response": None, "error": {"message": "expired"}}
    assumed = Source(workload="triage", joined=lambda key: [requests[key]], assumed_time=NOW)
    assert call_of(openai.read(failed, assumed)).error_message == "expired"


def test_an_answer_of_a_batch_without_its_input_file_says_what_is_missing() -> None:
    answered: JsonObject = {"custom_id": "a", "response": {"body": COMPLETION}}
    with pytest.raises(BadRecordError, match="input file"):
        openai.read(answered, SOURCE)
    two: list[JsonObject] = [REQUEST, {**REQUEST, "seed": 1}]
    with pytest.raises(BadRecordError, match="one batch at a time"):
        openai.read(answered, Source(workload="triage", joined=lambda key: two))


def test_the_responses_api_is_read_too() -> None:
    request: JsonObject = {"model": "small", "instructions": "Be brief.", "input": "My knee hurts."}
    response: JsonObject = {
        "object": "response",
        "created_at": 1767323045,
        "status": "completed",
        "model": "small-2026",
        "output": [
            {"type": "reasoning", "summary": []},
            {
                "type": "function_call",
                "call_id": "call_1",
                "name": "look",
                "arguments": '{"city":"Paris"}',
            },
            {"type": "message", "content": [{"type": "output_text", "text": "Rest it."}]},
        ],
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }
    call = read(request=request, response=response)
    assert [message["role"] for message in said(call)] == ["system", "user"]
    assert call.response.model_dump() == {
        "role": "assistant",
        "content": "Rest it.",
        "tool_calls": [CALL],
    }
    assert call.input_tokens == 9


def test_nvidias_timestamp_is_in_seconds() -> None:
    """1715854074 s is 16 May 2024; read as milliseconds it would be 20 January 1970."""
    call = call_of(nvidia.read(NVIDIA, SOURCE))
    assert call.started_at == datetime(2024, 5, 16, 10, 7, 54, tzinfo=UTC)
    assert call.tags == {"workload_id": "help", "client_id": "dev"}
    assert call.tools == (TOOL,)
    in_ms = call_of(nvidia.read({**NVIDIA, "timestamp": 1715854074123}, SOURCE))
    assert in_ms.started_at == datetime(2024, 5, 16, 10, 7, 54, 123000, tzinfo=UTC)


@pytest.mark.parametrize("arguments", ['{"city":"Paris"}', {"city": "Paris"}])
def test_tool_arguments_are_text_however_they_were_logged(arguments: JsonValue) -> None:
    logged: JsonObject = {**CALL, "function": {"name": "look", "arguments": arguments}}
    message: JsonObject = {"role": "assistant", "content": None, "tool_calls": [logged]}
    answer: JsonObject = {"choices": [{"message": message}]}
    call = call_of(nvidia.read({**NVIDIA, "response": answer}, SOURCE))
    assert call.response is not None
    assert call.response.model_dump()["tool_calls"] == [CALL]


def test_openpipe_keeps_its_tags() -> None:
    call = call_of(openpipe.read(OPENPIPE, SOURCE))
    assert (call.tags, call.source) == ({"prompt": "v3"}, "import:openpipe")
    reported: JsonObject = {
        "reqPayload": REQUEST,
        "respPayload": None,
        "requestedAt": 1767323045000,
        "receivedAt": 1767323045250,
        "statusCode": 500,
        "errorMessage": "boom",
    }
    failed = call_of(openpipe.read(reported, SOURCE))
    assert (failed.error_type, failed.error_message) == ("http_500", "boom")
    assert failed.duration_ms == 250


def test_openais_and_nvidias_own_examples_are_read(shared_data: Path) -> None:
    formats = shared_data / "formats"
    for name in ("chat_completions_example.json", "chat_completions_function_example.json"):
        response = json.loads((formats / "openai" / name).read_text(encoding="utf-8"))
        assert read(response=response).response.role == "assistant"
    path = formats / "openai" / "chat_completions_streaming_function_example.jsonl"
    chunks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    [made] = read(response=chunks).response.tool_calls
    assert json.loads(made["function"]["arguments"])["answer"]
    rows = json.loads((formats / "nvidia" / "chat_completion.json").read_text(encoding="utf-8"))
    for row in rows:
        call = call_of(nvidia.read({**row, "timestamp": 1715854074}, SOURCE))
        assert call.response is not None
        assert call.response.model_dump() == row["response"]["choices"][0]["message"]
