"""An interaction as the attributes of an OpenTelemetry GenAI span.

Input: an Interaction. Output: attributes by name, for a span of `start_time` and `end_time` of the
same record. Read back by `otlp`, they give the same messages, tool calls included.
Structured values are JSON text, as the conventions allow where an SDK's attributes cannot nest.
Source: OpenTelemetry semantic conventions for generative AI, development version after 1.41.
"""

from flywheel.capture.importers.completion import compact
from flywheel.capture.importers.dialects import FINISH, PARAMS
from flywheel.capture.importers.parts import to_parts
from flywheel.records import Interaction, JsonObject, Message

AttributeValue = str | bool | int | float | list[str]
_FINISH_OUT = {openai: otel for otel, openai in FINISH.items()}


def span_attributes(interaction: Interaction) -> dict[str, AttributeValue]:
    """The attributes; what is NULL in the record is absent."""
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": interaction.operation,
        "gen_ai.provider.name": interaction.provider,
        "gen_ai.request.model": interaction.request_model,
        "gen_ai.response.model": interaction.response_model,
        "gen_ai.conversation.id": interaction.conversation_id,
        "gen_ai.usage.input_tokens": interaction.input_tokens,
        "gen_ai.usage.output_tokens": interaction.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": interaction.cached_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": interaction.reasoning_tokens,
        "error.type": interaction.error_type,
        "flywheel.interaction_id": interaction.interaction_id,
        "flywheel.workload": interaction.workload,
        "flywheel.adapter": interaction.adapter,
        "flywheel.arm": interaction.arm,
        "flywheel.cost_usd": interaction.cost_usd,
        **_content(interaction),
        **_params(interaction.request_params),
    }
    if interaction.time_to_first_token_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = interaction.time_to_first_token_ms / 1000
    if interaction.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [interaction.finish_reason]
    return {name: value for name, value in found.items() if value is not None}


def _content(interaction: Interaction) -> dict[str, AttributeValue | None]:
    answers = [interaction.response] if interaction.response is not None else []
    answers += interaction.alternatives
    asked = [to_parts(_plain(message)) for message in interaction.messages]
    reason = interaction.finish_reason or "stop"
    given = [
        {**to_parts(_plain(message)), "finish_reason": _FINISH_OUT.get(reason, reason)}
        for message in answers
    ]
    return {
        "gen_ai.input.messages": compact([*asked]) if asked else None,
        "gen_ai.output.messages": compact([*given]) if given else None,
        "gen_ai.tool.definitions": _tools(interaction),
    }


def _plain(message: Message) -> JsonObject:
    return message.model_dump()


def _tools(interaction: Interaction) -> str | None:
    """Functions lie flat in the conventions; a tool with more than a function stays as it is."""
    if not interaction.tools:
        return None
    flat: list[JsonObject] = []
    for tool in interaction.tools:
        function = tool.get("function")
        is_plain = set(tool) == {"type", "function"} and tool["type"] == "function"
        if is_plain and isinstance(function, dict) and "function" not in function:
            flat.append({"type": "function", **function})
        else:
            flat.append(tool)
    return compact([*flat])


def _params(params: JsonObject) -> dict[str, AttributeValue | None]:
    """Those the conventions name, and the rest as JSON."""
    found: dict[str, AttributeValue | None] = {}
    rest = dict(params)
    for key, name in PARAMS.items():
        value = rest.get(name)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            found[key] = [str(item) for item in rest.pop(name) or ()]  # type: ignore[union-attr]
        elif isinstance(value, bool | int | float):
            found[key] = value
            rest.pop(name)
    if rest:
        found["flywheel.request_params"] = compact(rest)
    return found
