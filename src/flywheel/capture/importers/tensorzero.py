"""`tensorzero`: rows of ChatInference and JsonInference, and of the four feedback tables.

Ids are UUIDv7: they are kept as they are, and they carry the time. `input` and `output` are JSON in
a string. A demonstration is a correction; a boolean or float metric and a comment are feedback.
Datapoints of a dataset are read as inferences; one without an output is refused.
Lost: what a template rendered (its name and arguments are kept as JSON), files by storage path.
"""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import JsonValue

from flywheel.capture.importers.completion import compact
from flywheel.capture.importers.row import (
    Outcome,
    Source,
    assessment,
    first_of,
    interaction,
    maybe_json,
    number,
    object_of,
    objects_of,
    own_uuid,
    person_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import started
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, JsonObject

NAME = "tensorzero"


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    is_inference = "function_name" in row and "input" in row
    return is_inference or ("value" in row and ("target_id" in row or "inference_id" in row))


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One row of one of the six tables.

    Raises:
        BadRecordError: it cannot be read.
    """
    own = own_uuid(row.get("id"))
    if own is None:
        raise BadRecordError("bad_id", f"id: {row.get('id')!r:.80} is no UUID")
    if "function_name" in row and "input" in row:
        return [interaction(source, NAME, _inference(row, source, own))]
    return [_feedback(row, source, own)]


def _inference(row: JsonObject, source: Source, own: str) -> dict[str, object]:
    asked = object_of(maybe_json(row.get("input")))
    tags = object_of(maybe_json(row.get("tags")))
    tools = object_of(maybe_json(row.get("tool_params")))
    messages = _messages(asked)
    return {
        "interaction_id": own,
        "started_at": started(source, time_of(own)),
        "duration_ms": number(row.get("processing_time_ms")),
        "time_to_first_token_ms": number(row.get("ttft_ms")),
        "conversation_id": own_uuid(row.get("episode_id")),
        "turn_index": sum(message["role"] == "assistant" for message in messages),
        "provider": "tensorzero",
        "request_model": text(row.get("function_name")) or "unknown",
        "response_model": text(row.get("variant_name")),
        "messages": messages,
        "tools": _tools(tools) or None,
        "request_params": _params(row, tools),
        "response": _answer(row),
        "subject_key": pseudonym(person_of(tags), source),
        "tags": {**without_people(tags), **_dataset(row)},
    }


def time_of(identifier: str) -> datetime | None:
    """When a UUIDv7 was made; None for another version."""
    value = UUID(identifier)
    if value.version != 7:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value.int >> 80)


def _messages(asked: JsonObject) -> list[JsonObject]:
    system = asked.get("system")
    messages: list[JsonObject] = []
    if system:
        told = system if isinstance(system, str) else compact(system)
        messages.append({"role": "system", "content": told})
    if not isinstance(asked.get("messages"), list):
        raise BadRecordError("bad_request", "input has no messages")
    for message in objects_of(asked["messages"]):
        role, content = text(message.get("role")) or "user", message.get("content")
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        else:
            messages += _turn(role, objects_of(content))
    return messages


def _turn(role: str, blocks: list[JsonObject]) -> list[JsonObject]:
    """A turn's blocks: results of tools first, each a message of its own, then the rest."""
    results: list[JsonObject] = [
        {
            "role": "tool",
            "tool_call_id": text(block.get("id")) or "",
            "content": _as_text(block.get("result")),
        }
        for block in blocks
        if block.get("type") == "tool_result"
    ]
    calls: list[JsonValue] = [_call(block) for block in blocks if block.get("type") == "tool_call"]
    parts = [part for block in blocks if (part := _part(block)) is not None]
    if not parts and not calls and results:
        return results
    message: JsonObject = {"role": role, "content": _content(parts) if parts or not calls else None}
    return [*results, {**message, "tool_calls": calls} if calls else message]


def _content(parts: list[JsonObject]) -> JsonValue:
    """One text is text; anything else is parts."""
    if all(part["type"] == "text" for part in parts) and len(parts) <= 1:
        return str(parts[0]["text"]) if parts else ""
    return list(parts)


def _part(block: JsonObject) -> JsonObject | None:
    kind = block.get("type")
    if kind in ("tool_call", "tool_result", "thought"):
        return None
    if kind in ("text", "raw_text"):
        said = first_of(block, "text", "value", "arguments")
        return {"type": "text", "text": _as_text(said)}
    if kind == "template":
        used = {"template": block.get("name"), "arguments": block.get("arguments")}
        return {"type": "text", "text": compact(used)}
    image = object_of(first_of(block, "image", "file") or block)
    url = text(image.get("url"))
    if url:
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "text", "text": compact(block)}


