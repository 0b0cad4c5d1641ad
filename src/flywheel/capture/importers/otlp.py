"""`otlp`: spans of OpenTelemetry, as files of OTLP/JSON or protobuf, or live at `/v1/traces`.

A span that is a model call becomes an interaction, in whichever of five dialects it is written:
the GenAI conventions since 1.37 (messages on the span), those before (`gen_ai.prompt.0.…`, or an
event a message, on the span or in log records given beside it), OpenInference, MLflow's tracing.
Other spans are passed over. `gen_ai.evaluation.result` events become assessments.
A call is known by its trace and span id; one of Flywheel's own by `flywheel.interaction_id`, so
that it comes back as the one it was.
"""

from datetime import timedelta

from pydantic import JsonValue

from flywheel.capture.importers.dialects import fields_of
from flywheel.capture.importers.log_events import log_events
from flywheel.capture.importers.row import (
    Outcome,
    PassedOver,
    Rejected,
    Source,
    assessment,
    canonical,
    derived_id,
    first_of,
    interaction,
    number,
    object_of,
    own_uuid,
    pseudonym,
    text,
)
from flywheel.capture.importers.spans import Event, Span, at, spans_of_json
from flywheel.capture.importers.when import milliseconds, started
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, JsonObject

NAME = "otlp"
EVALUATION = "gen_ai.evaluation.result"
_FIRST_TOKEN = ("First Token Stream Event", "mlflow.chunk.item.0", "gen_ai.content.first_token")
_PEOPLE = ("enduser.id", "user.id", "enduser.pseudo.id", "gen_ai.user.id", "mlflow.trace.user")
_TAGS = ("service.name", "deployment.environment.name", "gen_ai.agent.name", "gen_ai.response.id")
events_of = log_events


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    return "resourceSpans" in row or "resourceLogs" in row


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """Every span of one document.

    Raises:
        BadRecordError: `no_spans`: it is none.
    """
    if "resourceLogs" in row and "resourceSpans" not in row:
        return [PassedOver("log_records")]  # their content is joined with its span
    if "resourceSpans" not in row:
        raise BadRecordError("no_spans", "there is no resourceSpans in it")
    return [outcome for span in spans_of_json(row) for outcome in read_span(span, source)]


def read_span(span: Span, source: Source) -> list[Outcome]:
    """What one span comes to; a span that cannot be read is rejected alone."""
    try:
        return _read(span, source)
    except BadRecordError as error:
        return [Rejected(error.reason, error.detail, canonical(span.as_json()))]


def _read(span: Span, source: Source) -> list[Outcome]:
    fields = fields_of(span, source)
    if fields is None:
        return [PassedOver("other_span")]
    if not span.trace_id.strip("0") or not span.span_id.strip("0"):
        raise BadRecordError("bad_span_ids", f"{span.trace_id!r}, {span.span_id!r}: not ids")
    attributes = span.attributes
    begin, end = at(span.start_ns), at(span.end_ns)
    named = own_uuid(attributes.get("flywheel.interaction_id"))
    identity = named or derived_id(NAME, span.trace_id, span.span_id)
    call = interaction(
        source,
        NAME,
        {
            **fields,
            "interaction_id": identity,
            "workload": _workload(span, source),
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_span_id": span.parent_span_id or None,
            "conversation_id": text(
                first_of(attributes, "gen_ai.conversation.id", "session.id", "conversation.id")
            ),
            "started_at": started(source, begin),
            "duration_ms": milliseconds(begin, end),
            "time_to_first_token_ms": _first_token(span),
            "arm": text(attributes.get("flywheel.arm")),
            "adapter": text(attributes.get("flywheel.adapter")),
            "subject_key": pseudonym(first_of(attributes, *_PEOPLE), source),
            "tags": _tags(span, has_content=bool(fields["messages"])),
        },
    )
    logged = [event_of(record) for record in source.joined(span.key)]
    judged = [event for event in (*span.events, *logged) if event.name == EVALUATION]
    of = {"interaction_id": identity, "workload": call.workload}
    return [call, *(evaluation(event, span, source, of) for event in judged)]


def event_of(record: JsonObject) -> Event:
    """A log record as the event of a span that it might have been."""
    time_ns = record.get("time_ns")
    attributes = object_of(record.get("attributes")) | object_of(record.get("body"))
    name = text(record.get("name")) or ""
    return Event(name, time_ns if isinstance(time_ns, int) else 0, attributes)


def _workload(span: Span, source: Source) -> str:
    named = text(first_of({**span.resource, **span.attributes}, "flywheel.workload"))
    if named is None or not source.workloads or named == source.workload:
        return source.workload
    if named not in source.workloads:
        known = ", ".join(sorted(source.workloads | {source.workload}))
        raise BadRecordError("unknown_workload", f"flywheel.workload {named!r:.80}; valid: {known}")
    return named


def _first_token(span: Span) -> float | None:
    """In milliseconds; the conventions give seconds."""
    names = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
    seconds = number(first_of(span.attributes, *names))
    if seconds is not None:
        return seconds * 1000
    begin = at(span.start_ns)
    times = [at(event.time_ns) for event in span.events if event.name in _FIRST_TOKEN]
    return milliseconds(begin, times[0]) if times else None


def _tags(span: Span, *, has_content: bool) -> JsonObject:
    """Named ones only: attributes carry addresses and people under names nobody can list."""
    known = {**span.resource, **span.attributes}
    tags: dict[str, JsonValue] = {name: known[name] for name in _TAGS if text(known.get(name))}
    if span.scope:
        tags["scope"] = span.scope
    if not has_content:
        tags["content"] = "not recorded"
    return tags


def evaluation(event: Event, span: Span, source: Source, judged: dict[str, str]) -> Assessment:
    """The judgement in a `gen_ai.evaluation.result` event.

    The conventions do not say who evaluated: filed as `code`, which outranks nobody.

    Args:
        event: the event.
        span: the call it was written in.
        source: the import.
        judged: `interaction_id` and `workload` of the call.

    Raises:
        BadRecordError: `missing_timestamp`, `invalid_record`.
    """
    found = event.attributes
    name = text(found.get("gen_ai.evaluation.name")) or "evaluation"
    when = at(event.time_ns) or at(span.end_ns)
    error = text(found.get("error.type"))
    return assessment(
        source,
        {
            **judged,
            "assessment_id": derived_id(
                NAME, span.trace_id, span.span_id, name, str(event.time_ns), canonical(found)
            ),
            "name": name,
            "kind": "feedback",
            "value": None if error else number(found.get("gen_ai.evaluation.score.value")),
            "label": text(found.get("gen_ai.evaluation.score.label")),
            "rationale": text(found.get("gen_ai.evaluation.explanation")),
            "source_type": "code",
            "status": "error" if error else "submitted",
            "error_type": error,
            "created_at": started(source, when) + timedelta(0),
        },
    )
