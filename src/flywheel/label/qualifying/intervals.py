"""Intervals of a judge's measures that stay honest in clusters and at the edges. Pure.

Every interval is the wider, end by end, of two: a bootstrap that resamples clusters (items of one
conversation are not independent), and one built on Wilson's (1927) score interval that counts a
cluster as one observation. The bootstrap cannot see what did not happen: 50 agreements in 50 give
it an interval without width, while Wilson's says that a judge that is wrong once in 14 may do that.

A statistic is a function of sums over items, so that all resamples are one matrix product.
"""

from collections.abc import Callable, Sequence

import numpy as np

from flywheel.records import Interval
from flywheel.statistics import FloatArray, expanded_tail, resampled_totals, wilson_interval

RESAMPLES = 2000
SEED = 11
LEVEL = 0.95
MAX_UNDEFINED = 0.05
"""Share of resamples on which a statistic may be undefined."""

Statistic = Callable[[FloatArray], FloatArray]
"""Rows of totals to values; NaN where undefined."""


def share_interval(claims: Sequence[bool], clusters: Sequence[str]) -> Interval | None:
    """How often a claim holds; None of nothing, or of a single cluster."""
    values = np.array(claims, dtype=np.float64)
    drawn = bootstrapped(_with_count(values), _ratio, clusters)
    share = float(values.mean()) if drawn else 0.0
    return wider(share, drawn, wilson_ends(share, clusters)) if drawn else None


def difference_interval(values: FloatArray, clusters: Sequence[str]) -> Interval | None:
    """Mean of differences, each between -1 and 1; None of nothing, or of a single cluster."""
    drawn = bootstrapped(_with_count(values), _ratio, clusters)
    return wider(float(values.mean()), drawn, difference_ends(values, clusters)) if drawn else None


def difference_ends(values: FloatArray, clusters: Sequence[str]) -> tuple[float, float]:
    """Ends of a mean of differences, from what speaks for and what against it.

    The two are means of values between 0 and 1, which Wilson's interval covers conservatively;
    they are put together by Newcombe's (1998) square-and-add, as for a difference of proportions.
    """
    mean = float(values.mean())
    up, down = float(np.maximum(values, 0).mean()), float(np.maximum(-values, 0).mean())
    up_low, up_high = wilson_ends(up, clusters)
    down_low, down_high = wilson_ends(down, clusters)
    return (
        mean - float(np.hypot(up - up_low, down_high - down)),
        mean + float(np.hypot(up_high - up, down - down_low)),
    )


def wilson_ends(share: float, clusters: Sequence[str]) -> tuple[float, float]:
    """Wilson's ends of a share, a cluster counted as one observation."""
    n = len(set(clusters))
    return wilson_interval(share * n, n, alpha=(1 - LEVEL) / 2)


def bootstrapped(
    sums: FloatArray, statistic: Statistic, clusters: Sequence[str]
) -> tuple[float, float] | None:
    """Ends of the percentile interval at Hesterberg's (2015) expanded percentiles.

    Args:
        sums: One row an item.
        statistic: Of their totals.
        clusters: The cluster of each item; whole clusters are drawn.

    Returns:
        None of a single cluster, and where the statistic is undefined on too many resamples.
    """
    numbers = np.unique(np.array(clusters, dtype=str), return_inverse=True)[1].astype(np.int64)
    count = int(numbers.max(initial=-1)) + 1
    if count < 2:
        return None
    values = statistic(resampled_totals(sums, numbers, resamples=RESAMPLES, seed=SEED))
    known = values[~np.isnan(values)]
    if len(known) < (1 - MAX_UNDEFINED) * len(values):
        return None
    tail = expanded_tail((1 - LEVEL) / 2, count)
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def wider(value: float, *ends: tuple[float, float]) -> Interval:
    """The outermost ends, within -1 and 1."""
    return Interval(
        mean=value,
        low=max(-1.0, min(value, *(low for low, _ in ends))),
        high=min(1.0, max(value, *(high for _, high in ends))),
        level=LEVEL,
    )


def quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Element by element; NaN where there is nothing to divide by."""
    undefined = np.full_like(numerator, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _with_count(values: FloatArray) -> FloatArray:
    return np.stack([values, np.ones_like(values)], axis=1)


def _ratio(totals: FloatArray) -> FloatArray:
    return quotient(totals[:, 0], totals[:, 1])
