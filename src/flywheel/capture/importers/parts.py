"""OpenAI's messages <-> the messages of OpenTelemetry's GenAI conventions (`{role, parts}`).

The conventions have no place for some things: a refusal, content that is null and not absent, a
list of one text. What a reader of the parts would not get back is kept beside them, under
`x_openai`, so that nothing is lost on the way out and in again; ordinary messages need none of it.
Source: gen-ai-input-messages.json and gen-ai-output-messages.json, whose objects take further
properties.
"""

import json
import re

from pydantic import JsonValue
from pydantic_core import from_json

from flywheel.capture.importers.completion import compact
from flywheel.capture.importers.row import canonical, first_of, object_of, objects_of, text
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject

EXTRA = "x_openai"
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_MIME = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


def to_parts(message: JsonObject) -> JsonObject:
    """A message of OpenAI's as the conventions write it."""
    converted: JsonObject = {"role": message.get("role"), "parts": _parts(message)}
    if isinstance(message.get("name"), str):
        converted["name"] = message["name"]
    again = from_parts(converted)
    differs = {
        name: value
        for name, value in message.items()
        if name not in again or canonical(again[name]) != canonical(value)
    }
    added = [name for name in again if name not in message]
    if differs or added:
        extra: JsonObject = {**differs}
        converted[EXTRA] = {"fields": extra, "absent": [*added]}
    return converted


def from_parts(message: JsonValue) -> JsonObject:
    """A message of the conventions as OpenAI writes it.

    Raises:
        BadRecordError: `bad_message`.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRecordError("bad_message", f"{message!r:.80} is no message with a role")
    role, parts = message["role"], objects_of(message.get("parts"))
    responses = [part for part in parts if part.get("type") == "tool_call_response"]
    converted: JsonObject = {"role": role}
    if responses and len(parts) == len(responses):
        converted |= {"role": "tool", **_tool_response(responses[0])}
    else:
        converted |= _said(parts)
    if isinstance(message.get("name"), str):
        converted["name"] = message["name"]
    extra = object_of(message.get(EXTRA))
    converted |= object_of(extra.get("fields"))
    absent = extra.get("absent")
    for name in absent if isinstance(absent, list) else []:
        converted.pop(str(name), None)
    return converted


def all_from_parts(messages: JsonValue) -> list[JsonObject]:
    """Every message; one that answers several tool calls becomes several.

    Raises:
        BadRecordError: `bad_message`.
    """
    if not isinstance(messages, list):
        raise BadRecordError("bad_message", f"messages are {messages!r:.80}, not a list")
    found: list[JsonObject] = []
    for message in messages:
        parts = objects_of(object_of(message).get("parts"))
        answers = [part for part in parts if part.get("type") == "tool_call_response"]
        if len(answers) > 1:
            found += [{"role": "tool", **_tool_response(part)} for part in answers]
            rest: list[JsonValue] = [part for part in parts if part not in answers]
            if rest:
                found.append(from_parts({**object_of(message), "parts": rest}))
        else:
            found.append(from_parts(message))
    return found


def _parts(message: JsonObject) -> list[JsonValue]:
    content = message.get("content")
    if message.get("role") == "tool":
        answer: JsonObject = {"type": "tool_call_response", "response": content}
        if isinstance(message.get("tool_call_id"), str):
            answer["id"] = message["tool_call_id"]
        return [answer]
    parts: list[JsonValue] = []
    if isinstance(message.get("reasoning_content"), str):
        parts.append({"type": "reasoning", "content": message["reasoning_content"]})
    if isinstance(content, str):
        parts.append({"type": "text", "content": content})
    else:
        parts += [_content_part(part) for part in objects_of(content)]
    return [*parts, *(_call_part(call) for call in objects_of(message.get("tool_calls")))]


def _content_part(part: JsonObject) -> JsonObject:
    if part.get("type") == "text" and set(part) == {"type", "text"}:
        return {"type": "text", "content": part["text"]}
    image = object_of(part.get("image_url"))
    url = text(image.get("url"))
    if part.get("type") == "image_url" and url and set(image) == {"url"}:
        found = _DATA_URL.fullmatch(url)
        if found is None:
            return {"type": "uri", "modality": "image", "uri": url}
        return {
            "type": "blob",
            "modality": "image",
            "mime_type": found[1],
            "content": found[2],
        }
    audio = object_of(part.get("input_audio"))
    if part.get("type") == "input_audio" and set(audio) == {"data", "format"}:
        mime = f"audio/{audio['format']}"
        return {"type": "blob", "modality": "audio", "mime_type": mime, "content": audio["data"]}
    file = object_of(part.get("file"))
    if part.get("type") == "file" and set(file) == {"file_id"}:
        return {"type": "file", "modality": "document", "file_id": file["file_id"]}
    return part  # of a kind of its own: the conventions take any


def _call_part(call: JsonObject) -> JsonObject:
    function = object_of(call.get("function"))
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": _parsed(function.get("arguments")),
    }


def _parsed(arguments: JsonValue) -> JsonValue:
    """Arguments as an object where that gives the same text back; else the text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value: JsonValue = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        return arguments
    is_exact = isinstance(value, dict | list) and compact(value) == arguments
    return value if is_exact else arguments


