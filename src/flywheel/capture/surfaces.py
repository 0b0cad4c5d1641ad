"""Requests and replies of OpenAI's other endpoints, said as chat: one table holds them all.

Input: the JSON of a call to `/v1/completions`, `/v1/embeddings` or `/v1/responses`. Output: the
same as messages, tools, choices and usage of a chat completion. What has no counterpart is kept as
a content part under its own type. Vectors are not kept: they can be computed again.
Source: https://platform.openai.com/docs/api-reference (2026).
"""

from collections.abc import Iterator

from pydantic import JsonValue

from flywheel.capture.sse import events, read_event
from flywheel.records import JsonObject

_PARTS = {"input_text": "text", "output_text": "text", "text": "text"}


def as_chat_request(operation: str, request: JsonObject) -> JsonObject:
    """The request with `messages` and chat `tools` in place of the endpoint's own fields."""
    if operation == "text_completion":
        rest = {name: value for name, value in request.items() if name != "prompt"}
        return {**rest, "messages": _prompts(request.get("prompt"))}
    if operation == "embeddings":
        rest = {name: value for name, value in request.items() if name != "input"}
        return {**rest, "messages": _prompts(request.get("input"))}
    if operation == "responses":
        return _from_responses_request(request)
    return request


def as_chat_reply(operation: str, reply: JsonObject) -> JsonObject:
    """The reply with `choices` and `usage` as a chat completion has them."""
    if operation == "text_completion":
        listed = reply.get("choices")
        choices = listed if isinstance(listed, list) else []
        return {**reply, "choices": [_text_choice(one) for one in choices if isinstance(one, dict)]}
    if operation == "embeddings":
        return {name: value for name, value in reply.items() if name != "data"}
    if operation == "responses":
        return _from_response(reply)
    return reply


def has_answer(operation: str) -> bool:
    """Whether a reply without an assistant message is a broken one."""
    return operation != "embeddings"


def assemble_response(text: str) -> JsonObject:
    """The response object a stream of `/v1/responses` carries, or what can be told of a cut one.

    Raises:
        ChunkError: an event is not a JSON object.
    """
    whole: JsonObject = {}
    written: list[str] = []
    for data in events(text):
        event = read_event(data)
        kind, response = event.get("type"), event.get("response")
        if isinstance(response, dict):
            whole = response
        elif kind == "response.output_text.delta":
            written.append(str(event.get("delta", "")))
        elif kind == "error" or "error" in event:
            whole = {**whole, "error": event.get("error") or event}
    if not whole.get("output") and written:
        part: JsonObject = {"type": "output_text", "text": "".join(written)}
        message: JsonObject = {"type": "message", "role": "assistant", "content": [part]}
        whole = {**whole, "output": [message]}
    return whole


def _prompts(prompt: JsonValue) -> list[JsonValue]:
    """A user message a prompt; token ids are kept as they are."""
    is_batch = isinstance(prompt, list) and any(isinstance(one, str | list) for one in prompt)
    several = prompt if is_batch and isinstance(prompt, list) else [prompt]
    return [
        {
            "role": "user",
            "content": one if isinstance(one, str) else [{"type": "token_ids", "token_ids": one}],
        }
        for one in several
        if one is not None
    ]


def _text_choice(choice: JsonObject) -> JsonObject:
    if "text" not in choice:
        return choice
    rest = {name: value for name, value in choice.items() if name != "text"}
    return {**rest, "message": {"role": "assistant", "content": choice["text"]}}


def _from_responses_request(request: JsonObject) -> JsonObject:
    own = {"input", "instructions", "tools"}
    rest = {name: value for name, value in request.items() if name not in own}
    messages: list[JsonValue] = []
    if isinstance(request.get("instructions"), str):
        messages.append({"role": "system", "content": request["instructions"]})
    given = request.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    for item in given if isinstance(given, list) else []:
        if isinstance(item, dict):
            messages.append(_item_message(item))
    tools = request.get("tools")
    if isinstance(tools, list):
        rest["tools"] = [_chat_tool(tool) for tool in tools if isinstance(tool, dict)]
    return {**rest, "messages": messages}


def _item_message(item: JsonObject) -> JsonObject:
    """One input item as a chat message."""
    kind = item.get("type", "message")
    if kind == "message":
        role = item.get("role")
        return {
            "role": role if isinstance(role, str) else "user",
            "content": _chat_content(item.get("content")),
        }
    if kind == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": [_chat_call(item)]}
    if kind == "function_call_output":
        output = item.get("output")
        return {
            "role": "tool",
            "tool_call_id": str(item.get("call_id", "")),
            "content": output if isinstance(output, str) else _chat_content(output),
        }
    return {"role": "assistant", "content": [item]}


def _chat_content(content: JsonValue) -> JsonValue:
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    return [_chat_part(part) for part in content if isinstance(part, dict)]


def _chat_part(part: JsonObject) -> JsonObject:
    kind = part.get("type")
    if kind in _PARTS:
        return {"type": "text", "text": part.get("text", "")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        image: JsonObject = {"url": part["image_url"]}
        if part.get("detail"):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}
    return part


def _chat_call(item: JsonObject) -> JsonObject:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _chat_tool(tool: JsonObject) -> JsonObject:
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {
        "type": "function",
        "function": {name: value for name, value in tool.items() if name != "type"},
    }


def _from_response(reply: JsonObject) -> JsonObject:
    output = reply.get("output")
    listed = output if isinstance(output, list) else []
    items = [item for item in listed if isinstance(item, dict)]
    rest = {name: value for name, value in reply.items() if name not in ("output", "usage")}
    if rest.get("error") is None:
        rest.pop("error", None)
    whole: JsonObject = {**rest, "usage": _chat_usage(reply.get("usage"))}
    if items:
        message = _answer(items)
        finish = _finish_reason(reply, has_calls="tool_calls" in message)
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return whole


def _answer(items: list[JsonObject]) -> JsonObject:
    """All output items as one assistant message."""
    calls: list[JsonValue] = [_chat_call(i) for i in items if i.get("type") == "function_call"]
    parts = list(_answer_parts(items))
    texts = [part.get("text") for part in parts]
    is_plain = all(part.get("type") == "text" for part in parts)
    content: JsonValue = "".join(map(str, texts)) if is_plain else [*parts]
    message: JsonObject = {"role": "assistant", "content": content if parts else None}
    return {**message, "tool_calls": calls} if calls else message


def _answer_parts(items: list[JsonObject]) -> Iterator[JsonObject]:
    for item in items:
        content = item.get("content")
        if item.get("type") == "message":
            listed = content if isinstance(content, list) else []
            yield from (_chat_part(part) for part in listed if isinstance(part, dict))
        elif item.get("type") not in ("function_call", "reasoning"):
            yield item


def _finish_reason(reply: JsonObject, *, has_calls: bool) -> str | None:
    if reply.get("status") == "incomplete":
        details = reply.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return "content_filter" if reason == "content_filter" else "length"
    if reply.get("status") != "completed":
        return None
    return "tool_calls" if has_calls else "stop"


def _chat_usage(usage: JsonValue) -> JsonObject:
    if not isinstance(usage, dict):
        return {}
    return {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
