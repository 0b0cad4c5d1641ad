"""Calibrated means: what experts would say of all that a judge judged, from what they labelled.

The estimator is PPI++ (Angelopoulos, Duchi, Zrnic 2023, arXiv:2311.01453, for a mean): the judge's
mean, corrected by how far it was off on a random slice that experts labelled too; lambda, tuned and
held between 0 (labels only) and 1, is how far the judge is leaned on. With known inclusion
probabilities the correction is weighted by their inverse (Hajek 1971). Pure: numbers in and out.

The slice is drawn from the judged items, so that paper's estimator is the regression estimator of
survey sampling, and its variance that of the drawing (Saerndal, Swensson, Wretman 1992, chapter 6),
with the finite-population correction. That needs no independence of the items, which turns of one
conversation do not have: the draw is all that is random. `population="process"` adds the variance
of the judged items themselves, for a claim about traffic to come, and there takes clusters in.

Small slices: quantiles are Student's, with a degree of freedom less for lambda; with fewer than
`FEWEST` labels apart from the most frequent value lambda is 0, for nothing can be tuned on so few;
binary labels get Wilson's interval where it is the wider; a judge that made no mistake on the slice
is held to make one in n + 2. benchmarks/ppi_coverage.py measures what comes of it.

What it cannot see: labels that are wrong, and a slice that was not drawn at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flywheel.records import Interval, Record
from flywheel.statistics import FloatArray, IntArray, design_effect, t_quantile, wilson_interval

Numbers = Sequence[float] | FloatArray
Population = Literal["items", "process"]
"""What the mean is of: the judged items, or the process they are a sample of."""
FEWEST = 5
"""Labels that differ from the most frequent one, below which lambda is 0."""


class CalibratedMean(Record):
    """A mean that leans on a judge, with the one that does not beside it."""

    estimate: Interval
    """PPI++."""
    labels_only: Interval
    """Of the same labels, the judge unheard; by the same rules."""
    judge_only: float
    """The judge's own mean, uncorrected: not an estimate of anything people said."""
    lam: float
    """How far the judge is leaned on; 0 is labels only."""
    labelled: int
    judged: int
    """Items judged, the labelled ones included."""
    population: Population


@dataclass(frozen=True)
class _Slice:
    """The labelled items, and what is known of all."""

    labels: FloatArray
    judge: FloatArray
    weights: FloatArray
    """Inverse inclusion probabilities."""
    judge_mean: float
    """Over all judged items."""
    judge_variance: float
    total: int
    effect: float
    """Design effect of the items as a sample of the process; 1 for the items themselves."""
    population: Population


def ppi_mean(  # noqa: PLR0913 - what the estimator is defined by
    labels: Numbers,
    judge_labelled: Numbers,
    judge_unlabelled: Numbers,
    *,
    inclusion_prob: Numbers | None = None,
    level: float = 0.95,
    population: Population = "items",
    clusters: Sequence[int] | IntArray | None = None,
) -> CalibratedMean:
    """The PPI++ estimate of a mean label.

    Args:
        labels: What experts said of the randomly drawn items; at least three.
        judge_labelled: What the judge said of the same items, in the same order.
        judge_unlabelled: What it said of the items that were not drawn.
        inclusion_prob: Probability of each labelled item to be drawn; equal ones when absent.
        level: Confidence.
        population: What the mean is of.
        clusters: Of labelled, then unlabelled items, numbered from 0: items of one conversation
            share a number. Matters only to the variance of a process.

    Raises:
        ValueError: fewer than three labels, lengths that do not match, a probability outside
            (0, 1], a number that is not finite.
    """
    known = _slice(labels, judge_labelled, judge_unlabelled, inclusion_prob)
    known = _placed(known, population, judge_labelled, judge_unlabelled, clusters)
    lam = _tuned(known)
    unlabelled = known.total - len(known.labels)
    # The paper leans on the mean of the unlabelled items; on that of all items it is this much.
    slope = lam * known.total / unlabelled if unlabelled else lam
    return CalibratedMean(
        estimate=_estimate(known, slope, level=level, fitted=1 + (lam > 0)),
        labels_only=_estimate(known, 0.0, level=level, fitted=1),
        judge_only=known.judge_mean,
        lam=lam,
        labelled=len(known.labels),
        judged=known.total,
        population=population,
    )


