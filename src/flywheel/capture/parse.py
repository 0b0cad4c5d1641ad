"""What was spooled, as rows of the lake.

Input: an Exchange or a Feedback. Output: an Interaction or an Assessment, or a BadRecordError whose
reason is stored with the original bytes in quarantine. Pure functions; `drain` does the I/O.
"""

from datetime import datetime
from operator import attrgetter

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from flywheel.capture.sse import ChunkError, assemble
from flywheel.capture.surfaces import (
    as_chat_reply,
    as_chat_request,
    assemble_response,
    has_answer,
)
from flywheel.errors import BadRecordError
from flywheel.records import (
    Assessment,
    Exchange,
    Feedback,
    Interaction,
    JsonObject,
    Status,
    utcnow,
)

IDENTITY_PARAMS = ("user", "safety_identifier")
"""Request fields that carry a person's identifier: stored as `subject_key` or not at all."""
_NOT_PARAMS = {"messages", "tools", "model", *IDENTITY_PARAMS}
ERROR_TEXT_LIMIT = 2000


def to_interaction(exchange: Exchange, *, ingested_at: datetime | None = None) -> Interaction:
    """One call, parsed.

    Raises:
        BadRecordError: `bad_request` or `bad_response` where a body is not what it should be,
            `invalid_record` where its parts do not make an Interaction.
    """
    request = as_chat_request(exchange.operation, _request(exchange))
    reply = as_chat_reply(exchange.operation, _reply(exchange))
    choices = _choices(exchange, reply)
    finish_reason = choices[0].get("finish_reason") if choices else None
    status, error_type, error_message = _outcome(exchange, reply, finish_reason)
    messages = [choice["message"] for choice in choices if choice.get("message") is not None]
    return _build(
        exchange,
        {
            "messages": request.get("messages") or (),
            "tools": request.get("tools"),
            "request_params": {k: v for k, v in request.items() if k not in _NOT_PARAMS},
            "turn_index": _turn_index(exchange, request),
            "response_model": reply.get("model") or exchange.served_model,
            "response": messages[0] if messages else None,
            "alternatives": messages[1:],
            "finish_reason": finish_reason,
            **_usage(reply),
            "status": status,
            "error_type": error_type,
            "error_message": error_message,
            "ingested_at": ingested_at or utcnow(),
        },
    )


_COPIED = (
    "interaction_id",
    "workload",
    "trace_id",
    "span_id",
    "parent_span_id",
    "started_at",
    "duration_ms",
    "time_to_first_token_ms",
    "operation",
    "provider",
    "request_model",
    "adapter",
    "arm",
    "cost_usd",
    "subject_key",
    "inclusion_prob",
    "tags",
    "source",
)
_copy = attrgetter(*_COPIED)


def _build(exchange: Exchange, parsed: dict[str, object]) -> Interaction:
    copied = dict(zip(_COPIED, _copy(exchange), strict=True))
    try:
        return Interaction.model_validate(
            {
                **copied,
                **parsed,
                "event_date": exchange.started_at.date(),
                "conversation_id": exchange.conversation_id or exchange.interaction_id,
            }
        )
    except ValidationError as error:
        raise BadRecordError("invalid_record", sentences(error)) from error


