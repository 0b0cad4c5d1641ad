"""Confidence intervals of agreement: bootstrap of whole conversations, with honest edges. Pure."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from flywheel.label.agreement.coefficients import Summed
from flywheel.records import Interval
from flywheel.statistics import (
    FloatArray,
    IntArray,
    design_effect,
    expanded_tail,
    resampled_totals,
    wilson_interval,
)

UNDEFINED_SHARE = 0.05
"""With more resamples than this in which the statistic is undefined there is no interval: what is
left would leave out just the samples of one category."""
FEWEST = 10
"""Items in disagreement below which a bootstrap draws too few of them to be believed."""
MAX_CELLS = 50_000_000
"""Clusters times sums of a bootstrap; beyond it (thousands of different answers) no interval."""


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float | None],
    clusters: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 11,
) -> Interval | None:
    """Percentile interval of any statistic; whole clusters are drawn with replacement.

    The percentiles are Hesterberg's expanded ones (`flywheel.statistics.expanded_tail`). A sample
    in which nothing varies gives width zero: `coefficient_interval` widens that, this cannot.

    Args:
        statistic: Of item indices, each as often as it was drawn; None where it is undefined.
        clusters: The cluster of each item; its own id where it stands alone.
        resamples: Bootstrap samples.
        level: Confidence.
        seed: The same seed gives the same interval.

    Returns:
        None with fewer than two clusters, where the statistic is undefined on all items, or on
        more than one resample in twenty.
    """
    numbers = cluster_numbers(clusters)
    estimate = statistic(np.arange(len(clusters)))
    count = int(numbers.max(initial=-1)) + 1
    if estimate is None or count < 2:
        return None
    order = np.argsort(numbers, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    random = np.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(resamples):
        picked = random.integers(count, size=count)
        value = statistic(np.concatenate([members[index] for index in picked]))
        drawn.append(np.nan if value is None else value)
    return _interval(estimate, np.array(drawn), count, level)


def coefficient_interval(
    summed: Summed,
    clusters: Sequence[str],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 11,
) -> Interval | None:
    """Percentile interval of whole clusters drawn with replacement; wider where little disagrees.

    The bootstrap cannot see what did not happen: of raters who never disagreed it says [1, 1], and
    where nobody agreed on the rare answer that nobody ever would. With fewer than `FEWEST` items in
    disagreement each end is at least that of a score interval: Wilson's for the share of items in
    disagreement, at the effective number of items, each as grave as those seen (as grave as can be,
    where none was).

    Returns:
        None where the coefficient is undefined or the bootstrap is (see `bootstrap_interval`).
    """
    estimate, numbers = summed.value(), cluster_numbers(clusters)
    count = int(numbers.max(initial=-1)) + 1
    if estimate is None or count < 2 or count * summed.sums.shape[1] > MAX_CELLS:
        return None
    totals = resampled_totals(summed.sums, numbers, resamples=resamples, seed=seed)
    found = _interval(estimate, summed.of(totals), count, level)
    if found is None:
        return None
    low, high = _edges(summed, numbers, (1 - level) / 2)
    low, high = max(-1.0, min(found.low, low)), min(1.0, max(found.high, high))
    return found.model_copy(update={"low": min(low, found.mean), "high": max(high, found.mean)})


def share_interval(
    values: Sequence[bool], clusters: Sequence[str], *, level: float = 0.95
) -> Interval | None:
    """Wilson's interval of a share, at the effective number of items; None of no items."""
    if not values:
        return None
    array, numbers = np.array(values, dtype=np.float64), cluster_numbers(clusters)
    n, mean = len(array) / design_effect(array, numbers), float(array.mean())
    low, high = wilson_interval(mean * n, n, alpha=(1 - level) / 2)
    return Interval(mean=mean, low=min(mean, low), high=max(mean, high), level=level)


def cluster_numbers(clusters: Sequence[str]) -> IntArray:
    """Clusters numbered from 0 without gaps."""
    _, numbers = np.unique(np.array(clusters, dtype=object).astype(str), return_inverse=True)
    return numbers.astype(np.int64)


def _interval(estimate: float, drawn: FloatArray, count: int, level: float) -> Interval | None:
    defined = drawn[~np.isnan(drawn)]
    if len(defined) < (1 - UNDEFINED_SHARE) * len(drawn):
        return None
    tail = expanded_tail((1 - level) / 2, count)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(
        mean=estimate, low=min(float(low), estimate), high=max(float(high), estimate), level=level
    )


def _edges(summed: Summed, clusters: IntArray, alpha: float) -> tuple[float, float]:
    """The coefficient at the ends of the score interval of the share in disagreement."""
    pairable = summed.is_pairable
    by_item, _ = summed.parts(summed.sums[pairable])
    disagree = (by_item > 1e-12).astype(np.float64)
    if disagree.sum() >= FEWEST:
        return 1.0, -1.0
    _, among = np.unique(clusters[pairable], return_inverse=True)
    n = len(disagree) / design_effect(disagree, among)
    share = float(disagree.mean())
    fewest, most = wilson_interval(share * n, n, alpha=alpha)
    observed, expected = (
        float(part[0]) for part in summed.parts(summed.sums.sum(axis=0, keepdims=True))
    )
    gravity = observed / share if share else 1.0
    return 1 - gravity * most / expected, 1 - gravity * fewest / expected