def _slice(
    labels: Numbers,
    judge_labelled: Numbers,
    judge_unlabelled: Numbers,
    inclusion_prob: Numbers | None,
) -> _Slice:
    y, f, rest = (
        np.asarray(part, dtype=np.float64) for part in (labels, judge_labelled, judge_unlabelled)
    )
    everything = np.concatenate([f, rest])
    share = len(y) / max(1, len(everything))
    drawn = np.full(len(y), share) if inclusion_prob is None else np.asarray(inclusion_prob, float)
    if not len(y) == len(f) == len(drawn):
        raise ValueError(f"{len(y)} labels, {len(f)} judgements, {len(drawn)} probabilities")
    if len(y) < 3:
        raise ValueError(f"{len(y)} labels: at least three are needed")
    if not (np.isfinite(y).all() and np.isfinite(everything).all()):
        raise ValueError("a label or a judgement is not a finite number")
    if not ((drawn > 0) & (drawn <= 1)).all():
        raise ValueError("an inclusion probability lies outside (0, 1]")
    return _Slice(
        labels=y,
        judge=f,
        weights=1 / drawn,
        judge_mean=float(everything.mean()),
        judge_variance=float(everything.var()),
        total=len(everything),
        effect=1.0,
        population="items",
    )


def _placed(
    known: _Slice,
    population: Population,
    judge_labelled: Numbers,
    judge_unlabelled: Numbers,
    clusters: Sequence[int] | IntArray | None,
) -> _Slice:
    """With the design effect, told from the judge's values: labels are too few to tell it."""
    if population == "items" or clusters is None:
        return replace(known, population=population)
    values = np.concatenate([np.asarray(judge_labelled), np.asarray(judge_unlabelled)])
    numbers: IntArray = np.unique(np.array(clusters), return_inverse=True)[1]
    return replace(known, population=population, effect=design_effect(values, numbers))


def _tuned(known: _Slice) -> float:
    """Example 6.1 of the paper: cov(label, judge) / ((1 + n/N) var(judge)), held in [0, 1]."""
    _, counts = np.unique(known.labels, return_counts=True)
    unlabelled = known.total - len(known.labels)
    if len(known.labels) - int(counts.max()) < FEWEST or unlabelled == 0:
        return 0.0
    if known.judge_variance < 1e-12:
        return 0.0
    weights = known.weights / known.weights.sum()
    centred = known.judge - weights @ known.judge
    covariance = float(weights @ (centred * known.labels))
    ratio = len(known.labels) / unlabelled
    return float(np.clip(covariance / ((1 + ratio) * known.judge_variance), 0.0, 1.0))


def _estimate(known: _Slice, slope: float, *, level: float, fitted: int) -> Interval:
    """Judge's mean times slope, plus the weighted mean of what labels are beyond it."""
    shares = known.weights / known.weights.sum()
    n = _effective(known)
    beyond = known.labels - slope * known.judge
    mean = slope * known.judge_mean + float(shares @ beyond)
    residual = (beyond - shares @ beyond) ** 2
    if slope > 0:
        # A judge not seen to err yet is no promise: one error in n + 2 (Laplace's rule) at least.
        span = float(np.ptp(np.concatenate([known.labels, known.judge])))
        seen = float(shares @ residual)
        residual = residual + max(0.0, span**2 / (n + 2) - seen)
    spread = float(shares @ (known.labels - shares @ known.labels) ** 2)
    drawing = n / (n - fitted) * float(shares**2 @ ((1 - 1 / known.weights) * residual))
    sampling = n / (n - 1) * spread * known.effect / known.total
    variance = drawing + (sampling if known.population == "process" else 0.0)
    half = t_quantile((1 + level) / 2, max(1, int(n) - fitted)) * float(np.sqrt(variance))
    low, high = mean - half, mean + half
    if slope == 0:
        edge = _edge(known, level)
        low, high = min(low, edge[0]), max(high, edge[1])
    return Interval(mean=mean, low=low, high=high, level=level)


def _effective(known: _Slice) -> float:
    """Labels that equally drawn ones would be as good as (Kish 1965); at least 2.5."""
    size = float(known.weights.sum() ** 2 / (known.weights**2).sum())
    return max(2.5, round(size, 6))


def _edge(known: _Slice, level: float) -> tuple[float, float]:
    """The score interval of binary labels, and of labels that do not vary the rule of three."""
    alpha, labels = (1 - level) / 2, known.labels
    mean = float(known.weights @ labels / known.weights.sum())
    n = _effective(known) / known.effect
    if known.population == "items" and known.total == len(labels):
        return mean, mean
    if known.population == "items":
        n /= 1 - len(labels) / known.total
    if set(np.unique(labels)) <= {0.0, 1.0}:
        return wilson_interval(mean * n, n, alpha=alpha)
    if float(np.ptp(labels)) > 0:
        return mean, mean
    unseen = 1 - alpha ** (1 / n)
    return mean - unseen * (mean - min(0.0, mean)), mean + unseen * (max(1.0, mean) - mean)
