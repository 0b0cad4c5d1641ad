"""One good row of each format, as its documentation (or a real emitter) writes it."""

import json
from datetime import UTC, datetime

from flywheel.capture.importers.row import Outcome, Source
from flywheel.records import Assessment, Interaction, JsonObject

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SOURCE = Source(workload="triage", subject_secret=b"secret", now=NOW, label_name="urgency")
TRACE_ID, SPAN_ID = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
CALL: JsonObject = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"city":"Paris"}'},
}
TOOL: JsonObject = {
    "type": "function",
    "function": {"name": "look", "description": "Looks", "parameters": {"type": "object"}},
}
REQUEST: JsonObject = {
    "model": "small",
    "messages": [{"role": "user", "content": "My knee hurts."}],
    "temperature": 0.5,
}
COMPLETION: JsonObject = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1767323045,
    "model": "small-2026",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Rest it."},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    },
}
OPENAI: JsonObject = {"request": REQUEST, "response": COMPLETION}
NVIDIA: JsonObject = {
    "timestamp": 1715854074,
    "workload_id": "help",
    "client_id": "dev",
    "request": {**REQUEST, "tools": [TOOL]},
    "response": {"choices": [{"message": {"role": "assistant", "content": "Rest it."}}]},
}
OPENPIPE: JsonObject = {"input": REQUEST, "output": COMPLETION, "tags": {"prompt": "v3"}}
LITELLM: JsonObject = {
    "id": "chatcmpl-1",
    "litellm_call_id": "3b0c009c-5193-45c8-ae70-8f9813134f93",
    "trace_id": "t-1",
    "call_type": "acompletion",
    "status": "success",
    "messages": REQUEST["messages"],
    "response": COMPLETION,
    "model": "small",
    "model_parameters": {"temperature": 0.5, "user": "patient-7"},
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "startTime": 1767323045.25,
    "endTime": 1767323046.75,
    "completionStartTime": 1767323046.75,
    "response_cost": 0.002,
    "end_user": "patient-7",
    "requester_ip_address": "203.0.113.9",
    "request_tags": ["ward-3"],
    "metadata": {"requester_ip_address": "203.0.113.9"},
}
LANGFUSE: JsonObject = {
    "id": "obs-1",
    "traceId": "trace-1",
    "type": "GENERATION",
    "startTime": "2026-01-02T03:04:05.678Z",
    "completionStartTime": "2026-01-02T03:04:06.178Z",
    "endTime": "2026-01-02T03:04:06.678Z",
    "model": "small",
    "modelParameters": {"temperature": 0.5},
    "input": REQUEST["messages"],
    "output": {"role": "assistant", "content": "Rest it."},
    "usageDetails": {"input": 9, "output": 4, "total": 13},
    "costDetails": {"total": 0.002},
    "level": "DEFAULT",
    "userId": "patient-7",
    "scores": [
        {
            "id": "s-1",
            "traceId": "trace-1",
            "name": "helpful",
            "value": 1,
            "dataType": "BOOLEAN",
            "source": "ANNOTATION",
            "comment": "clear",
            "timestamp": "2026-01-03T00:00:00Z",
        }
    ],
}
TENSORZERO: JsonObject = {
    "id": "01942e26-88ab-7331-8293-de75cc2b88a7",
    "function_name": "triage",
    "variant_name": "baseline",
    "episode_id": "01942e26-51eb-7d12-82d5-c639332d11ff",
    "input": json.dumps(
        {
            "system": "Be brief.",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "My knee hurts."}]},
                {
                    "role": "assistant",
                    "content": [
                        {
                            "type": "tool_call",
                            "id": "call_1",
                            "name": "look",
                            "arguments": '{"city":"Paris"}',
                        }
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "id": "call_1", "name": "look", "result": "rain"}
                    ],
                },
            ],
        }
    ),
    "output": json.dumps([{"type": "text", "text": "Rest it."}]),
    "tool_params": "",
    "inference_params": json.dumps({"chat_completion": {"temperature": 0.5}}),
    "processing_time_ms": 421,
    "tags": {"user_id": "patient-7", "ward": "3"},
}
FEEDBACK: JsonObject = {
    "id": "01968d2c-553d-7cd3-a803-fd524120010e",
    "target_id": TENSORZERO["id"],
    "metric_name": "helpful",
    "value": True,
    "tags": {},
}
DEMONSTRATION: JsonObject = {
    "id": "0193fbb4-c749-72f3-b1ca-be79eec50c91",
    "inference_id": TENSORZERO["id"],
    "value": json.dumps([{"type": "text", "text": "See somebody today."}]),
    "tags": {},
}


def attribute(key: str, value: object) -> JsonObject:
    """A pair of OTLP/JSON."""
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    if isinstance(value, list):
        values = [{"stringValue": item} for item in value]
        return {"key": key, "value": {"arrayValue": {"values": [*values]}}}
    written = str(value) if type(value) is int else value
    return {"key": key, "value": {kinds[type(value)]: written}}  # type: ignore[dict-item]


def otlp(attributes: dict[str, object], **fields: object) -> JsonObject:
    """A document of one span."""
    span: dict[str, object] = {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "chat small",
        "startTimeUnixNano": "1767323045000000000",
        "endTimeUnixNano": "1767323046500000000",
        "attributes": [attribute(key, value) for key, value in attributes.items()],
        "status": {},
    }
    whole: JsonObject = json.loads(json.dumps({**span, **fields}))
    resource: JsonObject = {"attributes": [attribute("service.name", "ward")]}
    scope: JsonObject = {"spans": [whole]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


GENAI: dict[str, object] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "small",
    "gen_ai.response.model": "small-2026",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 4,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.conversation.id": "c-1",
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "My knee hurts."}]}]
    ),
    "gen_ai.output.messages": json.dumps(
        [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": "Rest it."}],
                "finish_reason": "stop",
            }
        ]
    ),
}
OTLP = otlp(GENAI)


def call_of(outcomes: list[Outcome]) -> Interaction:
    """The one interaction."""
    [found] = [outcome for outcome in outcomes if isinstance(outcome, Interaction)]
    return found


def judgement_of(outcomes: list[Outcome]) -> Assessment:
    """The one assessment."""
    [found] = [outcome for outcome in outcomes if isinstance(outcome, Assessment)]
    return found


def said(call: Interaction) -> list[JsonObject]:
    """The messages as OpenAI writes them."""
    return [message.model_dump() for message in call.messages]
