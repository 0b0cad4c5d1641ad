"""`nvidia`: what NVIDIA's data flywheel blueprint logs, `{timestamp, workload_id, client_id, …}`.

`timestamp` is in seconds. `usage` and `id` may be missing; tool arguments may be text or parsed.
`workload_id` and `client_id` (a deployment, not a person) stay as tags.
"""

from flywheel.capture.importers.openai import pair
from flywheel.capture.importers.row import Outcome, Source, object_of
from flywheel.records import JsonObject

NAME = "nvidia"


def looks_like(row: JsonObject) -> bool:
    """Whether a row is of this format."""
    return "request" in row and "response" in row and ("workload_id" in row or "client_id" in row)


def read(row: JsonObject, source: Source) -> list[Outcome]:
    """One row.

    Raises:
        BadRecordError: it cannot be read.
    """
    tags = dict(object_of(row.get("tags")))
    tags |= {name: row[name] for name in ("workload_id", "client_id") if name in row}
    tagged: JsonObject = {**row, "tags": tags}
    return [pair(tagged, source, NAME, row.get("request"), row.get("response"))]
