"""`flywheel review status`: what was asked, answered, and still waits."""

from collections import Counter
from collections.abc import Sequence

from flywheel.label.review.candidates import read_asked
from flywheel.label.review.section import experiment_of, queue_of, section_of
from flywheel.lake import Lake
from flywheel.records import Record, ReviewItem
from flywheel.tracking import Queue, ReviewQueues, Tracker
from flywheel.workload import Workload


class QueueStatus(Record):
    """One queue."""

    rater: str
    queue: str
    asked: int
    """Items put to the rater."""
    pulled: int
    """Of those, the ones whose answer is in the lake."""
    done: int | None
    """Of those, the ones MLflow has as complete; NULL where the queue is gone."""
    random: int
    """Items asked that are in the random slice."""
    minutes_left: float
    """What waits, by the declared seconds an item."""
    url: str | None


def review_status(lake: Lake, workload: Workload, tracker: Tracker) -> list[QueueStatus]:
    """Every queue anything was put in, by name.

    Raises:
        ConfigError: the workload has no `review` section.
        UpstreamUnavailableError: MLflow does not answer.
        TrackingError: it is too old to have review queues.
    """
    section = section_of(workload)
    asked = read_asked(lake, workload, section)
    door = ReviewQueues(tracker, experiment_of(workload))
    queues = door.queues()
    by_queue: dict[str, dict[str, list[ReviewItem]]] = {}
    for item in asked.items:
        by_queue.setdefault(queue_of(item), {}).setdefault(item.trace_id, []).append(item)
    waiting = Counter(queue_of(item) for item in asked.open_items(section))
    found = []
    for name, traces in sorted(by_queue.items()):
        first = next(iter(traces.values()))[0]
        queue = queues.get(name)
        seconds = section.seconds(is_pair=len(first.interaction_ids) == 2)
        found.append(
            QueueStatus(
                rater=first.rater,
                queue=name,
                asked=len(traces),
                pulled=len(traces) - waiting[name],
                done=_done(queue),
                random=sum(1 for rows in traces.values() if _is_random(rows)),
                minutes_left=round(waiting[name] * seconds / 60, 1),
                url=door.url(queue.queue_id) if queue else None,
            )
        )
    return found


def _done(queue: Queue | None) -> int | None:
    if queue is None:
        return None
    return sum(1 for status in queue.items.values() if status == "complete")


def _is_random(rows: Sequence[ReviewItem]) -> bool:
    return any(row.reason == "random" for row in rows)
