"""`openai`: JSONL of `{request, response}`, or a batch's output joined with its input file.

A row may also carry `timestamp` (or `started_at`, `created_at`), `duration_ms`, `id` and `tags`.
Streams are stored as a list of chunks, or as the text of the event stream. Of a batch both files
are given: a line of the output, `{custom_id, response: {status_code, body}, error}`, finds its
request in the line of the input with the same `custom_id`.
"""

from collections.abc import Iterable

from pydantic import JsonValue

from flywheel.capture.importers.completion import call_fields, created, error_fields
from flywheel.capture.importers.row import (
    Outcome,
    PassedOver,
    Source,
    canonical,
    derived_id,
    first_of,
    interaction,
    number,
    object_of,
    person_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import moment, started
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject

NAME = "openai"
TIMES = ("started_at", "timestamp", "created_at", "startTime")


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    return ("request" in row and "response" in row) or "custom_id" in row


def requests_of(row: JsonObject) -> Iterable[tuple[str, JsonObject]]:
    """The request in a line of a batch's input file, under its key."""
    key, body = text(row.get("custom_id")), row.get("body")
    if key is not None and isinstance(body, dict):
        yield key, body


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One row.

    Raises:
        BadRecordError: it cannot be read.
    """
    if "custom_id" in row and "request" not in row:
        if "response" not in row and "error" not in row:
            return [PassedOver("batch_request")]  # joined with its answer, wherever that is
        return [_batch_answer(row, source)]
    return [pair(row, source, NAME, row.get("request"), row.get("response"))]


def _batch_answer(row: JsonObject, source: Source) -> Outcome:
    key = text(row.get("custom_id")) or ""
    requests = source.joined(key)
    if not requests:
        raise BadRecordError(
            "no_batch_request", f"custom_id {key!r:.80}: give the batch's input file as well"
        )
    if len({canonical(request) for request in requests}) > 1:
        raise BadRecordError(
            "ambiguous_batch_request",
            f"custom_id {key!r:.80} is in the input files with different requests: import one "
            "batch at a time",
        )
    response = object_of(row.get("response"))
    body = response.get("body")
    failed = row.get("error") is not None or (number(response.get("status_code")) or 200) >= 400
    if failed and "error" not in object_of(body):
        body = {"error": first_of(row, "error") or body or "failed"}
    return pair(row, source, NAME, requests[0], body)


def pair(
    row: JsonObject, source: Source, name: str, request: JsonValue, response: JsonValue
) -> Outcome:
    """A request and its answer with whatever else the row says.

    The identity is the row's content, not the completion's own id: local servers give every answer
    the same one.

    Raises:
        BadRecordError: it cannot be read.
    """
    fields = call_fields(source, request, response)
    stated = moment(first_of(row, *TIMES))
    if row.get("error") is not None and fields.get("error_type") in (None, "unknown"):
        fields |= {"status": "error", **error_fields(row["error"])}
    tags = object_of(first_of(row, "tags", "metadata"))
    return interaction(
        source,
        name,
        {
            **fields,
            "interaction_id": derived_id(name, canonical(row)),
            "started_at": started(source, stated, created(response)),
            "duration_ms": number(row.get("duration_ms")),
            "tags": {**without_people(tags), **_log_id(row)},
            "subject_key": fields["subject_key"] or pseudonym(person_of(tags), source),
        },
    )


def _log_id(row: JsonObject) -> JsonObject:
    own = first_of(row, "custom_id", "id")
    return {"log_id": own} if isinstance(own, str) else {}
