"""What a judge is measured by on gold labels. Pure: verdicts in, measures with intervals out.

Failures of the judge are in no measure: they are neither right nor wrong, and too many of them
disqualify by themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flywheel.graders.judge import Criterion, Judge
from flywheel.judges import JudgeBarsSection
from flywheel.label.qualifying.intervals import (
    LEVEL,
    bootstrapped,
    difference_ends,
    difference_interval,
    quotient,
    share_interval,
    wider,
    wilson_ends,
)
from flywheel.label.qualifying.verdicts import GoldVerdict, criteria_of, worth, worth_to_a
from flywheel.records import Interval, QualificationMeasure
from flywheel.statistics import FloatArray

Name = Literal["kappa", "swap_consistency", "length_bias", "self_preference"]


@dataclass(frozen=True)
class Measured:
    """One measure, and where it could not be taken or is worth a word, why."""

    measure: QualificationMeasure
    note: str | None = None


def passes(name: Name, *, low: float | None, high: float | None, bar: float) -> bool:
    """Whether an interval clears its bar.

    Agreement and consistency must exceed it with their lower bound; a bias may be as large as its
    bar with the bound that lies further from zero, and no larger.
    """
    if low is None or high is None:
        return False
    if name in ("kappa", "swap_consistency"):
        return low > bar
    return max(abs(low), abs(high)) <= bar


def bar_of(name: Name, bars: JudgeBarsSection) -> float:
    """The declared bar of a measure."""
    return {
        "kappa": bars.kappa,
        "swap_consistency": bars.swap_consistency,
        "length_bias": bars.length_bias,
        "self_preference": bars.self_preference,
    }[name]


def measure_all(
    judge: Judge, verdicts: Sequence[GoldVerdict], *, own_families: frozenset[str] = frozenset()
) -> list[Measured]:
    """Every measure that applies to the judge.

    Args:
        judge: Its mode says whether there is an order to be consistent in.
        verdicts: Of all gold items; failures among them are passed over.
        own_families: Those the judge shares with the policy; empty, and self-preference is not
            measured.
    """
    answered = [verdict for verdict in verdicts if verdict.has_verdict]
    found = [measure_kappa(judge, answered)]
    if judge.rubric.mode == "pairwise":
        found.append(measure_swap_consistency(judge, answered))
    found.append(measure_length_bias(judge, answered))
    if own_families:
        found.append(measure_self_preference(judge, answered, own_families))
    return found


def _measured(
    judge: Judge, name: Name, interval: Interval | None, n: int, note: str | None = None
) -> Measured:
    bar = bar_of(name, judge.section.bars)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Measured(
        QualificationMeasure(
            name=name,
            value=interval.mean if interval else None,
            low=low,
            high=high,
            level=LEVEL,
            bar=bar,
            passed=passes(name, low=low, high=high, bar=bar),
            n=n,
        ),
        note,
    )


# --- agreement with the gold ---------------------------------------------------------------------


def measure_kappa(judge: Judge, answered: Sequence[GoldVerdict]) -> Measured:
    """Cohen's (1960) kappa with the gold; of several criteria, that of the worst.

    Grades of a scale of three or more values are weighted by the square of their distance (Cohen
    1968): a 7 where the gold says 8 is nearly right. What a judge says that no gold label says
    (cannot judge, a split panel) is a disagreement, with nothing nearer to it than anything else.
    """
    each = [
        (name, *criterion_kappa(judge, name, answered)) for name in criteria_of(judge) if answered
    ]
    if not each:
        return _measured(judge, "kappa", None, 0, "the judge answered no gold item")
    name, interval, note = min(each, key=lambda one: one[1].low if one[1] else -2.0)
    if note is None and len(each) > 1:
        note = f"of {len(each)} criteria {name} agrees least"
    return _measured(judge, "kappa", interval, len(answered), note)


def criterion_kappa(
    judge: Judge, name: str, answered: Sequence[GoldVerdict]
) -> tuple[Interval | None, str | None]:
    """Kappa of one criterion with its interval, or why there is none."""
    gold = [verdict.item.gold(name) for verdict in answered]
    said = [verdict.labels[name] for verdict in answered]
    if len(set(gold)) < 2:
        return None, (
            f"every gold label{'' if name == judge.name else f' of {name}'} is {gold[0]!r}: "
            "kappa is not defined where there is nothing to tell apart"
        )
    labels = sorted({*gold, *said})
    distance = _distances(judge, name, labels)
    codes = [
        labels.index(a) * len(labels) + labels.index(b) for a, b in zip(gold, said, strict=True)
    ]
    cells = np.eye(len(labels) ** 2)[codes]
    clusters = [verdict.item.cluster for verdict in answered]
    observed, expected = _disagreement(cells.sum(axis=0, keepdims=True), distance)
    drawn = bootstrapped(cells, lambda totals: _kappa(totals, distance), clusters)
    if drawn is None or expected[0] == 0:
        return None, "too few conversations, or nearly every item has one label"
    low, high = wilson_ends(float(observed[0]), clusters)
    ends = (1 - high / float(expected[0]), 1 - low / float(expected[0]))
    return wider(1 - float(observed[0] / expected[0]), drawn, ends), None


def _distances(judge: Judge, name: str, labels: Sequence[str]) -> FloatArray:
    """How wrong one label is for another, from 0 to 1."""
    distance = 1 - np.eye(len(labels))
    criterion = next((one for one in judge.rubric.criteria if one.name == name), None)
    values = _scale(criterion) if judge.rubric.mode == "pointwise" and criterion else {}
    if len(set(values.values())) < 3:
        return distance
    span = max(values.values()) - min(values.values())
    for i, one in enumerate(labels):
        for j, other in enumerate(labels):
            if one in values and other in values:
                distance[i, j] = ((values[one] - values[other]) / span) ** 2
    return distance


def _scale(criterion: Criterion) -> dict[str, float]:
    return {grade.label: grade.value for grade in criterion.grades if grade.value is not None}


def _kappa(totals: FloatArray, distance: FloatArray) -> FloatArray:
    observed, expected = _disagreement(totals, distance)
    return 1 - quotient(observed, expected)


def _disagreement(totals: FloatArray, distance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean distance as it is, and as it would be if the two were independent."""
    table = totals.reshape(-1, *distance.shape)
    n = table.sum(axis=(1, 2))
    marginals = (table.sum(axis=2), table.sum(axis=1))
    expected = np.einsum("ri,rj,ij->r", *marginals, distance) / n**2
    return np.einsum("rij,ij->r", table, distance) / n, expected


