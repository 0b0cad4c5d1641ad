"""`flywheel label summary`: who judged what, when, and what it amounts to."""

from datetime import date
from importlib.resources import files

from flywheel.lake import Lake
from flywheel.records import Assessment, Record, SourceType

_STATE = """
SELECT
    count(*) AS labelled,
    count(*) FILTER (correction IS NULL AND value IS NULL AND label IS NULL) AS disagreements,
    count(correction) AS corrected,
    (SELECT count(*) FROM interactions WHERE workload = $1) AS interactions
FROM labels
WHERE workload = $1 AND name = $2
"""


class LabelCount(Record):
    """Judgements of one rater on one question on one day."""

    name: str
    source_type: SourceType
    source_id: str | None
    day: date
    """UTC."""
    judgements: int
    in_force: int
    """Neither withdrawn nor replaced by name, nor failed."""
    failed: int
    corrections: int
    mean_value: float | None


class LabelState(Record):
    """What the judgements on one question amount to."""

    name: str
    interactions: int
    """Captured, of the workload."""
    labelled: int
    """Interactions somebody judged, those not captured here included."""
    corrected: int
    """Of those, the ones whose label is another answer."""
    disagreements: int
    """Of those, the ones whose raters disagree: they are no label."""


_NEWEST = """
SELECT * FROM assessments
WHERE workload = $1
    AND ($2::VARCHAR IS NULL OR name = $2)
    AND ($3::VARCHAR IS NULL OR source_id = $3)
    AND ($4::VARCHAR IS NULL OR interaction_id = $4)
ORDER BY created_at DESC, assessment_id DESC
LIMIT $5
"""


class LabelFilter(Record):
    """Which judgements are listed; a field left out restricts nothing."""

    name: str | None = None
    source_id: str | None = None
    interaction_id: str | None = None


def list_judgements(
    lake: Lake, workload: str, wanted: LabelFilter, *, limit: int = 20
) -> list[Assessment]:
    """Judgements, newest first."""
    params = [workload, wanted.name, wanted.source_id, wanted.interaction_id, limit]
    return lake.fetch(Assessment, _NEWEST, params)


def count_labels(lake: Lake, workload: str) -> list[LabelCount]:
    """Judgements by question, source, rater and day."""
    sql = (files("flywheel.label") / "counts.sql").read_text(encoding="utf-8")
    return lake.fetch(LabelCount, sql, [workload])


def label_state(lake: Lake, workload: str, name: str) -> LabelState:
    """The resolved labels of one question, counted."""
    (row,) = lake.query(_STATE, [workload, name]).to_pylist()
    return LabelState(name=name, **row)
