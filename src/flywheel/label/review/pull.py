"""`flywheel review pull`: answers in MLflow's review queues -> assessments, once.

Input: the traces that were put to raters, and what people said on them. Output: rows of
`assessments`; an answer nobody could have given (an unknown rater, an option not offered) goes to
`quarantine`. Pulling twice adds nothing; an answer edited since supersedes what was pulled.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from flywheel.errors import BadRecordError
from flywheel.label.review.answers import declined, inclusion_of, key_of, to_assessment
from flywheel.label.review.candidates import read_asked
from flywheel.label.review.section import experiment_of, queue_of, section_of
from flywheel.lake import Lake
from flywheel.records import Assessment, QuarantineRecord, Record, ReviewItem, utcnow
from flywheel.reviews import ReviewSection
from flywheel.tracking import Answer, ReviewQueues, Tracker
from flywheel.workload import Workload

_PULLED = """
SELECT * FROM assessments
WHERE workload = $1 AND source_type = 'human' AND rubric IS NOT NULL AND status <> 'error'
ORDER BY created_at, assessment_id
"""


class PullReport(Record):
    """What a pull brought back."""

    answers: int
    """Found in MLflow."""
    written: int
    """New assessments; edited ones among them."""
    edited: int
    """Of those, the ones that supersede an earlier answer."""
    quarantined: int
    """Answers that could not be taken; `flywheel sql "select * from quarantine"`."""
    reasons: dict[str, int]
    declined: int
    """Items raters set aside."""
    missing_queues: tuple[str, ...] = ()
    """Deleted in MLflow. What was answered is kept; `flywheel review push` makes them anew."""
    missing_traces: int = 0
    """Traces deleted in MLflow; likewise."""


def pull_reviews(
    lake: Lake, workload: Workload, tracker: Tracker, *, now: datetime | None = None
) -> PullReport:
    """Brings back every answer that is not in the lake yet.

    Raises:
        ConfigError: the workload has no `review` section.
        UpstreamUnavailableError: MLflow does not answer; nothing was changed.
        TrackingError: it is too old to have review queues.
    """
    section = section_of(workload)
    asked = read_asked(lake, workload, section).items
    if not asked:
        return _report([], [], [], Counter())
    door = ReviewQueues(tracker, experiment_of(workload))
    rows: dict[str, list[ReviewItem]] = defaultdict(list)
    for item in asked:
        rows[item.trace_id].append(item)
    answers = door.traces(list(rows))
    queues = door.queues()
    good, bad = _read_all(section, rows, answers, now or utcnow())
    expected = {queue_of(item) for item in asked}
    statuses = {trace: state for queue in queues.values() for trace, state in queue.items.items()}
    aside = [
        declined(section, items[0], now or utcnow())
        for trace_id, items in rows.items()
        if statuses.get(trace_id) == "declined" and not answers.get(trace_id)
    ]
    fresh = _superseding(good, lake.fetch(Assessment, _PULLED, [workload.name]))
    written = lake.append([*fresh, *aside]).written if fresh or aside else 0
    if bad:
        lake.append(bad)
    counts = Counter(
        answers=sum(len(given) for given in answers.values()),
        written=written,
        missing_traces=len(rows) - len(answers),
    )
    return _report(fresh, bad, aside, counts, missing=sorted(expected - set(queues)))


def _report(
    fresh: Sequence[Assessment],
    bad: Sequence[QuarantineRecord],
    aside: Sequence[Assessment],
    counts: Counter[str],
    *,
    missing: Sequence[str] = (),
) -> PullReport:
    return PullReport(
        answers=counts["answers"],
        written=counts["written"],
        edited=sum(1 for one in fresh if one.supersedes is not None),
        quarantined=len(bad),
        reasons=dict(Counter(one.reason for one in bad)),
        declined=len(aside),
        missing_queues=tuple(missing),
        missing_traces=counts["missing_traces"],
    )


def _read_all(
    section: ReviewSection,
    rows: Mapping[str, list[ReviewItem]],
    answers: Mapping[str, list[Answer]],
    now: datetime,
) -> tuple[list[Assessment], list[QuarantineRecord]]:
    good: list[Assessment] = []
    bad: list[QuarantineRecord] = []
    for trace_id, given in answers.items():
        inclusion = inclusion_of(rows, trace_id)
        said: list[Assessment] = []
        for answer, later in _in_turn(section, given):
            try:
                said.append(
                    to_assessment(
                        section, rows[trace_id][0], answer, inclusion_prob=inclusion, later=later
                    )
                )
            except BadRecordError as error:
                bad.append(_quarantined(answer, error, now))
        good += _with_verdicts(said)
    return good, bad


def _with_verdicts(said: Sequence[Assessment]) -> list[Assessment]:
    """Corrections with the verdict given beside them, which they supersede.

    Without it a mean of the verdicts would be one of the answers that needed no correction.
    """
    verdicts = {
        key_of(one): {"value": one.value, "label": one.label}
        for one in said
        if one.kind == "feedback" and (one.value is not None or one.label is not None)
    }
    return [
        one.model_copy(update=verdicts.get(key_of(one), {})) if one.kind == "correction" else one
        for one in said
    ]


def _in_turn(section: ReviewSection, given: Sequence[Answer]) -> Iterator[tuple[Answer, timedelta]]:
    """The answers of a trace; a correction counts after the verdict submitted with it.

    MLflow's page sends the answers of one form side by side, so their times say nothing.
    """
    kinds = {title: section.questions[key].kind for key, title in section.titles.items()}
    last = max((answer.answered_at for answer in given), default=None)
    for answer in given:
        is_correction = kinds.get(answer.title) == "correction"
        later = timedelta()
        if is_correction and last is not None:
            later = last - answer.answered_at + timedelta(microseconds=1)
        yield answer, later


def _superseding(pulled: Sequence[Assessment], known: Sequence[Assessment]) -> list[Assessment]:
    """What is new, each with the answer of the same rater it replaces."""
    ids = {one.assessment_id for one in known}
    latest = {key_of(one): one.assessment_id for one in known if one.status == "submitted"}
    fresh = []
    for one in sorted(pulled, key=lambda one: (one.created_at, one.assessment_id)):
        if one.assessment_id not in ids:
            replaced = latest.get(key_of(one))
            fresh.append(one.model_copy(update={"supersedes": replaced}))
            latest[key_of(one)] = one.assessment_id
    return fresh


def _quarantined(answer: Answer, error: BadRecordError, now: datetime) -> QuarantineRecord:
    identity = "\0".join(("review pull", answer.answer_id, answer.answered_at.isoformat()))
    payload = {
        "trace_id": answer.trace_id,
        "question": answer.title,
        "value": answer.value,
        "rationale": answer.rationale,
        "user": answer.user,
        "answered_at": answer.answered_at.isoformat(),
    }
    return QuarantineRecord(
        quarantine_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        event_date=now.date(),
        created_at=now,
        source=f"review:{answer.trace_id}",
        reason=error.reason,
        detail=error.detail,
        payload=json.dumps(payload, ensure_ascii=False).encode(),
    )