# --- order, length, kin --------------------------------------------------------------------------


def measure_swap_consistency(judge: Judge, answered: Sequence[GoldVerdict]) -> Measured:
    """Share of pairs with the same winner whichever answer came first."""
    both = [verdict for verdict in answered if verdict.orders is not None]
    if not both:
        return _measured(judge, "swap_consistency", None, 0, "no pair was judged in both orders")
    same = [v.orders is not None and v.orders[0] == v.orders[1] for v in both]
    interval = share_interval(same, [verdict.item.cluster for verdict in both])
    return _measured(judge, "swap_consistency", interval, len(both))


def measure_length_bias(judge: Judge, answered: Sequence[GoldVerdict]) -> Measured:
    """How much more often than the gold the longer answer wins.

    Of single answers, which nothing wins: how much further above the gold the judge grades the
    longer half of the answers than the shorter half, on a scale from 0 to 1.
    """
    if judge.rubric.mode == "pairwise":
        longer = [
            (v, 0 if _length(v, 0) > _length(v, 1) else 1)
            for v in answered
            if _length(v, 0) != _length(v, 1)
        ]
        if not longer:
            return _measured(judge, "length_bias", None, 0, "no pair has a longer answer")
        return _measured(judge, "length_bias", _favour(longer), len(longer))
    excess = [(v, gap) for v in answered if (gap := _excess(judge, v)) is not None]
    middle = float(np.median([_length(v, 0) for v, _ in excess])) if excess else 0.0
    split = [(v, gap, _length(v, 0) > middle) for v, gap in excess]
    interval = _contrast(split)
    note = None if interval else "the answers are all of one length, or hardly any was graded"
    return _measured(judge, "length_bias", interval, len(split), note)


