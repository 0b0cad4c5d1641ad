"""The workload's `review` section, and what its queues are called."""

from flywheel.errors import ConfigError
from flywheel.records import ReviewItem
from flywheel.reviews import ReviewSection
from flywheel.workload import Workload

EXAMPLE = """review:
    raters: [dr-a, dr-b]
    guideline: triage@1
    questions:
      urgency: {kind: pass_fail, title: "Is the answer right?", comment: true}
      corrected: {kind: correction, name: urgency, title: "What should it have been?"}"""


def section_of(workload: Workload) -> ReviewSection:
    """The section.

    Raises:
        ConfigError: there is none.
    """
    if workload.review is None:
        raise ConfigError(
            f"workload {workload.name}",
            [f"has no review section, so there is nobody to ask. docs/review.md; add\n  {EXAMPLE}"],
        )
    return workload.review


def experiment_of(workload: Workload) -> str:
    """The MLflow experiment the queues are in."""
    return section_of(workload).experiment or f"{workload.name}-review"


def queue_of(item: ReviewItem) -> str:
    """The queue an item is in: a rater's, for one kind of question under one guideline."""
    kind = "pairs" if len(item.interaction_ids) == 2 else "replies"
    if item.round == "adjudication":
        kind = f"adjudicate {kind}"
    return f"{item.rater}: {kind} ({item.guideline})"
