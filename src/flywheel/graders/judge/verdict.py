"""What a judge wrote -> a Verdict, or why it is none. Never a guess.

A grade counts when it is one the rubric offers: by its label, whatever the case, or by its number
where labels are numbers (`10`, `"10"`, `10.0`, and `"10/10"` where ten is the most there is). A
number is never searched for inside a sentence: that is how a ten becomes a one.
"""

import json
import re
from typing import NoReturn

from pydantic import JsonValue

from flywheel.errors import VerdictError
from flywheel.graders.judge.prompt import answer_form
from flywheel.graders.judge.rubric import PAIRWISE_VALUES, Criterion, Grade, Rubric, Winner
from flywheel.graders.judge.task import CriterionVerdict, Order, Verdict
from flywheel.records import JsonObject

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_CODE_BLOCK = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_OUT_OF = re.compile(r"(\S+?)\s*(?:/|out of|of)\s*(\S+)")
_SWAPPED = {"A": "B", "B": "A"}
MAX_SHOWN = 200


def parse_verdict(rubric: Rubric, text: str, *, order: Order | None) -> Verdict:
    """Reads a reply.

    Args:
        rubric: The grades it may give.
        text: What the model wrote: a JSON object, alone or as a code block, thoughts before it.
        order: Of a pair as it was shown; the verdict is in the task's terms.

    Raises:
        VerdictError: it is not JSON of the form asked for, or gives a grade that is not offered.
    """
    grades = _grades(rubric, text)
    found = []
    for criterion in rubric.criteria:
        label = _match(criterion, grades.get(criterion.name)).label
        if order == "BA":
            label = _SWAPPED.get(label, label)
        value = criterion.grade(label).value
        found.append(CriterionVerdict(name=criterion.name, label=label, value=value))
    overall, worth = _overall(rubric, found)
    reasoning = _object(text).get("reasoning")
    return Verdict(
        criteria=tuple(found),
        label=overall,
        value=worth,
        rationale=reasoning if isinstance(reasoning, str) else "",
    )


def winner_of(verdicts: list[Winner]) -> Winner:
    """One winner of several pairwise criteria: whoever is ahead on their mean."""
    values = [PAIRWISE_VALUES[one] for one in verdicts]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "cannot_judge"
    mean = sum(known) / len(known)
    if mean == 0.5:
        return "both_bad" if set(verdicts) == {"both_bad"} else "tie"
    return "A" if mean > 0.5 else "B"


def _overall(rubric: Rubric, found: list[CriterionVerdict]) -> tuple[str | None, float | None]:
    if len(found) == 1:
        return found[0].label, found[0].value
    if rubric.mode == "pairwise":
        winner = winner_of([_winner(one.label) for one in found])
        return winner, PAIRWISE_VALUES[winner]
    values = [one.value for one in found if one.value is not None]
    return None, sum(values) / len(values) if len(values) == len(found) else None


def _winner(label: str) -> Winner:
    return next(winner for winner in PAIRWISE_VALUES if winner == label)


def _grades(rubric: Rubric, text: str) -> JsonObject:
    names = [criterion.name for criterion in rubric.criteria]
    grades = _object(text).get("grades")
    if not isinstance(grades, dict):
        raise VerdictError(f"it has no object `grades`; asked for is {answer_form(rubric)}")
    missing = [name for name in names if grades.get(name) is None]
    if missing:
        raise VerdictError(f"no grade for {', '.join(missing)}")
    if len(grades) > len(names):
        raise VerdictError(f"grades for more than was asked; asked for is {', '.join(names)}")
    return grades


def _object(text: str) -> JsonObject:
    bare = _THOUGHT.sub("", text).strip()
    block = _CODE_BLOCK.match(bare)
    try:
        value = json.loads(
            block[1] if block else bare,
            object_pairs_hook=_refuse_repeated,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise VerdictError("it is not one JSON object", found=text[:MAX_SHOWN]) from error
    if not isinstance(value, dict):
        raise VerdictError("it is JSON, but no object", found=text[:MAX_SHOWN])
    return value


def _refuse_repeated(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    """A key given twice has two values, and which one counts would be chance."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _match(criterion: Criterion, raw: JsonValue) -> Grade:
    written = json.dumps(raw) if isinstance(raw, bool | int | float) else raw
    if isinstance(written, str):
        text = written.strip().casefold()
        for grade in criterion.grades:
            if grade.label.casefold() == text:
                return grade
        numbers = {_number(grade.label): grade for grade in criterion.grades}
        numbers.pop(None, None)
        said = _out_of(text, numbers)
        if said is not None and said in numbers:
            return numbers[said]
    offered = ", ".join(grade.label for grade in criterion.grades)
    raise VerdictError(
        f"the grade for {criterion.name} is none of those offered: {offered}",
        found=f"{raw!r:.{MAX_SHOWN}}",
    )


def _out_of(text: str, numbers: dict[float | None, Grade]) -> float | None:
    """The number said; `7/10` is seven where ten is the highest grade, and nothing elsewhere."""
    whole = _OUT_OF.fullmatch(text)
    if whole is None:
        return _number(text)
    highest = max((number for number in numbers if number is not None), default=None)
    return _number(whole[1]) if highest is not None and _number(whole[2]) == highest else None


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None
