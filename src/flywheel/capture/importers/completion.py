"""OpenAI's request and answer bodies -> the fields of an Interaction. Most formats carry them.

Input: a request body and what came of it: a completion, the chunks of a stream, the text of a
stream, an error, a bare message. Output: fields by name, or a BadRecordError.
"""

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from flywheel.capture.importers.row import (
    IDENTITY_PARAMS,
    Source,
    count,
    first_of,
    object_of,
    objects_of,
    person_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import moment
from flywheel.capture.sse import ChunkError, assemble
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject

_NOT_PARAMS = {"messages", "tools", "model", "prompt", "input", *IDENTITY_PARAMS}
_ERROR_TEXT_LIMIT = 2000


def message_of(value: JsonValue, *, role: str | None = None) -> JsonObject:
    """One message as OpenAI writes it: tool arguments as text, content as text or parts.

    Args:
        value: as found.
        role: the role where it names none.

    Raises:
        BadRecordError: `bad_message`.
    """
    if not isinstance(value, dict):
        raise BadRecordError("bad_message", f"a message is {value!r:.80}, not an object")
    message = dict(value)
    if not isinstance(message.get("role"), str):
        if role is None:
            raise BadRecordError("bad_message", f"a message has no role: {value!r:.80}")
        message["role"] = role
    if "content" in message:
        message["content"] = _content(message["content"])
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [tool_call(call) for call in calls]
    return message


def _content(value: JsonValue) -> JsonValue:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [part if isinstance(part, dict) else _text_part(part) for part in value]
    raise BadRecordError("bad_message", f"content is {value!r:.80}, not text, parts or null")


def _text_part(value: JsonValue) -> JsonObject:
    if not isinstance(value, str):
        raise BadRecordError("bad_message", f"a content part is {value!r:.80}")
    return {"type": "text", "text": value}


def tool_call(value: JsonValue) -> JsonObject:
    """One tool call; arguments that some logs keep parsed become text again.

    Raises:
        BadRecordError: `bad_message`.
    """
    if not isinstance(value, dict):
        raise BadRecordError("bad_message", f"a tool call is {value!r:.80}, not an object")
    call = {name: item for name, item in value.items() if name != "index"}
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), dict | list):
        call["function"] = {**function, "arguments": compact(function["arguments"])}
    return call


