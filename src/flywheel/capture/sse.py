"""Server-sent chunks of a chat completion, put together into the completion they stream.

Input: the SSE text as forwarded, whole or cut off anywhere. Output: one completion object with the
shape of a reply that was not streamed, so that one parser reads both.
Source: OpenAI's `chat.completion.chunk`; vLLM, TGI and llama.cpp send the same.
"""

from collections.abc import Iterator

from pydantic import JsonValue
from pydantic_core import from_json

from flywheel.records import JsonObject

DONE = "[DONE]"


class ChunkError(ValueError):
    """An event that is neither a chunk nor [DONE]."""


def events(text: str) -> Iterator[str]:
    """The data of each event; comments, names and an unfinished last event are left out."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


def assemble(text: str) -> JsonObject:
    """The completion a stream carries: choices by index, usage, and an error event if one came.

    Raises:
        ChunkError: an event is not a JSON object.
    """
    whole: JsonObject = {}
    choices: dict[int, JsonObject] = {}
    for data in events(text):
        if data.strip() == DONE:
            break
        for name, value in read_event(data).items():
            if name == "choices":
                _merge_choices(choices, value)
            elif value is not None:
                whole[name] = value
    whole["choices"] = [_without_indexes(choices[index]) for index in sorted(choices)]
    return whole


def read_event(data: str) -> JsonObject:
    """The JSON object an event carries.

    Raises:
        ChunkError: it is not one.
    """
    try:
        event = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ChunkError(f"an event is not JSON: {error}: {data[:80]!r}") from error
    if not isinstance(event, dict):
        raise ChunkError(f"an event is not an object: {data[:80]!r}")
    return event


def _merge_choices(choices: dict[int, JsonObject], parts: object) -> None:
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, dict):
            raise ChunkError(f"a choice is not an object: {part!r:.80}")
        index = part.get("index", 0)
        if not isinstance(index, int):
            raise ChunkError(f"a choice's index is {index!r:.80}")
        choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant"}})
        message, delta = choice["message"], part.get("delta")
        if isinstance(message, dict) and isinstance(delta, dict):
            _merge_delta(message, delta)
        if isinstance(part.get("text"), str):  # a text completion's
            choice["text"] = str(choice.get("text", "")) + str(part["text"])
        if part.get("finish_reason") is not None:
            choice["finish_reason"] = part["finish_reason"]


def _merge_delta(message: JsonObject, delta: JsonObject) -> None:
    """Strings grow (content, refusal, reasoning), tool calls merge by index, else the last wins."""
    for name, value in delta.items():
        before = message.get(name)
        if name == "tool_calls":  # null in deltas that bring none, with several servers
            _merge_calls(message, value)
        elif name != "role" and isinstance(value, str) and isinstance(before, str):
            message[name] = before + value
        elif value is not None or name not in message:
            message[name] = value


def _merge_calls(message: JsonObject, parts: JsonValue) -> None:
    if parts is None:
        return
    if not isinstance(parts, list):
        raise ChunkError(f"tool calls are not a list: {parts!r:.80}")
    calls = message.setdefault("tool_calls", [])
    assert isinstance(calls, list)  # nothing else is ever put there
    for part in parts:
        if not isinstance(part, dict):
            raise ChunkError(f"a tool call is not an object: {part!r:.80}")
        call = _call_for(calls, part)
        for name in ("id", "type"):
            if part.get(name):
                call.setdefault(name, part[name])
        piece, function = part.get("function"), call.setdefault("function", {"arguments": ""})
        if isinstance(piece, dict) and isinstance(function, dict):
            _merge_function(function, piece)


def _call_for(calls: list[JsonValue], part: JsonObject) -> JsonObject:
    """The call a delta continues: by index; where servers send none, an id begins a call."""
    index = part.get("index")
    for call in reversed(calls):
        assert isinstance(call, dict)
        is_same = call["index"] == index if index is not None else not part.get("id")
        if is_same:
            return call
    fresh: JsonObject = {"index": index if index is not None else len(calls)}
    calls.append(fresh)
    return fresh


def _merge_function(function: JsonObject, piece: JsonObject) -> None:
    """The name comes once; the arguments grow."""
    if piece.get("name") and not function.get("name"):
        function["name"] = piece["name"]
    before, more = function["arguments"], piece.get("arguments")
    if isinstance(before, str) and isinstance(more, str):
        function["arguments"] = before + more
    elif more is not None:
        function["arguments"] = more


def _without_indexes(choice: JsonObject) -> JsonObject:
    """A reply that was not streamed has no index on its tool calls."""
    message = choice["message"]
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, dict):
            call.pop("index", None)
    return choice