def _request(exchange: Exchange) -> JsonObject:
    try:
        request = from_json(exchange.request, allow_inf_nan=False)
    except ValueError as error:
        raise BadRecordError("bad_request", f"the request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise BadRecordError("bad_request", "the request is not a JSON object")
    return request


def _reply(exchange: Exchange) -> JsonObject:
    """The upstream's body; empty where there was none, or where an error came as plain text."""
    text = exchange.response
    if exchange.tags.get("response_encoding") == "base64":
        raise BadRecordError("bad_response", "the response is not UTF-8")
    if exchange.streamed:
        try:
            is_responses = exchange.operation == "responses"
            return assemble_response(text) if is_responses else assemble(text)
        except ChunkError as error:
            raise BadRecordError("bad_response", f"the stream is not readable: {error}") from error
    try:
        reply = from_json(text, allow_inf_nan=False) if text else {}
    except ValueError as error:
        if exchange.status != "ok":
            return {}
        raise BadRecordError("bad_response", f"the response is not JSON: {error}") from error
    return reply if isinstance(reply, dict) else {}


def _choices(exchange: Exchange, reply: JsonObject) -> list[JsonObject]:
    choices = reply.get("choices")
    listed = choices if isinstance(choices, list) else []
    found = [choice for choice in listed if isinstance(choice, dict)]
    is_wanted = has_answer(exchange.operation) and exchange.status == "ok"
    if not found and is_wanted and not exchange.streamed and "error" not in reply:
        raise BadRecordError("bad_response", "the response has no choices")
    return sorted(found, key=_index)


def _index(choice: JsonObject) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _outcome(
    exchange: Exchange, reply: JsonObject, finish_reason: JsonValue
) -> tuple[Status, str | None, str | None]:
    """Status, error_type and error_message. What the gateway saw wins over what the body says."""
    error_type, error_message = exchange.error_type, exchange.error_message
    if "error" in reply or exchange.status == "error":
        told_type, told_message = _error(reply)
        plain = exchange.response[:ERROR_TEXT_LIMIT] if not reply else None
        by_status = f"http_{exchange.http_status}" if exchange.http_status else None
        return "error", error_type or told_type or by_status, error_message or told_message or plain
    if exchange.status != "ok":
        return exchange.status, error_type, error_message
    if finish_reason is None and exchange.streamed:
        return "error", "incomplete_stream", "the stream ended without a finish_reason"
    return ("truncated" if finish_reason == "length" else "ok"), error_type, error_message


def _error(reply: JsonObject) -> tuple[str | None, str | None]:
    """Type and message of an error body: OpenAI's, or one that has them at the top."""
    error = reply.get("error", reply)
    if not isinstance(error, dict):
        return None, str(error)
    kind = error.get("type") or error.get("code")
    message = error.get("message") or error.get("detail")
    return (
        str(kind) if kind is not None else None,
        str(message)[:ERROR_TEXT_LIMIT] if message is not None else None,
    )


def _usage(reply: JsonObject) -> dict[str, object]:
    """Token counts as the server reports them; a stream reports them only when it is asked to."""
    usage = _object(reply.get("usage"))
    return {
        "input_tokens": usage.get("prompt_tokens"),
        "output_tokens": usage.get("completion_tokens"),
        "cached_input_tokens": _object(usage.get("prompt_tokens_details")).get("cached_tokens"),
        "reasoning_tokens": _object(usage.get("completion_tokens_details")).get("reasoning_tokens"),
    }


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _turn_index(exchange: Exchange, request: JsonObject) -> int | None:
    """Answers the conversation already holds, where the caller gave no index of its own."""
    messages = request.get("messages")
    if exchange.turn_index is not None or not isinstance(messages, list):
        return exchange.turn_index
    return sum(isinstance(m, dict) and m.get("role") == "assistant" for m in messages)


def to_assessment(feedback: Feedback, *, workload: str, received_at: datetime) -> Assessment:
    """One judgement from the feedback endpoint.

    Args:
        feedback: as it was spooled, with its assessment_id.
        workload: resolved by the caller.
        received_at: used where the gateway set no `created_at`.

    Raises:
        BadRecordError: `invalid_record`.
    """
    created_at = feedback.created_at or received_at
    value = feedback.value
    try:
        return Assessment(
            assessment_id=feedback.assessment_id or "",
            workload=workload,
            event_date=created_at.date(),
            interaction_id=feedback.interaction_id,
            conversation_id=feedback.conversation_id,
            name=feedback.name,
            kind="correction" if feedback.correction is not None else "feedback",
            value=float(value) if value is not None else None,
            label=feedback.label,
            correction=feedback.correction_message,
            rationale=feedback.comment,
            source_type=feedback.source_type,
            source_id=feedback.source_id,
            created_at=created_at,
        )
    except (ValidationError, OverflowError) as error:
        told = sentences(error) if isinstance(error, ValidationError) else str(error)
        raise BadRecordError("invalid_record", told) from error


def sentences(error: ValidationError) -> str:
    """The mistakes without the values: quarantine keeps those once, in the original bytes."""
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
