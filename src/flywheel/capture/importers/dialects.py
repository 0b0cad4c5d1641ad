"""Which convention a span is written in, and what it says of the call.

Input: a span. Output: the fields of an Interaction that its attributes and events give, or None for
a span that is no model call.
"""

from pydantic import JsonValue

from flywheel.capture.importers.completion import (
    answers_of,
    call_fields,
    message_of,
    params_of,
    reply_of,
    tool_call,
    without_nulls,
)
from flywheel.capture.importers.flattened import (
    event_messages,
    indexed_messages,
    nested,
    openinference_messages,
)
from flywheel.capture.importers.parts import all_from_parts
from flywheel.capture.importers.row import (
    Source,
    count,
    first_of,
    maybe_json,
    number,
    object_of,
    objects_of,
    text,
)
from flywheel.capture.importers.spans import ERROR, Span
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject

CHAT = ("chat", "text_completion", "generate_content", "completion")
PARAMS = {
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_p": "top_p",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.max_tokens": "max_tokens",
    "gen_ai.request.frequency_penalty": "frequency_penalty",
    "gen_ai.request.presence_penalty": "presence_penalty",
    "gen_ai.request.stop_sequences": "stop",
    "gen_ai.request.seed": "seed",
    "gen_ai.request.choice.count": "n",
    "gen_ai.request.stream": "stream",
}
"""Attribute to request parameter."""
FINISH = {"tool_call": "tool_calls"}
"""The conventions' name for why a message ended, where it is not OpenAI's."""
_ERROR_TEXT_LIMIT = 2000


def fields_of(span: Span, source: Source) -> dict[str, object] | None:
    """What a span says of a model call; None where it is none.

    Raises:
        BadRecordError: it is one and cannot be read.
    """
    fields = _fields(span, source)
    answer = fields.get("response") if fields else None
    if fields and isinstance(answer, dict) and fields.get("finish_reason") == "tool_calls":
        return _with_calls(span, fields, answer)
    return fields


def _fields(span: Span, source: Source) -> dict[str, object] | None:
    attributes = span.attributes
    if unquoted(attributes.get("mlflow.spanType")) in ("CHAT_MODEL", "LLM"):
        return _mlflow(span, source)
    operation = text(attributes.get("gen_ai.operation.name"))
    if operation in CHAT or (operation is None and "gen_ai.request.model" in attributes):
        return _genai(span, source)
    if text(attributes.get("openinference.span.kind")) == "LLM":
        return _openinference(span, source)
    return None


def _with_calls(span: Span, fields: dict[str, object], answer: JsonObject) -> dict[str, object]:
    """The calls an answer ended with but does not have: in its chunks, or it is no answer.

    MLflow 3.17 leaves them out where the answer was streamed, and keeps the chunks as events.
    """
    if answer.get("tool_calls"):
        return fields
    events = [e.attributes for e in span.events if e.name.startswith("mlflow.chunk.item.")]
    chunks = [chunk for event in events if (chunk := maybe_json(event.get("mlflow.chunk.value")))]
    whole = without_nulls(reply_of([*chunks])) if chunks else {}
    answers = answers_of(object_of(whole))[0]
    if answers and answers[0].get("tool_calls"):
        return {**fields, "response": answers[0], "alternatives": answers[1:]}
    missing = {"status": "error", "error_type": "tool_calls_not_recorded", "response": None}
    return {**fields, **missing}


def unquoted(value: JsonValue) -> JsonValue:
    """MLflow writes attributes as JSON, so its strings come in quotes."""
    is_quoted = isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if isinstance(value, str) and is_quoted else value


def _outcome(span: Span, finish_reason: str | None) -> dict[str, object]:
    error_type = text(span.attributes.get("error.type"))
    if span.status_code != ERROR and error_type is None:
        status = "truncated" if finish_reason == "length" else "ok"
        return {"status": status}
    raised = next((event.attributes for event in span.events if event.name == "exception"), {})
    message = span.status_message or text(raised.get("exception.message"))
    return {
        "status": "error",
        "error_type": error_type or text(raised.get("exception.type")) or "error",
        "error_message": message[:_ERROR_TEXT_LIMIT] if message else None,
    }


