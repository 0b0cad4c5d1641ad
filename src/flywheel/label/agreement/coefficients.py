"""Agreement beyond chance, each coefficient as a function of sums over items. Pure.

A coefficient is a pair of functions: what one item adds up to, and what the coefficient makes of
the totals. The totals of a bootstrap sample are sums too, so that thousands of samples are one
matrix product (`intervals.py`). Undefined is NaN in here and None outside.

Sources: Cohen (1960, Educ. Psychol. Meas. 20:37) and (1968, Psychol. Bull. 70:213) weighted; Fleiss
(1971, Psychol. Bull. 76:378), with missing ratings as Gwet (Handbook of Inter-Rater Reliability,
4th ed. 2014, section 2.4) has it; Krippendorff (Computing Krippendorff's Alpha-Reliability, 2011);
Gwet's AC1 (2008, Br. J. Math. Stat. Psychol. 61:29).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flywheel.statistics import FloatArray, IntArray

Level = Literal["nominal", "ordinal", "interval"]
"""What the categories are: names, steps in an order, or numbers with meaningful distances."""
Weights = Literal["linear", "quadratic"]
Unit = Sequence[str | None]
"""The ratings of one item; None where a rater gave none."""


Parts = tuple[FloatArray, FloatArray]
"""Observed and expected disagreement, each between 0 and 1; the expected is 0 where undefined."""


@dataclass(frozen=True)
class Summed:
    """A coefficient ready to be computed on all items, or on any resample of them.

    Every one of them is 1 - observed / expected disagreement.
    """

    sums: FloatArray
    """One row an item."""
    parts: Callable[[FloatArray], Parts]
    """Of rows of totals."""
    is_pairable: NDArray[np.bool_]
    """Of each item: whether two raters rated it. Others count for nothing, or for chance only."""

    def of(self, totals: FloatArray) -> FloatArray:
        """The coefficient of rows of totals; NaN where undefined."""
        observed, expected = self.parts(totals)
        return 1 - _ratio(observed, expected)

    def value(self) -> float | None:
        """The coefficient of all items, None where it is undefined."""
        if not self.is_pairable.any():
            return None
        value = float(self.of(self.sums.sum(axis=0, keepdims=True))[0])
        return None if np.isnan(value) else value


def cohen_kappa(
    a: Unit,
    b: Unit,
    *,
    weights: Weights | None = None,
    categories: Sequence[str] | None = None,
) -> float | None:
    """Agreement of two raters beyond chance; 1 is perfect, 0 what their habits alone would give.

    Args:
        a: One rater's answers.
        b: The other's, of the same items; an item either left out (None) is left out.
        weights: How much a disagreement counts by its distance; None counts all the same.
        categories: In their order, which weights need; by number where all of them are numbers,
            else by alphabet.

    Returns:
        None where nobody rated an item both ways, or both only ever used one and the same category.
    """
    names = list(categories) if categories is not None else ordered({*a, *b})
    return cohen_summed(
        coded(list(zip(a, b, strict=True)), names, width=2), len(names), weights
    ).value()


def fleiss_kappa(units: Sequence[Unit]) -> float | None:
    """Agreement of any number of raters beyond chance, raters exchangeable.

    Args:
        units: Ratings of each item; missing ones (None) are left out, as are items without two.

    Returns:
        None where no item has two ratings, or all ratings are of one category.
    """
    return fleiss_summed(_counted(units)).value()


def gwet_ac1(units: Sequence[Unit]) -> float | None:
    """Gwet's AC1, which stays high where nearly all items are rightly of one category.

    Args:
        units: Ratings of each item; missing ones (None) are left out.

    Returns:
        None where no item has two ratings, or all ratings are of one category.
    """
    return ac1_summed(_counted(units)).value()


def krippendorff_alpha(units: Sequence[Unit], *, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha: 1 less observed over expected disagreement.

    Args:
        units: Ratings of each item; missing ones (None) are left out, as are items without two.
        level: `interval` needs ratings that are numbers; `ordinal` orders numbers as numbers and
            anything else by alphabet.

    Returns:
        None where no item has two ratings, or all ratings are of one category.

    Raises:
        ValueError: level is `interval` and a rating is not a number.
    """
    names = ordered({rating for unit in units for rating in unit})
    return alpha_summed(tallied(units, names), names, level).value()


def ordered(categories: set[str | None]) -> list[str]:
    """Categories by number where all are numbers, else by alphabet."""
    names = sorted(name for name in categories if name is not None)
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def coded(units: Sequence[Unit], names: Sequence[str], *, width: int = 0) -> IntArray:
    """Ratings as positions in `names`, -1 where missing; shape (items, raters).

    Raters are as many as the longest unit has, `width` where no unit has any.
    """
    position: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    codes = np.full((len(units), max((len(unit) for unit in units), default=0) or width), -1)
    for row, unit in zip(codes, units, strict=True):
        row[: len(unit)] = [-1 if rating is None else position[rating] for rating in unit]
    return codes


def tallied(units: Sequence[Unit], names: Sequence[str]) -> FloatArray:
    """How often each item was given each category; shape (items, categories)."""
    codes = coded(units, names)
    counts = np.zeros((len(units), len(names)))
    item, rater = np.nonzero(codes >= 0)
    np.add.at(counts, (item, codes[item, rater]), 1)
    return counts


