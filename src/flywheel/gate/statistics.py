"""Paired intervals that stay honest in clusters and at the edges. Pure: arrays in, numbers out.

Two intervals are computed and the wider end of each is taken:

1. A paired cluster bootstrap (Field and Welsh 2007): whole clusters are drawn with replacement,
   because items of one conversation are not independent; percentile ends, at the expanded
   percentiles of Hesterberg (2015, section 3.3), which give few clusters the width of a t interval.
2. A score interval on the same data, for binary scores: Tango's (1998) for the paired difference,
   Wilson's (1927) for a mean, at the effective sample size n / design effect. The bootstrap cannot
   see what did not happen: with no discordant pair its interval has width zero, with one or two it
   is far too narrow. Tango's says of 0 discordant pairs in 200 that the difference lies within 1.9
   points, which is the rule of three at this level.

Scores that are not binary have the second only where they do not vary at all. What neither can see
is bias: a suite unlike production, or a grader that is wrong.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from flywheel.records import Interval
from flywheel.statistics import (
    FloatArray,
    IntArray,
    bisect,
    design_effect,
    expanded_tail,
    resampled_totals,
    wilson_interval,
)


@dataclass(frozen=True)
class PairedScores:
    """Two models' scores of the same items, in the same order."""

    candidate: FloatArray
    champion: FloatArray
    clusters: IntArray
    """The cluster of each item, numbered from 0 without gaps."""
    span: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest score there can be."""


@dataclass(frozen=True)
class PairedIntervals:
    """Both models and their difference on the same items."""

    candidate: Interval
    champion: Interval
    difference: Interval
    """Candidate minus champion."""
    items: int
    clusters: int
    variance: float
    """Of the difference, an item, inflated by the design effect; never 0: see `_variance`."""
    design_effect: float
    """Items that count as one independent item."""


def paired_intervals(
    scores: PairedScores, *, alpha: float, resamples: int, seed: int
) -> PairedIntervals:
    """Intervals at level 1 - 2 alpha of both means and of their difference.

    Args:
        scores: Both models' scores of the same items.
        alpha: One-sided error of each end.
        resamples: Bootstrap resamples.
        seed: Of the resampling; the same seed gives the same interval.
    """
    difference = scores.candidate - scores.champion
    columns = np.stack([scores.candidate, scores.champion, difference])
    clusters, span = scores.clusters, scores.span
    low, high = _bootstrap(columns, clusters, alpha=alpha, resamples=resamples, seed=seed)
    width = span[1] - span[0]
    spans = (span, span, (-width, width))
    edges = [
        _edge_interval(row, clusters, alpha, bounds)
        for row, bounds in zip(columns, spans, strict=True)
    ]
    level = 1 - 2 * alpha
    intervals = [
        Interval(
            mean=float(row.mean()),
            low=float(max(bounds[0], min(low[i], edge[0]))),
            high=float(min(bounds[1], max(high[i], edge[1]))),
            level=level,
        )
        for i, (row, edge, bounds) in enumerate(zip(columns, edges, spans, strict=True))
    ]
    return PairedIntervals(
        candidate=intervals[0],
        champion=intervals[1],
        difference=intervals[2],
        items=len(difference),
        clusters=_count(clusters),
        variance=_variance(difference, clusters, width),
        design_effect=design_effect(difference, clusters),
    )


def items_needed(
    *,
    distance: float,
    variance: float,
    effect: float = 1.0,
    alpha: float = 0.025,
    power: float = 0.8,
) -> int | None:
    """Items for a paired comparison to settle with this power.

    n = (z(1-alpha) + z(power))^2 variance / distance^2. Of binary scores the variance is the share
    of discordant pairs: a margin of 0.02 at 20 % discordance needs 7.849 x 0.2 / 0.0004 = 3,925.
    It is at least what a score interval needs with no discordant pair at all, z^2 (1 - d) / d for
    each independent item: a margin of 0.02 is out of reach of 188 items whatever they show.

    Args:
        distance: From the true difference to the bound: the margin, where the models are equal.
        variance: Of the difference, an item, with the design effect in it.
        effect: The design effect.
        alpha: One-sided error.
        power: Chance to settle.

    Returns:
        None where the distance is 0: no number would settle it.
    """
    gap = abs(distance)
    if gap < 1e-9:
        return None
    z = NormalDist().inv_cdf(1 - alpha)
    normal = (z + NormalDist().inv_cdf(power)) ** 2 * variance / gap**2
    edge = effect * z * z * max(0.0, 1 - gap) / gap
    # The small term keeps 3925.0000000001 from becoming 3926.
    return math.ceil(max(normal, edge) - 1e-9)


def smallest_margin(
    *, items: int, variance: float, alpha: float = 0.025, power: float = 0.8
) -> float:
    """The tightest margin this many items can certify with this power for two equal models."""
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return z * math.sqrt(variance / items)


def tango_interval(
    gained: float, lost: float, n: float, *, alpha: float = 0.025
) -> tuple[float, float]:
    """Score interval of the difference of paired proportions (Tango 1998, Stat. Med. 17:891).

    With nothing gained and nothing lost it is +-z^2 / (n + z^2).

    Args:
        gained: Pairs that only the first got right. May be fractional: an effective count.
        lost: Pairs that only the second got right.
        n: Pairs.
        alpha: One-sided error of each end.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    estimate = (gained - lost) / n

    def score(delta: float) -> float:
        """Tango's statistic; falls as delta grows."""
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        # The difference of two near-equal roots may come out below 0 by rounding.
        only_second = max(0.0, (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n))
        variance = n * (2 * only_second + delta * (1 - delta))
        gap = gained - lost - n * delta
        return math.copysign(math.inf, gap) if variance <= 0 else gap / math.sqrt(variance)

    low = bisect(lambda delta: score(delta) > z, -1.0, estimate)
    high = bisect(lambda delta: score(delta) > -z, estimate, 1.0)
    return low, high


