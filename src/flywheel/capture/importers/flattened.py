"""Messages that lie in a span's attributes one field a key: OpenInference's and those before 1.37.

    llm.input_messages.0.message.role, llm.output_messages.0.message.tool_calls.0.tool_call.id   …
    gen_ai.prompt.0.role, gen_ai.completion.0.tool_calls.0.arguments                             …

Input: attributes. Output: OpenAI's messages.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from flywheel.capture.importers.completion import compact, message_of
from flywheel.capture.importers.row import first_of, maybe_json, object_of, text
from flywheel.records import JsonObject

_MAX_DEPTH = 12


def nested(attributes: Mapping[str, JsonValue], prefix: str) -> list[JsonObject]:
    """The items under `prefix.<number>.`, in order, their dotted keys taken apart."""
    items: dict[int, JsonObject] = {}
    start = f"{prefix}."
    for key, value in attributes.items():
        if not key.startswith(start):
            continue
        index, _, rest = key[len(start) :].partition(".")
        if index.isdecimal() and len(index) < 7 and rest:
            _put(items.setdefault(int(index), {}), rest.split(".", _MAX_DEPTH), value)
    return [items[index] for index in sorted(items)]


def _put(into: JsonObject, path: list[str], value: JsonValue) -> None:
    for step in path[:-1]:
        inner = into.setdefault(step, {})
        if not isinstance(inner, dict):
            return
        into = inner
    into.setdefault(path[-1], value)


def _listed(value: JsonValue) -> list[JsonObject]:
    """`{"0": {…}, "1": {…}}` as the list it stands for."""
    numbered = [(int(k), v) for k, v in object_of(value).items() if k.isdecimal() and len(k) < 7]
    return [item for _, item in sorted(numbered, key=_first) if isinstance(item, dict)]


def _first(pair: tuple[int, JsonValue]) -> int:
    return pair[0]


def openinference_messages(attributes: Mapping[str, JsonValue], prefix: str) -> list[JsonObject]:
    """Messages under `llm.input_messages` or `llm.output_messages`.

    Raises:
        BadRecordError: `bad_message`.
    """
    found = [object_of(item.get("message")) for item in nested(attributes, prefix)]
    return [message_of(_openinference(message), role="assistant") for message in found]


def _openinference(message: JsonObject) -> JsonObject:
    content: JsonValue = message.get("content")
    parts = [
        _content(object_of(item.get("message_content")))
        for item in _listed(message.get("contents"))
    ]
    calls: list[JsonValue] = [
        _call(object_of(item.get("tool_call"))) for item in _listed(message.get("tool_calls"))
    ]
    built: JsonObject = {"role": message.get("role"), "content": [*parts] if parts else content}
    if calls:
        built["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if isinstance(message.get(name), str):
            built[name] = message[name]
    return built


def _content(part: JsonObject) -> JsonObject:
    if part.get("type") == "image":
        image = object_of(object_of(part.get("image")).get("image"))
        return {"type": "image_url", "image_url": {"url": image.get("url")}}
    return {"type": "text", "text": text(part.get("text")) or ""}


def _call(call: JsonObject) -> JsonObject:
    function = object_of(call.get("function"))
    return _tool_call(call.get("id"), function.get("name"), function.get("arguments"))


def _tool_call(identity: JsonValue, name: JsonValue, arguments: JsonValue) -> JsonObject:
    written = arguments if isinstance(arguments, str) else compact(arguments or {})
    return {
        "id": identity,
        "type": "function",
        "function": {"name": name, "arguments": written},
    }


def indexed_messages(attributes: Mapping[str, JsonValue], prefix: str) -> list[JsonObject]:
    """Messages under `gen_ai.prompt` or `gen_ai.completion`.

    Raises:
        BadRecordError: `bad_message`.
    """
    return [message_of(_indexed(item), role="assistant") for item in nested(attributes, prefix)]


def _indexed(item: JsonObject) -> JsonObject:
    content = item.get("content")
    if isinstance(content, str) and content.startswith('[{"type"'):
        content = maybe_json(content)
    calls: list[JsonValue] = [
        _tool_call(call.get("id"), call.get("name"), call.get("arguments"))
        for call in _listed(item.get("tool_calls"))
    ]
    built: JsonObject = {"role": item.get("role"), "content": content}
    if calls:
        built["tool_calls"] = calls
    if isinstance(first_of(item, "tool_call_id"), str):
        built["tool_call_id"] = item["tool_call_id"]
    return built


def event_messages(
    events: list[tuple[str, JsonObject]],
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Messages asked and answers given, of `gen_ai.<role>.message` and `gen_ai.choice` events.

    Args:
        events: name and body (or attributes) in order.

    Raises:
        BadRecordError: `bad_message`.
    """
    asked: list[JsonObject] = []
    choices: list[JsonObject] = []
    for name, body in events:
        role = name.removeprefix("gen_ai.").removesuffix(".message")
        if name == "gen_ai.choice":
            message = maybe_json(body.get("message"))
            choices.append({**body, "message": message if message is not None else {**body}})
        elif role in ("system", "user", "assistant", "tool", "developer"):
            asked.append(message_of(_event(body, role), role=role))
    return asked, choices


def _event(body: JsonObject, role: str) -> JsonObject:
    message: JsonObject = {"role": role, "content": maybe_parts(body.get("content"))}
    calls = maybe_json(body.get("tool_calls"))
    if isinstance(calls, list):
        message["tool_calls"] = calls
    if role == "tool":
        message["tool_call_id"] = body.get("id")
    return message


def maybe_parts(value: JsonValue) -> JsonValue:
    """Content that some write as the JSON of its parts."""
    if isinstance(value, str) and value.startswith('[{"type"'):
        return maybe_json(value)
    return value
