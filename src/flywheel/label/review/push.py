"""`flywheel review push`: what is worth asking -> traces and queues in MLflow.

Input: the lake and the workload's `review` section. Output: rows of `review_items`, then traces and
queues in MLflow. Doing it again adds only what the budget has room for: what waits in a queue
counts. What a killed push, or somebody in the UI, left missing is made anew.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from flywheel.errors import ConfigError
from flywheel.label.review.candidates import (
    Asked,
    read_asked,
    read_candidates,
    read_disputed,
    read_gold,
)
from flywheel.label.review.plan import (
    Plan,
    PlannedItem,
    item_key,
    plan_adjudication,
    plan_review,
)
from flywheel.label.review.pull import PullReport, pull_reviews
from flywheel.label.review.section import experiment_of, queue_of, section_of
from flywheel.label.review.show import show, trace_id_of
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction, Record, ReviewItem, utcnow
from flywheel.reviews import ReviewSection
from flywheel.tracking import ReviewQueues, Tracker
from flywheel.workload import Workload

_INTERACTIONS = """
SELECT * FROM interactions
WHERE workload = $1 AND interaction_id IN (SELECT unnest($2::VARCHAR[]))
"""
_JUDGED = """
SELECT * FROM assessments
WHERE workload = $1 AND source_type = 'llm_judge'
    AND interaction_id IN (SELECT unnest($2::VARCHAR[]))
"""


class QueueReport(Record):
    """One queue after a push."""

    rater: str
    queue: str
    new: int
    """Items put to the rater now."""
    waiting: int
    """Items without an answer, new ones included."""
    url: str | None
    """Where the rater's browser finds it; NULL without an MLflow server."""


class PushReport(Record):
    """What a push did, or would do."""

    plan: Plan
    queues: tuple[QueueReport, ...]
    pulled: PullReport | None
    """The pull every push begins with; NULL for a dry run."""


def plan_push(lake: Lake, workload: Workload, *, adjudicate: bool = False) -> Plan:
    """What a push would ask now, by what the lake knows; changes nothing.

    Raises:
        ConfigError: no `review` section, or nobody to adjudicate.
    """
    section = section_of(workload)
    return _plan(lake, workload, section, read_asked(lake, workload, section), adjudicate)


def push_reviews(
    lake: Lake,
    workload: Workload,
    tracker: Tracker,
    *,
    adjudicate: bool = False,
    now: datetime | None = None,
) -> PushReport:
    """Pulls, plans, and puts to every rater what their minutes have room for.

    Args:
        lake: What is asked about, and where it is written down.
        workload: Its `review` section says who, what and how long.
        tracker: The MLflow whose review queues raters work in.
        adjudicate: Ask `review.adjudicators` about what raters disagree on, instead.
        now: When the items are put.

    Raises:
        ConfigError: no `review` section, or nobody to adjudicate.
        UpstreamUnavailableError: MLflow does not answer; run it again.
        TrackingError: it is too old, or has other questions under the same titles.
    """
    section, now = section_of(workload), now or utcnow()
    door = ReviewQueues(tracker, experiment_of(workload))
    schemas = door.ensure_questions(section.questions)
    pulled = pull_reviews(lake, workload, tracker, now=now)
    asked = read_asked(lake, workload, section)
    plan = _plan(lake, workload, section, asked, adjudicate)
    new = [_record(workload.name, section, one, now) for one in plan.items]
    adopted = list(_adopted(plan.already_asked, asked.items, now))
    if new or adopted:
        # Before MLflow: what is there without being known here could never be pulled.
        lake.append([*new, *adopted])
    open_items = [*asked.open_items(section), *new]
    _write_traces(lake, section, door, tracker, open_items)
    reports = _fill_queues(section, door, schemas, open_items, new)
    return PushReport(plan=plan, queues=tuple(reports), pulled=pulled)


