"""Spans in each dialect, hand-made and as real emitters wrote them (data/README.md)."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from flywheel.capture.importers import Source, import_files, otlp
from flywheel.capture.importers.row import PassedOver, Rejected
from flywheel.capture.importers.spans import spans_of_json, spans_of_protobuf
from flywheel.lake import Lake
from flywheel.records import Interaction
from tests.capture.importers.rows import (
    CALL,
    GENAI,
    REQUEST,
    SOURCE,
    TOOL,
    attribute,
    call_of,
    judgement_of,
    said,
)
from tests.capture.importers.rows import (
    otlp as document,
)

DATA = Path(__file__).with_name("data")


def read(attributes: dict[str, object], **fields: object) -> Interaction:
    return call_of(otlp.read(document(attributes, **fields), SOURCE))


def changed(**attributes: object) -> dict[str, object]:
    return GENAI | {key.replace("__", "."): value for key, value in attributes.items()}


BASE = {key: value for key, value in GENAI.items() if "messages" not in key}


def test_a_span_of_the_current_conventions_fills_the_columns() -> None:
    call = read(GENAI)
    assert said(call) == REQUEST["messages"]
    assert call.response is not None
    assert call.response.model_dump() == {"role": "assistant", "content": "Rest it."}
    assert (call.request_model, call.response_model, call.provider) == (
        "small",
        "small-2026",
        "openai",
    )
    assert (call.input_tokens, call.output_tokens, call.duration_ms) == (9, 4, 1500)
    assert (call.conversation_id, call.finish_reason) == ("c-1", "stop")
    assert call.request_params == {"temperature": 0.5}
    assert call.trace_id == "5b8efff798038103d269b633813fc60c"
    assert call.tags == {"service.name": "ward"}


def test_messages_may_be_structured_instead_of_text() -> None:
    """On spans the conventions prefer structure; SDKs that cannot nest write JSON."""
    parts = {"type": "text", "content": "My knee hurts."}
    pairs = [attribute(key, value) for key, value in parts.items()]
    part = {"kvlistValue": {"values": pairs}}
    message = {
        "kvlistValue": {
            "values": [
                attribute("role", "user"),
                {"key": "parts", "value": {"arrayValue": {"values": [part]}}},
            ]
        }
    }
    value = {"arrayValue": {"values": [message]}}
    row: Any = document({k: v for k, v in GENAI.items() if k != "gen_ai.input.messages"})
    span = row["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span["attributes"].append({"key": "gen_ai.input.messages", "value": value})
    assert said(call_of(otlp.read(row, SOURCE))) == REQUEST["messages"]


def test_system_instructions_come_first_and_tools_are_openais() -> None:
    system = json.dumps([{"type": "text", "content": "Be brief."}])
    function: Any = TOOL["function"]
    tools = json.dumps([{"type": "function", **function}])
    call = read(changed(gen_ai__system_instructions=system, gen_ai__tool__definitions=tools))
    assert said(call)[0] == {"role": "system", "content": "Be brief."}
    assert call.tools == (TOOL,)


@pytest.mark.parametrize("name", ["response", "result"])
def test_a_tools_answer_is_under_the_new_name_or_the_old(name: str) -> None:
    part = {"type": "tool_call_response", "id": "call_1", name: {"sky": "grey"}}
    asked = json.dumps([{"role": "tool", "parts": [part]}])
    [message] = said(read(changed(gen_ai__input__messages=asked)))
    assert message == {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "grey"}'}


def test_one_message_that_answers_two_calls_becomes_two() -> None:
    parts = [{"type": "tool_call_response", "id": f"call_{n}", "response": "x"} for n in (1, 2)]
    asked = json.dumps([{"role": "tool", "parts": parts}])
    messages = said(read(changed(gen_ai__input__messages=asked)))
    assert [message["tool_call_id"] for message in messages] == ["call_1", "call_2"]


def test_attributes_with_an_index_a_message_are_read() -> None:
    """As OpenLLMetry writes what was `gen_ai.prompt` before 1.37."""
    call = read(
        {
            "gen_ai.system": "openai",
            "gen_ai.request.model": "small",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "What is it?"}]',
            "gen_ai.prompt.10.role": "tool",
            "gen_ai.prompt.10.content": "rain",
            "gen_ai.prompt.10.tool_call_id": "call_1",
            "gen_ai.prompt.2.role": "assistant",
            "gen_ai.prompt.2.tool_calls.0.id": "call_1",
            "gen_ai.prompt.2.tool_calls.0.name": "look",
            "gen_ai.prompt.2.tool_calls.0.arguments": '{"city":"Paris"}',
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "Rest it.",
            "gen_ai.completion.0.finish_reason": "length",
            "gen_ai.usage.prompt_tokens": 9,
            "gen_ai.usage.completion_tokens": 4,
        }
    )
    assert said(call) == [
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]
    assert (call.status, call.finish_reason) == ("truncated", "length")
    assert (call.input_tokens, call.output_tokens) == (9, 4)


def test_an_event_a_message_is_read_from_the_span() -> None:
    events = [
        {"name": "gen_ai.user.message", "attributes": [attribute("content", "My knee hurts.")]},
        {
            "name": "gen_ai.choice",
            "attributes": [
                attribute("index", 0),
                attribute("finish_reason", "stop"),
                attribute("message", '{"role": "assistant", "content": "Rest it."}'),
            ],
        },
    ]
    call = read(BASE, events=events)
    assert said(call) == REQUEST["messages"]
    assert call.response is not None
    assert call.response.content == "Rest it."


def test_openinference_in_pieces_is_read_where_the_bodies_are_hidden() -> None:
    call = read(
        {
            "openinference.span.kind": "LLM",
            "input.value": "__REDACTED__",
            "llm.model_name": "small-2026",
            "llm.invocation_parameters": '{"model": "small", "temperature": 0.5, "user": "p-7"}',
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "What?",
            "llm.input_messages.0.message.contents.1.message_content.type": "image",
            "llm.input_messages.0.message.contents.1.message_content.image.image.url": "https://a",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.tool_calls.0.tool_call.id": "call_1",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "look",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": (
                '{"city":"Paris"}'
            ),
            "llm.tools.0.tool.json_schema": json.dumps(TOOL),
            "llm.token_count.prompt": 9,
        }
    )
    assert said(call)[0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "https://a"}},
    ]
    assert call.response is not None
    assert call.response.tool_calls == [CALL]
    assert (call.request_model, call.input_tokens, call.tools) == ("small", 9, (TOOL,))
    assert call.request_params == {"temperature": 0.5}, "and no user"


def test_a_failed_span_keeps_what_went_wrong() -> None:
    call = read(BASE | {"error.type": "timeout"}, status={"code": 2, "message": "too slow"})
    assert (call.status, call.error_type, call.error_message) == ("error", "timeout", "too slow")
    assert call.tags["content"] == "not recorded"


def test_calls_that_an_answer_ended_with_and_does_not_have_make_it_no_answer() -> None:
    """Else an empty answer would be learnt from."""
    call = read(changed(gen_ai__response__finish_reasons=["tool_calls"]))
    assert (call.status, call.error_type, call.response) == (
        "error",
        "tool_calls_not_recorded",
        None,
    )


def test_an_evaluation_becomes_an_assessment_of_its_call() -> None:
    event = {
        "name": "gen_ai.evaluation.result",
        "timeUnixNano": "1767323047000000000",
        "attributes": [
            attribute("gen_ai.evaluation.name", "relevance"),
            attribute("gen_ai.evaluation.score.value", 0.75),
            attribute("gen_ai.evaluation.score.label", "pass"),
            attribute("gen_ai.evaluation.explanation", "to the point"),
        ],
    }
    row = document(GENAI, events=[event])
    judged = judgement_of(otlp.read(row, SOURCE))
    assert judged.interaction_id == call_of(otlp.read(row, SOURCE)).interaction_id
    assert (judged.name, judged.value, judged.label) == ("relevance", 0.75, "pass")
    assert judged.rationale == "to the point"


def test_other_spans_are_passed_over_and_a_bad_one_is_rejected_alone() -> None:
    assert otlp.read(document({"http.request.method": "GET"}), SOURCE) == [PassedOver("other_span")]
    row: Any = document(GENAI)
    spans = row["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans.append({**spans[0], "spanId": "0000000000000000"})
    good, bad = otlp.read(row, SOURCE)
    assert isinstance(good, Interaction) and isinstance(bad, Rejected)
    assert (bad.reason, b"My knee hurts." in bad.payload) == ("bad_span_ids", True)


def test_a_workload_named_by_a_span_is_one_of_those_allowed() -> None:
    source = Source(workload="triage", workloads=frozenset({"letters"}))
    named = document(changed(flywheel__workload="letters"))
    assert call_of(otlp.read(named, source)).workload == "letters"
    [refused] = otlp.read(document(changed(flywheel__workload="other")), source)
    assert isinstance(refused, Rejected) and refused.reason == "unknown_workload"
    assert call_of(otlp.read(named, SOURCE)).workload == "triage", "a file is whose one says it is"


def test_protobuf_and_json_give_the_same_spans() -> None:
    events = [{"name": "e", "timeUnixNano": "1", "attributes": [attribute("n", 1.5)]}]
    row = document(changed(a__bool=True, a__list=["x", "y"]), events=events, status={"code": 2})
    encoded: Any = json.loads(json.dumps(row))
    for span in encoded["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId"):  # protobuf's own JSON has base64 where OTLP has hex
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    data = ParseDict(encoded, ExportTraceServiceRequest()).SerializeToString()
    assert list(spans_of_protobuf(data)) == list(spans_of_json(row))


EMITTERS = {
    "openai_v2-2.4b0": ["openai_v2-2.4b0.pb"],
    "openai_v2-2.3b0": ["openai_v2-2.3b0.spans.jsonl", "openai_v2-2.3b0.logs.jsonl"],
    "openinference-openai-0.1.66": ["openinference-openai-0.1.66.pb"],
    "mlflow-3.17.2": ["mlflow-3.17.2.pb"],
    "mlflow-3.17.2-semconv": ["mlflow-3.17.2-semconv.pb"],
    "litellm-1.106.2": ["litellm-1.106.2.jsonl"],
}
"""Each made the same seven calls to the same mock server; data/README.md."""


@pytest.mark.parametrize("emitter", EMITTERS)
def test_what_real_emitters_wrote_of_seven_calls_is_read(emitter: str, lake: Lake) -> None:
    source = Source(workload="triage", subject_secret=b"secret")
    paths = [DATA / name for name in EMITTERS[emitter]]
    report = import_files(lake, paths, source)
    assert (report.interactions, report.quarantined) == (7, 0)
    again = import_files(lake, paths, source)
    assert (again.interactions, again.duplicates) == (0, 7)
    calls = lake.fetch(Interaction, "SELECT * FROM interactions ORDER BY started_at")
    plain, two, answered, streamed, streamed_tool, image, failed = calls
    assert said(plain) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
    ]
    assert plain.response is not None and plain.response.content == "It rains. (0)"
    assert (plain.input_tokens, plain.output_tokens) == (12, 5)
    assert (plain.request_model, plain.response_model) == ("mock-model", "mock-model-2026")
    assert plain.request_params["temperature"] == 0.2
    for call in (two, streamed_tool):
        assert call.response is not None and call.response.tool_calls
        [made] = call.response.tool_calls
        assert made["function"] == {"name": "get_weather", "arguments": '{"city":"Paris"}'}
        assert call.finish_reason == "tool_calls"
    assert len(two.alternatives) == 1
    assert [message.role for message in answered.messages] == ["user", "assistant", "tool"]
    assert answered.messages[2].content == "rainy, 12 C"
    assert streamed.response is not None and streamed.response.content == "It rains. (0) "
    assert (failed.status, failed.response) == ("error", None)
    assert "no such thing" in (failed.error_message or "")
    if emitter != "openai_v2-2.4b0":  # which leaves out what is not text
        assert "https://example.com/a.png" in image.model_dump_json()


def test_litellms_end_user_and_address_are_nowhere_in_the_lake(lake: Lake, tmp_path: Path) -> None:
    paths = [DATA / "litellm-1.106.2.jsonl"]
    import_files(lake, paths, Source(workload="triage", subject_secret=b"secret"))
    for file in Path(lake.root).rglob("*"):
        if file.is_file():
            assert b"patient-7" not in file.read_bytes()
            assert b"203.0.113.9" not in file.read_bytes()
