"""One answer from a review queue -> one Assessment, or the reason why not. Pure."""

import hashlib
import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.review.plan import item_key
from flywheel.records import Assessment, AssessmentKind, Message, Record, ReviewItem
from flywheel.reviews import QuestionSection, ReviewSection
from flywheel.tracking import PREFERENCES, Answer

NOBODY = "default"
"""Who everybody is to an MLflow server without users; then the queue tells who it was."""
_VALUES = {"A": 1.0, "B": 0.0, "tie": 0.5, "both_bad": 0.5}


class Judgement(Record):
    """What an answer says, in the lake's words."""

    kind: AssessmentKind
    value: float | None = None
    label: str | None = None
    correction: Message | None = None
    rationale: str | None = None


def to_assessment(
    section: ReviewSection,
    item: ReviewItem,
    answer: Answer,
    *,
    inclusion_prob: float | None,
    later: timedelta = timedelta(),
) -> Assessment:
    """The assessment an answer becomes.

    Args:
        section: The questions, and who may answer.
        item: What was asked, and how it was shown.
        answer: As MLflow has it now.
        inclusion_prob: Of the item, where it is in the random slice.
        later: Added to its time, so that a correction counts after the verdict given with it.

    Raises:
        BadRecordError: `unknown_question`, `unknown_rater` or `answer_not_offered`.
    """
    key = {title: key for key, title in section.titles.items()}.get(answer.title)
    if key is None:
        raise BadRecordError(
            "unknown_question",
            f"{answer.title!r:.80} is none of review.questions: {sorted(section.titles.values())}",
        )
    question = section.questions[key]
    rater = who_answered(section, item, answer.user)
    said = _read(question, answer, item.presented_order)
    created_at = answer.answered_at + later
    is_pair = len(item.interaction_ids) == 2
    return Assessment(
        assessment_id=_identity(answer, inclusion_prob),
        workload=item.workload,
        event_date=created_at.date(),
        interaction_id=None if is_pair else item.interaction_ids[0],
        pair_ids=(item.interaction_ids[0], item.interaction_ids[1]) if is_pair else None,
        name=question.name or key,
        **dict(said),
        source_type="human",
        source_id=rater,
        source_role="adjudicator" if item.round == "adjudication" else "rater",
        rubric=item.guideline,
        guideline=item.guideline,
        round=item.round,
        presented_order=item.presented_order,
        blinded=item.blinded,
        inclusion_prob=inclusion_prob,
        created_at=created_at,
    )


def declined(section: ReviewSection, item: ReviewItem, now: datetime) -> Assessment:
    """The row that says a rater set an item aside: discarded, it counts for nothing."""
    is_pair = len(item.interaction_ids) == 2
    key, question = next(
        (key, question)
        for key, question in section.questions.items()
        if question.is_pairwise is is_pair
    )
    return Assessment(
        assessment_id=hashlib.sha256(f"declined\0{item.trace_id}".encode()).hexdigest()[:32],
        workload=item.workload,
        event_date=now.date(),
        interaction_id=None if is_pair else item.interaction_ids[0],
        pair_ids=(item.interaction_ids[0], item.interaction_ids[1]) if is_pair else None,
        name=question.name or key,
        kind="preference" if is_pair else "feedback",
        rationale="declined in the review queue",
        source_type="human",
        source_id=item.rater,
        rubric=item.guideline,
        guideline=item.guideline,
        round=item.round,
        presented_order=item.presented_order,
        blinded=item.blinded,
        status="discarded",
        created_at=now,
    )


def who_answered(section: ReviewSection, item: ReviewItem, user: str) -> str:
    """The rater: whom MLflow knows, or whose queue it is where MLflow knows nobody.

    Raises:
        BadRecordError: somebody who is not a rater of this workload.
    """
    if user in (NOBODY, ""):
        return item.rater
    if user != item.rater and user not in section.people:
        raise BadRecordError(
            "unknown_rater",
            f"{user!r:.80} answered in the queue of {item.rater}; raters: "
            f"{', '.join(sorted(section.people))}. Add them to review.raters, then pull again",
        )
    return user


def _identity(answer: Answer, inclusion_prob: float | None) -> str:
    """Of the answer and when it was last changed: pulled twice it is the same, edited it is not.

    The probability is part of it: an item that joins the random slice later is told anew.
    """
    parts = ("review", answer.answer_id, answer.answered_at.isoformat(), repr(inclusion_prob))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _read(question: QuestionSection, answer: Answer, order: str | None) -> Judgement:
    said = _understood(question, answer.value, order)
    if said is None:
        raise BadRecordError(
            "answer_not_offered",
            f"{answer.value!r:.80} to {answer.title!r:.80}; offered: {_offered(question)}",
        )
    if said.rationale is None:
        return said.model_copy(update={"rationale": answer.rationale})
    return said


def _understood(question: QuestionSection, value: JsonValue, order: str | None) -> Judgement | None:
    """What a value says; None where the question does not offer it."""
    match question.kind:
        case "pass_fail":
            meant = {
                question.pass_label: 1.0,
                question.fail_label: 0.0,
                "True": 1.0,
                "False": 0.0,
            }.get(str(value))
            return None if meant is None else Judgement(kind="feedback", value=meant)
        case "number":
            number = _number(question, value)
            return None if number is None else Judgement(kind="feedback", value=number)
        case "category":
            if value not in question.options:
                return None
            return Judgement(kind="feedback", label=str(value))
        case "preference":
            if str(value) not in PREFERENCES:
                return None
            label = unpresented(PREFERENCES[str(value)], order)
            return Judgement(kind="preference", label=label, value=_VALUES.get(label))
        case _:
            return _text(question, value)


def _offered(question: QuestionSection) -> str:
    match question.kind:
        case "pass_fail":
            return f"{question.pass_label}, {question.fail_label}"
        case "number":
            return f"a number from {question.minimum} to {question.maximum}"
        case "category":
            return ", ".join(question.options)
        case "preference":
            return ", ".join(PREFERENCES)
        case _:
            return "text"


def _text(question: QuestionSection, value: JsonValue) -> Judgement | None:
    if not isinstance(value, str) or not value.strip():
        return None
    if question.kind == "correction":
        message = Message(role="assistant", content=value.strip())
        return Judgement(kind="correction", correction=message)
    return Judgement(kind="feedback", rationale=value.strip())


def _number(question: QuestionSection, value: JsonValue) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low = -math.inf if question.minimum is None else question.minimum
    high = math.inf if question.maximum is None else question.maximum
    return float(value) if math.isfinite(value) and low <= value <= high else None


def unpresented(label: str, order: str | None) -> str:
    """The label as of `pair_ids`: what stood as reply A under BA is B."""
    if order == "BA" and label in ("A", "B"):
        return "B" if label == "A" else "A"
    return label


def inclusion_of(items: Mapping[str, list[ReviewItem]], trace_id: str) -> float | None:
    """The probability with which the trace's item is in the random slice; NULL if it is not."""
    known = [one.inclusion_prob for one in items[trace_id] if one.inclusion_prob is not None]
    return max(known, default=None)


def key_of(assessment: Assessment) -> tuple[str, str, str | None, str | None]:
    """What a later answer of the same rater replaces."""
    item = assessment.interaction_id or item_key(assessment.pair_ids or ())
    return item, assessment.name, assessment.source_id, assessment.round
