"""The controls one rater filled in, in any tool -> rows of a label file. Pure.

A control is a label, a number, a text or a preference. Texts named correction and rationale belong
to the question beside them; every other control is a question of its own, unless the record says
which question it is about: then all of its controls answer that one.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.rows import Row

RATIONALES = ("rationale", "comment", "comments", "reason", "explanation", "notes")
CORRECTIONS = ("correction", "corrected", "corrected_response")


class Answer(NamedTuple):
    """What one control says."""

    kind: Literal["label", "number", "text"]
    said: str | float


def rows_of(answers: Mapping[str, Answer], name: str | None, common: Row) -> list[Row]:
    """Rows of one rater's annotation of one record.

    Args:
        answers: by control.
        name: the question, where the record says it.
        common: columns every row gets: the item, the rater, the time.

    Raises:
        BadRecordError: nothing was answered.
    """
    texts: dict[str, JsonValue] = {}
    questions: dict[str, dict[str, JsonValue]] = {}
    for control, answer in answers.items():
        role = control.lower()
        if role in CORRECTIONS:
            texts["correction"] = str(answer.said)
        elif role in RATIONALES:
            texts["rationale"] = str(answer.said)
        else:
            column = {"label": "label", "number": "value", "text": "rationale"}[answer.kind]
            questions.setdefault(name or control, {})[column] = answer.said
    if "correction" in texts and len(questions) != 1:
        questions["correction"] = {"correction": texts.pop("correction")}
    if not questions and texts:
        questions[name or "comment"] = {}
    if not questions and common.get("status") == "discarded":
        questions[name or "discarded"] = {}
    if not questions:
        raise BadRecordError("empty_judgement", "the annotation answers nothing")
    return [
        {**common, "name": name or question, **texts, **said}
        for question, said in questions.items()
    ]


def ranking_answer(ranks: Mapping[str, int], first: str, second: str) -> str:
    """A, B or tie, from the ranks of the two shown as A and B; rank 1 is the best.

    Raises:
        BadRecordError: one of the two has no rank.
    """
    if first not in ranks or second not in ranks:
        raise BadRecordError("bad_preference", f"the ranking is of {', '.join(ranks)}")
    if ranks[first] == ranks[second]:
        return "tie"
    return "A" if ranks[first] < ranks[second] else "B"


def side_label(side: str, presented_order: JsonValue) -> str:
    """The label of what was chosen on a side: left is A unless B was shown first."""
    if side not in ("left", "right"):
        raise BadRecordError("bad_preference", f"selected {side!r}; valid: left, right")
    return "A" if (side == "left") != (presented_order == "BA") else "B"
