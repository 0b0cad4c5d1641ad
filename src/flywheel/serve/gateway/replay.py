"""A whole chat completion, said as the stream a client asked for.

Input: a completion that was checked before it left, so that it could not be streamed as it came.
Output: the chunks a server would have sent for it: role, content or tool calls, and the end.
Source: OpenAI's `chat.completion.chunk`.
"""

from collections.abc import Iterator

from pydantic import JsonValue
from pydantic_core import to_json

from flywheel.records import JsonObject

DONE = b"data: [DONE]\n\n"


def as_stream(completion: JsonObject, *, has_usage: bool) -> bytes:
    """The events.

    Args:
        completion: with `choices`.
        has_usage: whether the client asked for `stream_options.include_usage`.
    """
    kept = ("id", "created", "model", "service_tier", "system_fingerprint")
    frame: JsonObject = {name: completion[name] for name in kept if name in completion}
    frame["object"] = "chat.completion.chunk"
    choices = completion.get("choices")
    parts = [
        part
        for choice in (choices if isinstance(choices, list) else [])
        if isinstance(choice, dict)
        for part in _deltas(choice)
    ]
    usage: JsonObject = {"usage": None} if has_usage else {}
    events: list[JsonObject] = [{**frame, "choices": [part], **usage} for part in parts]
    if has_usage:
        events.append({**frame, "choices": [], "usage": completion.get("usage")})
    return b"".join(b"data: " + to_json(event) + b"\n\n" for event in events) + DONE


def _deltas(choice: JsonObject) -> Iterator[JsonObject]:
    message, index = choice.get("message"), choice.get("index", 0)
    said = message if isinstance(message, dict) else {}
    calls = said.get("tool_calls")
    listed: list[JsonValue] = calls if isinstance(calls, list) else []
    numbered: list[JsonValue] = [
        {"index": number, **call} for number, call in enumerate(listed) if isinstance(call, dict)
    ]
    rest = {name: value for name, value in said.items() if name not in ("role", "tool_calls")}
    delta: JsonObject = {"role": "assistant", **rest}
    if numbered:
        delta["tool_calls"] = numbered
    logprobs: JsonObject = {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}
    yield {"index": index, "delta": delta, "finish_reason": None, **logprobs}
    yield {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