def _call(block: JsonObject) -> JsonObject:
    name = first_of(block, "raw_name", "name")
    arguments = first_of(block, "raw_arguments", "arguments")
    function: JsonObject = {"name": name, "arguments": _as_text(arguments)}
    return {"id": text(block.get("id")) or "", "type": "function", "function": function}


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else "" if value is None else compact(value)


def _answer(row: JsonObject) -> JsonObject:
    message = _output(row.get("output"))
    if message is None:
        raise BadRecordError("no_response", "output is null: nothing to learn from")
    return message


def _output(value: JsonValue) -> JsonObject | None:
    """Blocks of a chat function, or `{raw, parsed}` of a JSON function."""
    answer = maybe_json(value)
    if isinstance(answer, dict):
        said = answer.get("raw")
        if said is None and answer.get("parsed") is not None:
            said = json.dumps(answer["parsed"], ensure_ascii=False)
        return {"role": "assistant", "content": said} if isinstance(said, str) else None
    if isinstance(answer, list) and answer:
        messages = _turn("assistant", objects_of(answer))
        return messages[-1] if messages[-1]["role"] == "assistant" else None
    return {"role": "assistant", "content": answer} if text(answer) else None


def _tools(params: JsonObject) -> list[JsonObject]:
    listed = first_of(params, "tools_available", "available_tools")
    return [
        {
            "type": "function",
            "function": {
                "name": tool.get("name"),
                "description": tool.get("description"),
                "parameters": tool.get("parameters"),
            },
        }
        for tool in objects_of(listed)
    ]


def _params(row: JsonObject, tools: JsonObject) -> JsonObject:
    inference = object_of(maybe_json(row.get("inference_params")))
    params = dict(object_of(inference.get("chat_completion")))
    if tools.get("tool_choice") is not None:
        params["tool_choice"] = tools["tool_choice"]
    schema = maybe_json(row.get("output_schema"))
    if isinstance(schema, dict):
        params["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": text(row.get("function_name")) or "output", "schema": schema},
        }
    return params


def _dataset(row: JsonObject) -> JsonObject:
    name = text(row.get("dataset_name"))
    return {"dataset_name": name} if name else {}


def _feedback(row: JsonObject, source: Source, own: str) -> Assessment:
    """The target is an inference or an episode, the row does not say: `front.settle` looks."""
    target = own_uuid(first_of(row, "target_id", "inference_id"))
    if target is None:
        raise BadRecordError("no_target", "target_id or inference_id is no UUID")
    tags = object_of(maybe_json(row.get("tags")))
    value, metric = row.get("value"), text(row.get("metric_name"))
    fields: dict[str, object] = {
        "assessment_id": own,
        "interaction_id": target,
        "created_at": started(source, time_of(own)),
        "source_type": "human" if "tensorzero::human_feedback" in tags else "end_user",
        "subject_key": pseudonym(person_of(tags), source),
    }
    if metric is not None:
        score = number(value) if not isinstance(value, str) else None
        if score is None:
            raise BadRecordError("bad_number", f"value: {value!r:.80} is no number")
        judged: dict[str, object] = {"name": metric, "kind": "feedback", "value": score}
    elif "inference_id" in row:
        correction = _output(value)
        judged = {"name": source.label_name, "kind": "correction", "correction": correction}
    else:
        judged = {"name": "comment", "kind": "feedback", "rationale": _as_text(value)}
    return assessment(source, {**fields, **judged})
