"""What a judge said of gold items, one row an item: the table every measure reads."""

from collections import Counter
from collections.abc import Sequence

from flywheel.graders.judge import Judge, Rubric
from flywheel.label.qualifying.gold import GoldItem
from flywheel.records import Assessment, Record

SPLIT = "split"
"""What a panel says whose members do not agree by more than half: nothing, as in `verdicts`."""
_WORTH_TO_A = {"A": 1.0, "B": 0.0}


class GoldVerdict(Record):
    """One gold item with what the judge said of it."""

    item: GoldItem
    labels: dict[str, str]
    """By criterion; of a pair the overall winner, under the judge's name. Empty on failure."""
    orders: tuple[str, str] | None = None
    """Of a pair: the winner, as A or B of the item, when A came first and when B did."""
    error_type: str | None = None
    """Why there is no verdict."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None

    @property
    def has_verdict(self) -> bool:
        """Whether the judge answered at all; failures are counted apart, as nothing's error."""
        return self.error_type is None

    @property
    def is_right(self) -> bool:
        """Whether every label is the gold's."""
        return all(label == self.item.gold(name) for name, label in self.labels.items())


def criteria_of(judge: Judge) -> tuple[str, ...]:
    """The keys of `GoldVerdict.labels`."""
    if judge.rubric.mode == "pairwise":
        return (judge.name,)
    return tuple(criterion.name for criterion in judge.rubric.criteria)


def read_verdict_rows(judge: Judge, item: GoldItem, rows: Sequence[Assessment]) -> GoldVerdict:
    """What the rows of `conclude` amount to; of a panel, what more than half of it says.

    Args:
        judge: Whose rows they are.
        item: What was judged.
        rows: Of every member: overall, for each criterion, for each order.
    """
    paid = [row for row in rows if not row.covariates.get("derived")]
    spent = {
        "input_tokens": sum(row.input_tokens or 0 for row in paid),
        "output_tokens": sum(row.output_tokens or 0 for row in paid),
        "cost_usd": _sum([row.cost_usd for row in paid]),
    }
    labels = {name: _majority(rows, _row_name(judge, name)) for name in criteria_of(judge)}
    known = {name: label for name, label in labels.items() if label is not None}
    if len(known) < len(labels):
        failed = [row.error_type for row in rows if row.error_type]
        reason = failed[0] if failed else "judge_garbage"
        return GoldVerdict.model_validate(
            {"item": item, "labels": {}, "error_type": reason, **spent}
        )
    orders = tuple(_majority(rows, f"{judge.name}:{order}") for order in ("AB", "BA"))
    return GoldVerdict.model_validate(
        {
            "item": item,
            "labels": known,
            "orders": orders if None not in orders else None,
            **spent,
        }
    )


def _row_name(judge: Judge, criterion: str) -> str:
    """A rubric with one criterion has no rows of it: the overall verdict is that criterion's."""
    is_one = judge.rubric.mode == "pairwise" or len(judge.rubric.criteria) == 1
    return judge.name if is_one else f"{judge.name}.{criterion}"


def _majority(rows: Sequence[Assessment], name: str) -> str | None:
    """What more than half of those who answered say; `SPLIT` without one, None when none did."""
    said = [
        row.label
        for row in rows
        if row.name == name and row.status == "submitted" and row.label is not None
    ]
    if not said:
        return None
    label, votes = Counter(said).most_common(1)[0]
    return label if votes * 2 > len(said) else SPLIT


def _sum(costs: Sequence[float | None]) -> float | None:
    """NULL unless every part is known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None


def worth_to_a(label: str) -> float:
    """What a verdict on a pair is worth to answer A: a tie, or none, is worth half to each."""
    return _WORTH_TO_A.get(label, 0.5)


def worth(rubric: Rubric, labels: dict[str, str]) -> float | None:
    """The mean of the grades given, each on its criterion's scale from 0 to 1.

    NULL where a grade is worth nothing (cannot judge) or the panel was split.
    """
    parts: list[float] = []
    for criterion in rubric.criteria:
        values = {grade.label: grade.value for grade in criterion.grades}
        numbers = [value for value in values.values() if value is not None]
        value = values.get(labels.get(criterion.name, ""))
        if value is None or len(set(numbers)) < 2:
            return None
        parts.append((value - min(numbers)) / (max(numbers) - min(numbers)))
    return sum(parts) / len(parts)
