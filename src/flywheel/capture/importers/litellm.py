"""`litellm`: a line a StandardLoggingPayload, as LiteLLM's callbacks and buckets hold it.

Measured on 1.106: `id` is the completion's own id (local servers repeat it), so a call is known by
`litellm_call_id`; a cost nobody could compute and usage nobody reported are 0 there and NULL here;
`completionStartTime` of an answer that was not streamed is its end. The end user is pseudonymised;
IP address, key names, e-mail and tracebacks (which quote local paths) are left out.
"""

from pydantic import JsonValue

from flywheel.capture.importers.completion import call_fields, without_nulls
from flywheel.capture.importers.row import (
    Outcome,
    PassedOver,
    Source,
    canonical,
    count,
    derived_id,
    first_of,
    interaction,
    maybe_json,
    number,
    object_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import milliseconds, moment, started
from flywheel.records import JsonObject

NAME = "litellm"
_CHAT = ("completion", "acompletion", "text_completion", "atext_completion", "responses")
_ABSENT = ("", "{}", "redacted-by-litellm")


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    return "call_type" in row and "startTime" in row and "messages" in row


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One payload.

    Raises:
        BadRecordError: it cannot be read.
    """
    kind = text(row.get("call_type")) or "completion"
    if kind.removeprefix("a") not in _CHAT and kind not in _CHAT:
        return [PassedOver(f"call_type_{kind:.40}")]
    params = object_of(row.get("model_parameters"))
    request: JsonObject = {
        **params,
        "model": first_of(row, "model_group") or row.get("model"),
        "messages": maybe_json(row.get("messages")),
    }
    if isinstance(request["messages"], str):
        request["prompt"] = request.pop("messages")
    request["model"] = request["model"] or row.get("model")
    fields = call_fields(source, request, _answer(row))
    begin, end = moment(row.get("startTime")), moment(row.get("endTime"))
    first = moment(row.get("completionStartTime")) if row.get("stream") else None
    return [
        interaction(
            source,
            NAME,
            {
                **fields,
                "interaction_id": _identity(row),
                "started_at": started(source, begin),
                "duration_ms": milliseconds(begin, end),
                "time_to_first_token_ms": milliseconds(begin, first),
                "trace_id": text(row.get("trace_id")),
                "conversation_id": _conversation(row) or fields["conversation_id"],
                "provider": text(row.get("custom_llm_provider")),
                **_tokens(row, fields),
                "cost_usd": _cost(row),
                "subject_key": pseudonym(_end_user(row, params), source),
                "tags": _tags(row),
            },
        )
    ]


def _identity(row: JsonObject) -> str:
    own = text(row.get("litellm_call_id"))
    return derived_id(NAME, own) if own else derived_id(NAME, canonical(row))


def _answer(row: JsonObject) -> JsonValue:
    response = without_nulls(maybe_json(row.get("response")))
    if row.get("status") == "failure":
        problem = object_of(row.get("error_information"))
        told = text(problem.get("error_message")) or text(row.get("error_str")) or "failed"
        kind = text(problem.get("error_class")) or text(problem.get("error_code")) or "failure"
        return {"error": {"type": kind, "message": told}}
    return None if response in _ABSENT or response == {} else response


def _tokens(row: JsonObject, fields: dict[str, object]) -> dict[str, object]:
    """The payload's counts; its 0 and 0 mean that nobody reported any."""
    read, written = count(row.get("prompt_tokens")), count(row.get("completion_tokens"))
    if not read and not written:
        return {"input_tokens": None, "output_tokens": None}
    return {
        "input_tokens": fields["input_tokens"] if read is None else read,
        "output_tokens": fields["output_tokens"] if written is None else written,
    }


def _cost(row: JsonObject) -> float | None:
    """0 stands for a price nobody knew, but for an answer from the cache."""
    cost = number(row.get("response_cost"))
    return cost if cost or row.get("cache_hit") is True else None


def _conversation(row: JsonObject) -> str | None:
    metadata = object_of(row.get("metadata"))
    return first_text(row.get("session_id"), metadata.get("session_id"), row.get("trace_id"))


def first_text(*values: JsonValue) -> str | None:
    """The first text that says something."""
    return next((value for value in values if isinstance(value, str) and value), None)


def _end_user(row: JsonObject, params: JsonObject) -> str | None:
    metadata = object_of(row.get("metadata"))
    return first_text(
        row.get("end_user"), metadata.get("user_api_key_end_user_id"), params.get("user")
    )


def _tags(row: JsonObject) -> JsonObject:
    tags: JsonObject = {
        "request_tags": row.get("request_tags") or None,
        "cache_hit": row.get("cache_hit"),
        "log_id": text(row.get("litellm_call_id")),
    }
    metadata = object_of(object_of(row.get("metadata")).get("requester_metadata"))
    tags["metadata"] = without_people(metadata) or None
    return {name: value for name, value in tags.items() if value is not None}