def _genai(span: Span, source: Source) -> dict[str, object]:
    found = span.attributes
    asked, answers, finish_reason = _exchanged(span, source)
    reasons = found.get("gen_ai.response.finish_reasons")
    if isinstance(reasons, list) and reasons:
        finish_reason = text(reasons[0]) or finish_reason
    finish_reason = FINISH.get(finish_reason or "", finish_reason)
    model = text(found.get("gen_ai.request.model"))
    if span.scope.startswith("mlflow"):  # it puts the model that answered there
        model = text(unquoted(found.get("model"))) or model
    answered = text(found.get("gen_ai.response.model"))
    return {
        "operation": text(found.get("gen_ai.operation.name")) or "chat",
        "provider": text(first_of(found, "gen_ai.provider.name", "gen_ai.system")),
        "request_model": model or answered or "unknown",
        "response_model": answered,
        "messages": asked,
        "tools": _tools(found),
        "request_params": _params(found),
        "turn_index": sum(message["role"] == "assistant" for message in asked) if asked else None,
        "response": answers[0] if answers else None,
        "alternatives": answers[1:],
        "finish_reason": finish_reason,
        **_usage(found),
        **_outcome(span, finish_reason),
    }


def _usage(found: JsonObject) -> dict[str, object]:
    asked = first_of(found, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
    given = first_of(found, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
    return {
        "input_tokens": count(asked),
        "output_tokens": count(given),
        "cached_input_tokens": count(found.get("gen_ai.usage.cache_read.input_tokens")),
        "reasoning_tokens": count(found.get("gen_ai.usage.reasoning.output_tokens")),
        "cost_usd": number(found.get("flywheel.cost_usd")),
    }


def _exchanged(span: Span, source: Source) -> tuple[list[JsonObject], list[JsonObject], str | None]:
    """Messages asked, answers given, and why the first ended, wherever the emitter put them."""
    found = {**_details(span, source), **span.attributes}
    asked = maybe_json(found.get("gen_ai.input.messages"))
    given = maybe_json(found.get("gen_ai.output.messages"))
    if asked is not None or given is not None:
        system = maybe_json(found.get("gen_ai.system_instructions"))
        messages: list[JsonValue] = [*asked] if isinstance(asked, list) else []
        if isinstance(system, list) and system:
            messages.insert(0, {"role": "system", "parts": system})
        choices = objects_of(given)
        reason = text(choices[0].get("finish_reason")) if choices else None
        return all_from_parts(messages), all_from_parts([*choices]), reason
    if indexed := indexed_messages(found, "gen_ai.prompt"):
        choices = nested(found, "gen_ai.completion")
        reason = text(choices[0].get("finish_reason")) if choices else None
        return indexed, indexed_messages(found, "gen_ai.completion"), reason
    return _from_events(span, source)


def _details(span: Span, source: Source) -> JsonObject:
    """Attributes of an event that carries the content of the whole call."""
    name = "gen_ai.client.inference.operation.details"
    merged: JsonObject = {}
    for event in span.events:
        if event.name in (name, "gen_ai.content.prompt", "gen_ai.content.completion"):
            merged |= event.attributes
    for record in source.joined(span.key):
        if record.get("name") == name:
            merged |= object_of(record.get("attributes")) | object_of(record.get("body"))
    return merged


def _from_events(
    span: Span, source: Source
) -> tuple[list[JsonObject], list[JsonObject], str | None]:
    events = [(event.name, event.attributes) for event in span.events]
    for record in source.joined(span.key):
        body = object_of(record.get("body")) or object_of(record.get("attributes"))
        events.append((text(record.get("name")) or "", body))
    asked, choices = event_messages(events)
    answers = [message_of(choice.get("message"), role="assistant") for choice in choices]
    for answer in answers:
        answer.setdefault("content", None)
    return asked, answers, text(choices[0].get("finish_reason")) if choices else None


def _tools(found: JsonObject) -> list[JsonObject] | None:
    """Definitions, whose function lies flat in the conventions."""
    tools: list[JsonObject] = []
    for tool in objects_of(maybe_json(found.get("gen_ai.tool.definitions"))):
        if "function" in tool or tool.get("type", "function") != "function":
            tools.append(tool)
        else:
            function: JsonObject = {k: v for k, v in tool.items() if k != "type"}
            tools.append({"type": "function", "function": function})
    return tools or None


def _params(found: JsonObject) -> JsonObject:
    params = {name: found[key] for key, name in PARAMS.items() if found.get(key) is not None}
    prefix = "gen_ai.openai.request."
    params |= {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    return {**params, **object_of(maybe_json(found.get("flywheel.request_params")))}


def _openinference(span: Span, source: Source) -> dict[str, object]:
    """The request and reply as they were, where the span has them whole; else their pieces."""
    found = span.attributes
    request, reply = maybe_json(found.get("input.value")), maybe_json(found.get("output.value"))
    fields = _bodies(span, source, request, reply)
    if fields is None:
        fields = _openinference_pieces(span, found)
    given = {
        "input_tokens": count(found.get("llm.token_count.prompt")),
        "output_tokens": count(found.get("llm.token_count.completion")),
        "cached_input_tokens": count(found.get("llm.token_count.prompt_details.cache_read")),
        "reasoning_tokens": count(found.get("llm.token_count.completion_details.reasoning")),
        "provider": text(first_of(found, "llm.provider", "llm.system")),
    }
    return {**fields, **{name: value for name, value in given.items() if value is not None}}


def _openinference_pieces(span: Span, found: JsonObject) -> dict[str, object]:
    params = object_of(maybe_json(found.get("llm.invocation_parameters")))
    answers = openinference_messages(found, "llm.output_messages")
    tools = [maybe_json(tool.get("tool", {})) for tool in nested(found, "llm.tools")]
    schemas = [maybe_json(object_of(tool).get("json_schema")) for tool in tools]
    model, reason = text(found.get("llm.model_name")), text(found.get("llm.finish_reason"))
    return {
        "request_model": text(params.get("model")) or model or "unknown",
        "response_model": model,
        "messages": openinference_messages(found, "llm.input_messages"),
        "tools": objects_of([*schemas]) or None,
        "request_params": params_of(params),
        "response": answers[0] if answers else None,
        "alternatives": answers[1:],
        "finish_reason": reason,
        **_outcome(span, reason),
    }


def _mlflow(span: Span, source: Source) -> dict[str, object]:
    found = span.attributes
    request = maybe_json(found.get("mlflow.spanInputs"))
    reply = without_nulls(maybe_json(found.get("mlflow.spanOutputs")))
    fields = _bodies(span, source, request, reply)
    if fields is None:
        raise BadRecordError("unknown_shape", "mlflow.spanInputs hold no chat request")
    usage = object_of(maybe_json(found.get("mlflow.chat.tokenUsage")))
    given = {
        "input_tokens": count(usage.get("input_tokens")),
        "output_tokens": count(usage.get("output_tokens")),
        "cached_input_tokens": count(usage.get("cache_read_input_tokens")),
        "provider": text(unquoted(found.get("mlflow.message.format"))),
        "conversation_id": text(unquoted(found.get("mlflow.trace.session"))),
    }
    return {**fields, **{name: value for name, value in given.items() if value is not None}}


def _bodies(
    span: Span, source: Source, request: JsonValue, reply: JsonValue
) -> dict[str, object] | None:
    """The call from whole bodies; None where they are not there."""
    if not isinstance(request, dict) or "messages" not in request:
        return None
    outcome = _outcome(span, None)
    if outcome["status"] == "error":
        told = {"type": outcome["error_type"], "message": outcome["error_message"]}
        return call_fields(source, request, {"error": {k: str(v) for k, v in told.items() if v}})
    if not isinstance(reply, dict) or not objects_of(reply.get("choices")):
        return None
    for choice in objects_of(reply["choices"]):
        message = object_of(choice.get("message"))
        if isinstance(message.get("tool_calls"), list):
            message["tool_calls"] = [tool_call(call) for call in objects_of(message["tool_calls"])]
    return call_fields(source, request, reply)
