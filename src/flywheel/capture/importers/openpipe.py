"""`openpipe`: `{input: request, output: response, tags}`, or a row of its report API.

The report API's names are `reqPayload`, `respPayload`, `requestedAt`, `receivedAt` (milliseconds),
`statusCode`, `errorMessage`. Payloads may be JSON in a string.
"""

from flywheel.capture.importers.completion import call_fields, created
from flywheel.capture.importers.row import (
    Outcome,
    Source,
    canonical,
    derived_id,
    first_of,
    interaction,
    maybe_json,
    number,
    object_of,
    person_of,
    pseudonym,
    text,
    without_people,
)
from flywheel.capture.importers.when import milliseconds, moment, started
from flywheel.records import JsonObject

NAME = "openpipe"


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    request = maybe_json(first_of(row, "input", "reqPayload"))
    return ("output" in row or "respPayload" in row) and "messages" in object_of(request)


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One row.

    Raises:
        BadRecordError: it cannot be read.
    """
    request = maybe_json(first_of(row, "input", "reqPayload"))
    response = maybe_json(first_of(row, "output", "respPayload"))
    has_failed = (number(row.get("statusCode")) or 200) >= 400
    if has_failed and "error" not in object_of(response):
        told = text(row.get("errorMessage")) or "failed"
        response = {"error": {"message": told, "type": f"http_{row.get('statusCode')}"}}
    fields = call_fields(source, request, response)
    asked = moment(first_of(row, "requestedAt", "timestamp", "started_at"))
    received = moment(row.get("receivedAt"))
    tags = object_of(row.get("tags"))
    return [
        interaction(
            source,
            NAME,
            {
                **fields,
                "interaction_id": derived_id(NAME, canonical(row)),
                "started_at": started(source, asked, created(response)),
                "duration_ms": milliseconds(asked, received),
                "tags": without_people(tags),
                "subject_key": fields["subject_key"] or pseudonym(person_of(tags), source),
            },
        )
    ]
