"""Review: experts are asked what is worth asking, and their answers become assessments.

Input: captured answers and what is known of them. Output: queues in MLflow (`flywheel review
push`), and assessments of what raters answered there (`flywheel review pull`).
"""

from flywheel.label.review.plan import (
    Candidate,
    Plan,
    PlannedItem,
    ReviewState,
    plan_adjudication,
    plan_review,
)
from flywheel.label.review.pull import PullReport, pull_reviews
from flywheel.label.review.push import PushReport, QueueReport, plan_push, push_reviews
from flywheel.label.review.status import QueueStatus, review_status

__all__ = [
    "Candidate",
    "Plan",
    "PlannedItem",
    "PullReport",
    "PushReport",
    "QueueReport",
    "QueueStatus",
    "ReviewState",
    "plan_adjudication",
    "plan_push",
    "plan_review",
    "pull_reviews",
    "push_reviews",
    "review_status",
]
