"""Intervals more than one stage needs: cluster bootstrap, Student's t, Wilson's score interval.

Pure: arrays in, numbers out. `gate/statistics.py` compares two models with them; `label/agreement`
puts an interval on a coefficient.
"""

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RESAMPLES_AT_ONCE = 500
"""Bounds the memory of a bootstrap: this many rows of one count a cluster."""
_STEPS = 60
"""Bisections of an interval of width at most 2: far below what a float can tell apart."""


def resampled_totals(
    sums: FloatArray, clusters: IntArray, *, resamples: int, seed: int
) -> FloatArray:
    """Totals of bootstrap samples of whole clusters (Field and Welsh 2007).

    Args:
        sums: One row an item; a statistic must be a function of its column totals.
        clusters: The cluster of each item, numbered from 0 without gaps.
        resamples: Bootstrap samples.
        seed: Of the drawing; the same seed draws the same samples.

    Returns:
        One row a bootstrap sample, the columns of `sums`.
    """
    count = int(clusters.max()) + 1
    of_cluster = np.stack([np.bincount(clusters, column) for column in sums.T], axis=1)
    # Clusters with the same sums are exchangeable, so that how many of each kind are drawn is all
    # that matters: of binary scores there are a handful of kinds, however many items.
    kinds, counts = np.unique(of_cluster, axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    blocks = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, resamples - start)
        blocks.append(random.multinomial(count, counts / count, size=rows) @ kinds)
    return np.concatenate(blocks)


def expanded_tail(alpha: float, count: int) -> float:
    """Hesterberg's (2015) expanded percentile: Phi(-sqrt(n/(n-1)) t(1-alpha, n-1)).

    Taken in place of alpha it gives a percentile interval of few clusters a t interval's width.
    """
    t = t_quantile(1 - alpha, count - 1)
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * t)


def design_effect(values: FloatArray, clusters: IntArray) -> float:
    """How many times wider the variance of the mean is than if items were independent; at least 1.

    The ratio of the between-cluster to the item-wise sum of squares, after one discordant item's
    worth of residual, shared by all of a typical cluster, is added as prior evidence. Without it
    the ratio is 0/0 where nothing varies; with it, that case counts each cluster as one
    observation, and the prior fades as discordant items come in (`benchmarks/gate_power.py`
    measures the choice).
    """
    residual = values - values.mean()
    sizes = np.bincount(clusters).astype(np.float64)
    typical = float((sizes**2).sum() / len(values))
    between = float((np.bincount(clusters, residual) ** 2).sum())
    return max(1.0, (between + typical) / (float((residual**2).sum()) + 1))


def wilson_interval(right: float, n: float, *, alpha: float = 0.025) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927)."""
    z = NormalDist().inv_cdf(1 - alpha)
    centre = (right + z * z / 2) / (n + z * z)
    half = z * math.sqrt(max(0.0, right * (1 - right / n)) + z * z / 4) / (n + z * z)
    return max(0.0, centre - half), min(1.0, centre + half)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Student's t quantile above the median, without SciPy.

    Bisects the exact distribution function for integer degrees of freedom (Abramowitz and Stegun
    26.7.3 and 26.7.4); beyond 200 the expansion 26.7.5 is exact to seven digits.
    """
    if freedom > 200:
        z = NormalDist().inv_cdf(probability)
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    angle = bisect(lambda theta: _t_between(theta, freedom) < 2 * probability - 1, 0.0, math.pi / 2)
    return math.sqrt(freedom) * math.tan(angle)


def _t_between(angle: float, freedom: int) -> float:
    """P(-t < T < t) for t = sqrt(freedom) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def bisect(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Where a claim that holds at the lower end stops holding."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if is_below(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