def _count(clusters: IntArray) -> int:
    return int(clusters.max()) + 1


def _bootstrap(
    columns: FloatArray, clusters: IntArray, *, alpha: float, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Percentile ends of each row's mean; clusters are resampled, all rows by the same draws."""
    count = _count(clusters)
    if count < 2:
        means = columns.mean(axis=1)
        return means, means
    sums = np.concatenate([columns, np.ones((1, columns.shape[1]))]).T
    totals = resampled_totals(sums, clusters, resamples=resamples, seed=seed)
    means = totals[:, :-1] / totals[:, -1:]
    tail = expanded_tail(alpha, count)
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def _edge_interval(
    values: FloatArray, clusters: IntArray, alpha: float, span: tuple[float, float]
) -> tuple[float, float]:
    """The score interval of binary scores; for others the rule of three where nothing varies."""
    n = len(values) / design_effect(values, clusters)
    mean = float(values.mean())
    share = n / len(values)
    if span[0] < 0 and set(np.unique(values)) <= {-1.0, 0.0, 1.0} and span[1] == 1:
        gained, lost = float((values > 0).sum()), float((values < 0).sum())
        return tango_interval(gained * share, lost * share, n, alpha=alpha)
    if span == (0.0, 1.0) and set(np.unique(values)) <= {0.0, 1.0}:
        return wilson_interval(mean * n, n, alpha=alpha)
    if float(np.ptp(values)) > 0 and _count(clusters) > 1:
        return mean, mean
    # 0 of n items differed: with confidence 1 - alpha fewer than `unseen` of all do.
    unseen = 1 - alpha ** (1 / n)
    return mean - unseen * (mean - span[0]), mean + unseen * (span[1] - mean)


def _variance(difference: FloatArray, clusters: IntArray, width: float) -> float:
    """Of the difference, an item, with the design effect.

    Never below one discordant pair in n + 2 (Laplace's rule of succession): no variance seen so far
    is no promise that ten thousand more items would show none.
    """
    effect = design_effect(difference, clusters)
    floor = width**2 / (len(difference) / effect + 2)
    return max(float(difference.var()) * effect, floor)