def _plan(
    lake: Lake, workload: Workload, section: ReviewSection, asked: Asked, adjudicate: bool
) -> Plan:
    state = asked.state(section)
    if adjudicate:
        if not section.adjudicators:
            raise ConfigError(
                f"workload {workload.name}",
                ["review.adjudicators is empty: name who decides where raters disagree"],
            )
        return plan_adjudication(section, read_disputed(lake, workload, section), state)
    seen = {item for items in state.asked.values() for item in items}
    candidates = read_candidates(lake, workload, section, seen)
    return plan_review(section, candidates, read_gold(lake, workload, section), state)


def _record(
    workload: str, section: ReviewSection, planned: PlannedItem, now: datetime
) -> ReviewItem:
    is_last_word = planned.reason == "adjudication"
    trace_id = trace_id_of(
        workload,
        planned.rater,
        planned.item,
        "adjudication" if is_last_word else "1",
        section.guideline,
    )
    return ReviewItem(
        review_item_id=trace_id.removeprefix("tr-"),
        workload=workload,
        created_at=now,
        trace_id=trace_id,
        rater=planned.rater,
        interaction_ids=planned.interaction_ids,
        presented_order=planned.presented_order,
        reason=planned.reason,
        inclusion_prob=planned.inclusion_prob,
        round="adjudication" if is_last_word else "1",
        guideline=section.guideline,
        blinded=section.blinded and not section.show_judges,
        position=planned.position,
    )


def _adopted(
    drawn: Sequence[PlannedItem], asked: Sequence[ReviewItem], now: datetime
) -> Iterable[ReviewItem]:
    """Items the random slice drew after somebody was asked them: the same traces, told again."""
    probability = {one.item: one.inclusion_prob for one in drawn}
    for one in asked:
        item = item_key(one.interaction_ids)
        if item in probability and one.round == "1":
            yield one.model_copy(
                update={
                    "review_item_id": f"{one.trace_id.removeprefix('tr-')}-random",
                    "reason": "random",
                    "inclusion_prob": probability[item],
                    "created_at": now,
                }
            )


def _write_traces(
    lake: Lake,
    section: ReviewSection,
    door: ReviewQueues,
    tracker: Tracker,
    items: Sequence[ReviewItem],
) -> None:
    """Writes the traces that are not there; of an interaction that was erased since, none."""
    there = door.traces([item.trace_id for item in items])
    missing = [item for item in items if item.trace_id not in there]
    if not missing:
        return
    params = [missing[0].workload, sorted({one for i in missing for one in i.interaction_ids})]
    known = {one.interaction_id: one for one in lake.fetch(Interaction, _INTERACTIONS, params)}
    whole = [item for item in missing if set(item.interaction_ids) <= set(known)]
    door.log_traces(show(item, known) for item in whole)
    if section.show_judges:
        judged: dict[str, list[Assessment]] = defaultdict(list)
        for row in lake.fetch(Assessment, _JUDGED, params):
            judged[row.interaction_id or ""].append(row)
        for item in whole:
            rows = [row for one in item.interaction_ids for row in judged[one]]
            tracker.log_assessments(item.trace_id, rows)


def _fill_queues(
    section: ReviewSection,
    door: ReviewQueues,
    schemas: Mapping[str, str],
    items: Sequence[ReviewItem],
    new: Sequence[ReviewItem],
) -> list[QueueReport]:
    by_queue: dict[str, list[ReviewItem]] = defaultdict(list)
    for item in items:
        if item.guideline == section.guideline:
            by_queue[queue_of(item)].append(item)
    fresh = {item.trace_id for item in new}
    there = door.traces([item.trace_id for item in items])
    reports = []
    for name, waiting in sorted(by_queue.items()):
        is_pair = len(waiting[0].interaction_ids) == 2
        questions = [
            schemas[key] for key, one in section.questions.items() if one.is_pairwise is is_pair
        ]
        rater = waiting[0].rater
        queue = door.put(
            name,
            [item.trace_id for item in waiting if item.trace_id in there],
            users=section.groups.get(rater, (rater,)),
            schema_ids=questions,
        )
        reports.append(
            QueueReport(
                rater=rater,
                queue=name,
                new=sum(1 for item in waiting if item.trace_id in fresh),
                waiting=len(waiting),
                url=door.url(queue.queue_id),
            )
        )
    return reports
