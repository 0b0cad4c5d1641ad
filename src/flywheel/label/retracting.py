"""`flywheel label retract`: a rater's judgements stop teaching, and nothing is overwritten.

For each judgement in force a row with status `discarded` that supersedes it is appended. What the
rater judged of the same response before the time given, and then replaced, counts again.
Retracting twice adds nothing. Snapshots and adapters that learned from the judgements stay as they
are: the next snapshot is built without them.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from flywheel.lake import Lake
from flywheel.records import Assessment, Record, UtcDatetime, utcnow

_IN_FORCE = """
SELECT * FROM assessments
WHERE workload = $1 AND source_id = $2 AND status = 'submitted'
    AND ($3::TIMESTAMPTZ IS NULL OR created_at >= $3)
    AND ($4::TIMESTAMPTZ IS NULL OR created_at < $4)
    AND ($5::VARCHAR IS NULL OR name = $5)
    AND assessment_id NOT IN (SELECT supersedes FROM assessments WHERE supersedes IS NOT NULL)
ORDER BY created_at, assessment_id
"""


class Retraction(Record):
    """Which judgements are withdrawn."""

    workload: str
    source_id: str
    """Whose."""
    since: UtcDatetime | None = None
    """Only those made at or after."""
    until: UtcDatetime | None = None
    """Only those made before."""
    name: str | None = None
    """Only answers to this question."""
    reason: str | None = None
    """Why, for whoever reads the table."""


class RetractReport(Record):
    """What a retraction found."""

    judgements: int
    """Judgements taken out of force; with a dry run, that would be."""
    items: int
    """Different answers and pairs of answers among them."""
    names: dict[str, int]


def retract(
    lake: Lake, retraction: Retraction, *, is_dry_run: bool = False, now: datetime | None = None
) -> RetractReport:
    """Withdraws what one source judged.

    Args:
        lake: Where the judgements are.
        retraction: Which of them.
        is_dry_run: Count, append nothing.
        now: When they are withdrawn.
    """
    now = now or utcnow()
    asked = retraction
    params = [asked.workload, asked.source_id, asked.since, asked.until, asked.name]
    found = lake.fetch(Assessment, _IN_FORCE, params)
    if found and not is_dry_run:
        lake.append([_withdrawal(judgement, asked.reason, now) for judgement in found])
    return _report(found)


def _withdrawal(judgement: Assessment, reason: str | None, now: datetime) -> Assessment:
    """The row that takes a judgement out of force. It repeats nothing of its content."""
    identity = f"retract\0{judgement.assessment_id}"
    return Assessment(
        assessment_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        workload=judgement.workload,
        event_date=now.astimezone(UTC).date(),
        interaction_id=judgement.interaction_id,
        conversation_id=judgement.conversation_id,
        pair_ids=judgement.pair_ids,
        name=judgement.name,
        kind="feedback",
        rationale=reason,
        source_type=judgement.source_type,
        source_id=judgement.source_id,
        status="discarded",
        supersedes=judgement.assessment_id,
        created_at=now,
    )


def _item(judgement: Assessment) -> tuple[str, ...]:
    """What was judged. A pair has no interaction of its own, and is the same in both orders."""
    if judgement.pair_ids is not None:
        return tuple(sorted(judgement.pair_ids))
    return (judgement.interaction_id or judgement.conversation_id or "",)


def _report(judgements: Sequence[Assessment]) -> RetractReport:
    names = [judgement.name for judgement in judgements]
    return RetractReport(
        judgements=len(judgements),
        items=len({_item(judgement) for judgement in judgements}),
        names={name: names.count(name) for name in sorted(set(names))},
    )