def measure_self_preference(
    judge: Judge, answered: Sequence[GoldVerdict], own: frozenset[str]
) -> Measured:
    """How much more often than the gold an answer of the judge's own family wins.

    Of single answers: how much further above the gold the judge grades its own family's than
    others', on a scale from 0 to 1.
    """
    told = [v for v in answered if v.item.families is not None]
    if judge.rubric.mode == "pairwise":
        kin = [(v, i) for v in told if (i := _only_kin(v, own)) is not None]
        interval = _favour(kin) if kin else None
        n = len(kin)
    else:
        graded = [
            (v, gap, bool(own & set((v.item.families or ((),))[0])))
            for v in told
            if (gap := _excess(judge, v)) is not None
        ]
        interval, n = _contrast(graded), len(graded)
    families = " and ".join(sorted(own))
    note = (
        None
        if interval
        else (
            f"no gold item sets an answer of the family {families} against another's: say in "
            "`families` who made each answer, and mix"
        )
    )
    return _measured(judge, "self_preference", interval, n, note)


def _length(verdict: GoldVerdict, which: int) -> int:
    return len(verdict.item.responses[which].text)


def _only_kin(verdict: GoldVerdict, own: frozenset[str]) -> int | None:
    """The answer of a pair that alone is of the judge's family."""
    first, second = (bool(own & set(names)) for names in verdict.item.families or ((), ()))
    return None if first == second else (0 if first else 1)


def _favour(marked: Sequence[tuple[GoldVerdict, int]]) -> Interval | None:
    """How much more often than in the gold the marked answer wins; a tie is half a win."""
    gaps = []
    for verdict, which in marked:
        (label,) = verdict.labels.values()
        gap = worth_to_a(label) - worth_to_a(verdict.item.gold())
        gaps.append(gap if which == 0 else -gap)
    return difference_interval(np.array(gaps), [verdict.item.cluster for verdict, _ in marked])


def _excess(judge: Judge, verdict: GoldVerdict) -> float | None:
    """The judge's grade above the gold's."""
    gold = {name: verdict.item.gold(name) for name in criteria_of(judge)}
    said, settled = worth(judge.rubric, verdict.labels), worth(judge.rubric, gold)
    return None if said is None or settled is None else said - settled


def _contrast(graded: Sequence[tuple[GoldVerdict, float, bool]]) -> Interval | None:
    """Mean excess of the marked answers over that of the others."""
    gaps = np.array([gap for _, gap, _ in graded])
    marked = np.array([is_marked for _, _, is_marked in graded], dtype=bool)
    clusters = [verdict.item.cluster for verdict, _, _ in graded]
    if marked.all() or not marked.any():
        return None

    value = float(gaps[marked].mean() - gaps[~marked].mean())
    sums = np.stack([gaps * marked, marked, gaps * ~marked, ~marked], axis=1).astype(np.float64)
    drawn = bootstrapped(
        sums, lambda t: quotient(t[:, 0], t[:, 1]) - quotient(t[:, 2], t[:, 3]), clusters
    )
    if drawn is None:
        return None
    ends = []
    for side in (marked, ~marked):
        own = [cluster for cluster, is_in in zip(clusters, side, strict=True) if is_in]
        mean = float(gaps[side].mean())
        low, high = difference_ends(gaps[side], own)
        ends.append((mean - low, high - mean))
    (below_a, above_a), (below_b, above_b) = ends
    around = (value - math.hypot(below_a, above_b), value + math.hypot(above_a, below_b))
    return wider(value, drawn, around)