def _said(parts: list[JsonObject]) -> JsonObject:
    """Content, reasoning and tool calls of a message that answers no tool."""
    message: JsonObject = {}
    calls = [part for part in parts if part.get("type") == "tool_call"]
    thoughts = [part for part in parts if part.get("type") == "reasoning"]
    content = [part for part in parts if part not in calls and part not in thoughts]
    if len(content) == 1 and content[0].get("type") == "text":
        message["content"] = _as_text(first_of(content[0], "content", "text"))
    elif content:
        message["content"] = [_openai_part(part) for part in content]
    else:
        message["content"] = None
    if thoughts:
        message["reasoning_content"] = "".join(_as_text(part.get("content")) for part in thoughts)
    if calls:
        message["tool_calls"] = [_openai_call(part) for part in calls]
    return message


def _openai_part(part: JsonObject) -> JsonObject:
    kind, modality = part.get("type"), text(part.get("modality")) or ""
    if kind == "text" and set(part) <= {"type", "content"}:
        return {"type": "text", "text": part.get("content")}
    if kind == "uri" and modality == "image":
        return {"type": "image_url", "image_url": {"url": part.get("uri")}}
    if kind == "blob" and modality == "image":
        mime = text(part.get("mime_type")) or _MIME["image"]
        url = f"data:{mime};base64,{_as_text(part.get('content'))}"
        return {"type": "image_url", "image_url": {"url": url}}
    if kind == "blob" and modality == "audio":
        mime = text(part.get("mime_type")) or _MIME["audio"]
        audio: JsonObject = {"data": part.get("content"), "format": mime.removeprefix("audio/")}
        return {"type": "input_audio", "input_audio": audio}
    if kind == "file" and "file_id" in part:
        return {"type": "file", "file": {"file_id": part["file_id"]}}
    return part


def _openai_call(part: JsonObject) -> JsonObject:
    arguments = part.get("arguments")
    if isinstance(arguments, dict | list):
        arguments = compact(arguments)
    function: JsonObject = {"name": part.get("name"), "arguments": arguments}
    return {"id": part.get("id"), "type": "function", "function": function}


def _tool_response(part: JsonObject) -> JsonObject:
    """`response`, or `result` as before 1.38; an object becomes the text of one."""
    answer = first_of(part, "response", "result")
    if not isinstance(answer, str) and answer is not None and not _is_content(answer):
        answer = json.dumps(answer, ensure_ascii=False)
    message: JsonObject = {"content": answer}
    if isinstance(part.get("id"), str):
        message["tool_call_id"] = part["id"]
    return message


def _is_content(value: JsonValue) -> bool:
    """A list of content parts, as OpenAI takes it for a tool's answer too."""
    kinds = ("text", "image_url", "input_audio", "file", "refusal")
    return (
        isinstance(value, list)
        and bool(value)
        and all(object_of(item).get("type") in kinds for item in value)
    )


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else "" if value is None else compact(value)