def cohen_summed(codes: IntArray, categories: int, weights: Weights | None = None) -> Summed:
    """Cohen's kappa of two columns of codes; -1 is missing."""
    both = codes.min(axis=1, initial=categories) >= 0
    names = np.arange(categories)
    first, second = (
        ((codes[:, [rater]] == names) & both[:, None]).astype(np.float64) for rater in (0, 1)
    )
    distance = np.abs(names[:, None] - names) / max(1, categories - 1)
    cost = {"linear": distance, "quadratic": distance**2, None: np.sign(distance)}[weights]
    disagreement = np.zeros(len(codes))
    disagreement[both] = cost[codes[both, 0], codes[both, 1]]

    def parts(totals: FloatArray) -> Parts:
        of_first, of_second = totals[:, 1 : 1 + categories], totals[:, 1 + categories :]
        n = of_first.sum(axis=1)
        expected = ((of_first @ cost) * of_second).sum(axis=1)
        return _share(totals[:, 0], n), _share(expected, n**2)

    return Summed(np.column_stack([disagreement, first, second]), parts, both)


def fleiss_summed(counts: FloatArray) -> Summed:
    """Fleiss' kappa of category counts (items, categories)."""

    def parts(totals: FloatArray) -> Parts:
        agreement, shares = _agreement_and_shares(totals)
        return 1 - agreement, 1 - (shares**2).sum(axis=1)

    return Summed(_sums(counts), parts, counts.sum(axis=1) > 1)


def ac1_summed(counts: FloatArray) -> Summed:
    """Gwet's AC1 of category counts (items, categories); categories nobody used count as offered.

    Its chance agreement is that of raters who guess on the items that are hard to tell.
    """
    categories = counts.shape[1]

    def parts(totals: FloatArray) -> Parts:
        agreement, shares = _agreement_and_shares(totals)
        chance = (shares * (1 - shares)).sum(axis=1) / max(1, categories - 1)
        # With one category AC1 is 1 by its formula, and tells nothing.
        return 1 - agreement, np.where((shares > 0).sum(axis=1) > 1, 1 - chance, 0.0)

    return Summed(_sums(counts), parts, counts.sum(axis=1) > 1)


def alpha_summed(counts: FloatArray, names: Sequence[str], level: Level) -> Summed:
    """Krippendorff's alpha of category counts (items, categories)."""
    if level == "interval":
        return _interval_alpha(counts, np.array([float(name) for name in names]))
    if level == "ordinal":
        return _ordinal_alpha(counts)
    pairable, weight = _pairable(counts)
    agreeing = (pairable * (pairable - 1)).sum(axis=1) * weight

    def parts(totals: FloatArray) -> Parts:
        of_category = totals[:, 1:]
        n = of_category.sum(axis=1)
        expected = n**2 - (of_category**2).sum(axis=1)
        return _share(n - totals[:, 0], n), _share(expected, n * (n - 1))

    return Summed(np.column_stack([agreeing, pairable]), parts, weight > 0)


def _interval_alpha(counts: FloatArray, values: FloatArray) -> Summed:
    """Squared distances need no table of categories: n, sum and sum of squares tell them."""
    pairable, weight = _pairable(counts)
    span = float(np.ptp(values)) if len(values) else 0.0
    unit = (values - values.min()) / span if span else np.zeros(len(values))
    m, first, second = pairable.sum(axis=1), pairable @ unit, pairable @ unit**2
    within = 2 * (m * second - first**2) * weight

    def parts(totals: FloatArray) -> Parts:
        apart, n, total, squares = totals.T
        return _share(apart, n), _share(2 * (n * squares - total**2), n * (n - 1))

    return Summed(np.column_stack([within, m, first, second]), parts, weight > 0)


def _ordinal_alpha(counts: FloatArray) -> Summed:
    pairable, weight = _pairable(counts)
    size = counts.shape[1]
    together = np.einsum("ui,uj,u->uij", pairable, pairable, weight)
    together -= np.einsum("ui,ij,u->uij", pairable, np.eye(size), weight)

    def parts(totals: FloatArray) -> Parts:
        coincidences = totals.reshape(-1, size, size)
        each = coincidences.sum(axis=2)
        n = each.sum(axis=1)
        # The distance of two ranks is the number of ratings between their middles.
        middle = np.cumsum(each, axis=1) - each / 2
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
        distance /= np.maximum(distance.max(axis=(1, 2)), 1e-300)[:, None, None]
        observed = (coincidences * distance).sum(axis=(1, 2))
        expected = np.einsum("ri,rj,rij->r", each, each, distance)
        return _share(observed, n), _share(expected, n * (n - 1))

    return Summed(together.reshape(len(counts), size * size), parts, weight > 0)


def _counted(units: Sequence[Unit]) -> FloatArray:
    return tallied(units, ordered({rating for unit in units for rating in unit}))


def _pairable(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Counts of the items with two ratings or more, and 1 / (ratings - 1) of each; else zeros."""
    m = counts.sum(axis=1)
    weight = np.where(m > 1, 1 / np.maximum(m - 1, 1), 0.0)
    return np.where((m > 1)[:, None], counts, 0.0), weight


def _sums(counts: FloatArray) -> FloatArray:
    """An item's agreeing pairs, whether it has any pair, whether any rating, category shares."""
    m = counts.sum(axis=1)
    pairs = np.maximum(m * (m - 1), 1)
    agreement = np.where(m > 1, (counts * (counts - 1)).sum(axis=1) / pairs, 0.0)
    shares = counts / np.maximum(m, 1)[:, None]
    return np.column_stack([agreement, m > 1, m > 0, shares])


def _agreement_and_shares(totals: FloatArray) -> Parts:
    return _share(totals[:, 0], totals[:, 1]), _share(totals[:, 3:].T, totals[:, 2]).T


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """0 of nothing is 0."""
    return part / np.where(whole > 0, whole, 1.0)


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Division that is NaN where there is nothing to divide by."""
    nothing = np.abs(below) < 1e-12
    return np.where(nothing, np.nan, above / np.where(nothing, 1.0, below))