def compact(value: JsonValue) -> str:
    """JSON as models write arguments."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def messages_of(request: JsonObject) -> list[JsonObject]:
    """The messages of a chat request, or what stands for them in the other two kinds.

    Raises:
        BadRecordError: `bad_request` where there are none.
    """
    messages = request.get("messages")
    if isinstance(messages, list):
        return [message_of(message) for message in messages]
    prompt = first_of(request, "input", "prompt")
    instructions = text(request.get("instructions"))
    before: list[JsonObject] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(prompt, str):
        return [*before, {"role": "user", "content": prompt}]
    if isinstance(prompt, list) and prompt and all(isinstance(item, dict) for item in prompt):
        return [*before, *(message_of(item) for item in prompt)]
    raise BadRecordError("bad_request", "the request has no messages, prompt or input")


def reply_of(value: JsonValue) -> JsonObject:
    """The answer as one completion, streams put together.

    Raises:
        BadRecordError: `bad_response`.
    """
    if isinstance(value, dict):
        is_chunk = value.get("object") == "chat.completion.chunk"
        has_deltas = any("delta" in choice for choice in objects_of(value.get("choices")))
        return _assembled([value]) if is_chunk and has_deltas else value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _assembled(value)
    if isinstance(value, str) and value.lstrip().startswith("data:"):
        return _streamed(value)
    raise BadRecordError("bad_response", f"the response is {value!r:.80}: no completion, no stream")


def _assembled(chunks: list[JsonValue]) -> JsonObject:
    return _streamed("".join(f"data: {compact(chunk)}\n\n" for chunk in chunks))


def _streamed(events: str) -> JsonObject:
    try:
        return assemble(events)
    except ChunkError as error:
        raise BadRecordError("bad_response", f"the stream is not readable: {error}") from error


def answers_of(reply: JsonObject) -> tuple[list[JsonObject], str | None]:
    """The assistant messages, first choice first, and why the first one ended."""
    choices = sorted(objects_of(reply.get("choices")), key=_index)
    if choices:
        return [_choice(choice) for choice in choices], text(choices[0].get("finish_reason"))
    if isinstance(reply.get("output"), list):
        return _response_items(objects_of(reply["output"])), text(reply.get("status"))
    if "content" in reply or "tool_calls" in reply:
        return [message_of(reply, role="assistant")], None
    return [], None


def _index(choice: JsonObject) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _choice(choice: JsonObject) -> JsonObject:
    if choice.get("message") is None and isinstance(choice.get("text"), str):
        return {"role": "assistant", "content": choice["text"]}
    return message_of(choice.get("message"), role="assistant")


def _response_items(items: list[JsonObject]) -> list[JsonObject]:
    """The output of the responses API as one assistant message."""
    texts = [
        str(part.get("text", ""))
        for item in items
        for part in objects_of(item.get("content"))
        if item.get("type", "message") == "message" and part.get("type") == "output_text"
    ]
    calls: list[JsonValue] = [
        {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        for item in items
        if item.get("type") == "function_call"
    ]
    if not texts and not calls:
        return []
    message: JsonObject = {"role": "assistant", "content": "".join(texts) if texts else None}
    return [{**message, "tool_calls": calls} if calls else message]


def without_nulls(reply: JsonValue) -> JsonValue:
    """The completion less what a log added to its messages: fields that were not sent, as null."""
    for choice in objects_of(object_of(reply).get("choices")):
        message = choice.get("message")
        if isinstance(message, dict):
            choice["message"] = {
                name: value
                for name, value in message.items()
                if name == "content" or not _is_null(value)
            }
    return reply


def _is_null(value: JsonValue) -> bool:
    """Null, or an object of nothing but nulls."""
    return value is None or (isinstance(value, dict) and all(v is None for v in value.values()))


def call_fields(source: Source, request: JsonValue, response: JsonValue) -> dict[str, object]:
    """Everything the two bodies say of a call.

    Args:
        source: the import.
        request: the request body.
        response: the answer; None where there was none.

    Raises:
        BadRecordError: `bad_request`, `bad_response`, `bad_message`, `no_response`.
    """
    if not isinstance(request, dict):
        raise BadRecordError("bad_request", f"the request is {request!r:.80}, not an object")
    reply = reply_of(response) if response is not None else {}
    answers, finish_reason = answers_of(reply)
    problem = reply.get("error")
    if not answers and problem is None:
        raise BadRecordError("no_response", "neither an answer nor an error: nothing to learn from")
    messages = messages_of(request)
    usage, metadata = object_of(reply.get("usage")), object_of(request.get("metadata"))
    status = "error" if problem is not None else _status(finish_reason)
    return {
        "messages": messages,
        "tools": objects_of(request.get("tools")) or None,
        "request_model": text(request.get("model")) or text(reply.get("model")) or "unknown",
        "request_params": params_of(request),
        "turn_index": sum(message["role"] == "assistant" for message in messages),
        "conversation_id": text(metadata.get("conversation_id")),
        "subject_key": pseudonym(
            first_of(request, *IDENTITY_PARAMS) or person_of(metadata), source
        ),
        "response_model": text(reply.get("model")),
        "response": answers[0] if answers else None,
        "alternatives": answers[1:],
        "finish_reason": finish_reason,
        **usage_fields(usage),
        "status": status,
        **(error_fields(problem) if problem is not None else {}),
    }


def params_of(request: JsonObject) -> JsonObject:
    """The request less messages, tools and model, and less what names a person."""
    params = {name: value for name, value in request.items() if name not in _NOT_PARAMS}
    metadata = params.get("metadata")
    if isinstance(metadata, dict):
        params["metadata"] = without_people(metadata)
    return params


def _status(finish_reason: str | None) -> str:
    return "truncated" if finish_reason in ("length", "incomplete") else "ok"


def usage_fields(usage: Mapping[str, JsonValue]) -> dict[str, object]:
    """Token counts, by the chat API's names or the responses API's."""
    read = object_of(first_of(usage, "prompt_tokens_details", "input_tokens_details"))
    written = object_of(first_of(usage, "completion_tokens_details", "output_tokens_details"))
    return {
        "input_tokens": count(first_of(usage, "prompt_tokens", "input_tokens")),
        "output_tokens": count(first_of(usage, "completion_tokens", "output_tokens")),
        "cached_input_tokens": count(read.get("cached_tokens")),
        "reasoning_tokens": count(written.get("reasoning_tokens")),
    }


def error_fields(problem: JsonValue) -> dict[str, object]:
    """Type and message of an error body."""
    error = object_of(problem)
    kind = first_of(error, "type", "code")
    message = text(error.get("message")) or (problem if isinstance(problem, str) else None)
    return {
        "error_type": str(kind) if kind is not None else "unknown",
        "error_message": message[:_ERROR_TEXT_LIMIT] if message else None,
    }


def created(reply: JsonValue) -> datetime | None:
    """When a completion says it was made, to the second; None where it says nothing usable.

    Mock and local servers write 0 or 1 there.
    """
    if isinstance(reply, list):
        reply = reply[0] if reply else None
    stamp = first_of(object_of(reply), "created", "created_at")
    try:
        return moment(stamp)
    except BadRecordError:
        return None
