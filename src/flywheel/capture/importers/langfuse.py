"""`langfuse`: exported observations of type GENERATION, and scores, which become assessments.

Both spellings: the API's (`startTime`, `traceId`) and the blob export's (`start_time`, `trace_id`).
`input` and `output` may be JSON in a string. Observations of other types are passed over.
"""

from datetime import datetime

from pydantic import JsonValue

from flywheel.capture.importers.completion import call_fields, compact
from flywheel.capture.importers.row import (
    Outcome,
    PassedOver,
    Source,
    assessment,
    canonical,
    count,
    derived_id,
    first_of,
    interaction,
    maybe_json,
    number,
    object_of,
    objects_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import milliseconds, moment, started
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, JsonObject

NAME = "langfuse"
_SOURCES = {"ANNOTATION": "human", "EVAL": "llm_judge", "API": "end_user"}
"""API is how applications send what their users say."""


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    has_trace = "traceId" in row or "trace_id" in row
    return has_trace and ("type" in row or _is_score(row))


def _is_score(row: JsonObject) -> bool:
    return "name" in row and "value" in row and "type" not in row


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One observation with the scores in it, or one score.

    Raises:
        BadRecordError: it cannot be read.
    """
    if _is_score(row):
        return [_score(row, source, observation=None)]
    kind = text(row.get("type")) or "GENERATION"
    if kind != "GENERATION":
        return [PassedOver(f"observation_{kind:.40}")]
    own = text(row.get("id"))
    identity = derived_id(NAME, own) if own else derived_id(NAME, canonical(row))
    call = interaction(source, NAME, _generation(row, source, identity))
    scores = objects_of(row.get("scores"))
    return [call, *(_score(score, source, observation=identity) for score in scores)]


def _generation(row: JsonObject, source: Source, identity: str) -> dict[str, object]:
    begin = moment(first_of(row, "startTime", "start_time"))
    end = moment(first_of(row, "endTime", "end_time"))
    first = moment(first_of(row, "completionStartTime", "completion_start_time"))
    fields = call_fields(source, _request(row), _response(row))
    return {
        **fields,
        "interaction_id": identity,
        "started_at": started(source, begin),
        "duration_ms": milliseconds(begin, end),
        "time_to_first_token_ms": milliseconds(begin, first),
        "trace_id": text(first_of(row, "traceId", "trace_id")),
        "span_id": text(row.get("id")),
        "parent_span_id": text(first_of(row, "parentObservationId", "parent_observation_id")),
        "conversation_id": _conversation(row),
        **_usage(row, fields),
        "cost_usd": _cost(row),
        "subject_key": pseudonym(first_of(row, "userId", "user_id"), source)
        or fields["subject_key"],
        "tags": _tags(row),
    }


def _request(row: JsonObject) -> JsonObject:
    """`input` is the messages, a request with messages in it, or a prompt."""
    asked = maybe_json(row.get("input"))
    parameters = object_of(maybe_json(first_of(row, "modelParameters", "model_parameters")))
    model = first_of(row, "model", "provided_model_name", "providedModelName")
    request: JsonObject = {**parameters, "model": model}
    if isinstance(asked, dict) and ("messages" in asked or "prompt" in asked):
        return {**request, **asked, "model": model or asked.get("model")}
    if isinstance(asked, list):
        return {**request, "messages": asked}
    if isinstance(asked, dict) and "role" in asked:
        return {**request, "messages": [asked]}
    if isinstance(asked, dict):
        return {**request, "prompt": compact(asked)}
    return {**request, "prompt": asked}


def _response(row: JsonObject) -> JsonValue:
    if row.get("level") == "ERROR":
        told = first_of(row, "statusMessage", "status_message")
        return {"error": {"type": "error", "message": told}}
    answer = maybe_json(row.get("output"))
    if answer in (None, ""):
        return None
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict):
        answer = answer[0]
    if isinstance(answer, dict) and not {"choices", "content", "tool_calls", "error"} & set(answer):
        answer = compact(answer)  # structured output that an SDK parsed
    return {"role": "assistant", "content": answer} if isinstance(answer, str) else answer


def _usage(row: JsonObject, fields: dict[str, object]) -> dict[str, object]:
    details = object_of(first_of(row, "usageDetails", "usage_details", "usage"))
    asked = count(first_of(details, "input", "prompt_tokens", "promptTokens"))
    given = count(first_of(details, "output", "completion_tokens", "completionTokens"))
    cached = count(first_of(details, "input_cached_tokens", "cache_read_input_tokens"))
    reasoning = count(first_of(details, "output_reasoning_tokens", "reasoning_tokens"))
    found = {"input_tokens": asked, "output_tokens": given}
    found |= {"cached_input_tokens": cached, "reasoning_tokens": reasoning}
    return {name: fields[name] if value is None else value for name, value in found.items()}


def _cost(row: JsonObject) -> float | None:
    """0 stands for a model without a price."""
    details = object_of(first_of(row, "costDetails", "cost_details"))
    total = first_of(row, "totalCost", "total_cost", "calculatedTotalCost")
    return number(first_of(details, "total") or total) or None


def _conversation(row: JsonObject) -> str | None:
    session = text(first_of(row, "sessionId", "session_id"))
    return session or text(first_of(row, "traceId", "trace_id"))


def _tags(row: JsonObject) -> JsonObject:
    metadata = object_of(maybe_json(row.get("metadata")))
    tags = {"log_id": row.get("id"), "name": row.get("name"), "tags": row.get("tags")}
    tags |= {"environment": row.get("environment"), "metadata": without_people(metadata) or None}
    return {name: value for name, value in tags.items() if value}


def _score(row: JsonObject, source: Source, *, observation: str | None) -> Assessment:
    """Of an observation, or of a trace: then `front.settle` looks whose call that is."""
    judged = text(first_of(row, "observationId", "observation_id"))
    target = observation or (derived_id(NAME, judged) if judged else None)
    trace = text(first_of(row, "traceId", "trace_id"))
    session = text(first_of(row, "sessionId", "session_id"))
    if target is None and trace is None and session is None:
        raise BadRecordError("no_target", "the score judges no observation, trace or session")
    kind = text(first_of(row, "dataType", "data_type")) or "NUMERIC"
    label = text(first_of(row, "stringValue", "string_value"))
    if label is None and isinstance(row.get("value"), str):
        label = text(row.get("value"))
    value = number(row.get("value")) if kind in ("NUMERIC", "BOOLEAN") else None
    comment = text(row.get("comment"))
    return assessment(
        source,
        {
            "assessment_id": _score_id(row),
            "interaction_id": target,
            "conversation_id": None if target else trace or session,
            "name": text(row.get("name")) or "score",
            "kind": "feedback",
            "value": value,
            "label": label if value is None else None,
            "rationale": comment,
            "source_type": _SOURCES.get(str(row.get("source")), "end_user"),
            "source_id": pseudonym(first_of(row, "authorUserId", "author_user_id"), source),
            "created_at": _when(row, source),
        },
    )


def _score_id(row: JsonObject) -> str:
    own = text(row.get("id"))
    return derived_id(NAME, "score", own or canonical(row))


def _when(row: JsonObject, source: Source) -> datetime:
    return started(source, moment(first_of(row, "timestamp", "createdAt", "created_at")))
