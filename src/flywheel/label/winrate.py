"""How often one model's answers are preferred to another's, and how often at equal length.

Input: preferences of one judge between two models, in the lake. Output: a win rate, and the
length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024): a logistic regression of the
preference on the difference in length, read at no difference.

    logit P(first preferred) = theta + phi * tanh((length first - length second) / sigma)

sigma is the standard deviation of the difference, so that phi is per typical difference and a few
huge ones do not decide. The win rate at equal length is 1 / (1 + exp(-theta)). Theirs has a third
term, the difficulty of each instruction, estimated over many models; with two there is nothing to
estimate it from, and it is left out. A weak ridge keeps phi finite where length decides alone.

Both are a judge's word. Where experts answered a random slice of the same pairs, `calibrate_rate`
corrects the first by what they said (PPI++, `calibration.py`).

What it does not do: a longer answer may be better *because* it says more. The controlled rate says
what the judge would prefer were lengths equal, not which answers are better.
"""

from collections.abc import Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from flywheel.label.calibrating import (
    MINIMUM_LABELS,
    CalibrationItem,
    calibrated_mean,
    judge_versions,
    read_items,
)
from flywheel.label.calibration import CalibratedMean
from flywheel.lake import Lake
from flywheel.records import Interval, Record

RIDGE = 1.0
"""On phi; of the weight of one observation (0.25 at even odds it moves phi by little)."""
ITERATIONS = 50
RESAMPLES = 1000
MINIMUM_PAIRS = 10
"""With fewer the regression says nothing."""

Floats = NDArray[np.float64]


class Preference(Record):
    """One pair with a verdict."""

    wins: float = Field(ge=0, le=1)
    """1 when the first model's answer is preferred, 0 when the second's, 0.5 for a tie."""
    length_difference: float
    """Characters of the first model's answer less those of the second's."""
    cluster: str
    """Pairs of one conversation share it; the bootstrap resamples clusters."""


class WinRate(Record):
    """How the first model fares against the second."""

    pairs: int
    ties: int
    win_rate: Interval
    length_controlled: Interval | None
    """None with fewer than 10 pairs, or where all lengths are equal."""
    length_effect: float | None
    """phi: positive when the judge leans to the longer answer."""
    longer_wins: float | None
    """Share of pairs, ties aside, in which the longer answer was preferred."""
    calibrated: CalibratedMean | None = None
    """What experts would say of these pairs, with their labels alone beside it."""
    uncalibrated: str | None = None
    """Why there is none."""


def win_rate(preferences: Sequence[Preference], *, level: float = 0.95, seed: int = 11) -> WinRate:
    """The win rate of the first model, as it is and at equal length.

    Intervals are percentile intervals of a cluster bootstrap.

    Raises:
        ValueError: there is no preference.
    """
    if not preferences:
        raise ValueError("no preferences to take a win rate of")
    wins = np.array([one.wins for one in preferences], dtype=np.float64)
    lengths = np.array([one.length_difference for one in preferences], dtype=np.float64)
    draws = _resamples([one.cluster for one in preferences], seed)
    decided = (wins != 0.5) & (lengths != 0)
    is_told = len(wins) >= MINIMUM_PAIRS and bool(np.any(lengths))
    controlled = [controlled_rate(wins[d], lengths[d]) for d in draws] if is_told else []
    theta_phi = fit(wins, lengths) if is_told else None
    return WinRate(
        pairs=len(wins),
        ties=int(np.sum(wins == 0.5)),
        win_rate=_interval(float(wins.mean()), [float(wins[d].mean()) for d in draws], level),
        length_controlled=_interval(_sigmoid(theta_phi[0]), controlled, level)
        if theta_phi is not None
        else None,
        length_effect=float(theta_phi[1]) if theta_phi is not None else None,
        longer_wins=float(np.mean((wins > 0.5)[decided] == (lengths > 0)[decided]))
        if decided.any()
        else None,
    )


def read_preferences(
    lake: Lake, *, workload: str, judge: str, model: str, against: str
) -> list[Preference]:
    """Preferences of a judge between answers of two models, first `model`, then `against`.

    Of the judge's versions, the one that judged last counts.

    Args:
        lake: Where assessments and interactions are.
        workload: Of both.
        judge: Name of the assessments; both orders joined, as `flywheel judge run` writes them.
        model: `response_model` of the answers whose wins count.
        against: `response_model` of the others.
    """
    sql = (files("flywheel.label") / "preferences.sql").read_text(encoding="utf-8")
    version = _version(lake, workload, judge)
    rows = lake.query(sql, [workload, judge, model, against, version]).to_pylist()
    return [Preference.model_validate(row) for row in rows]


def calibrate_rate(  # noqa: PLR0913 - who judged, who labelled, and the two models
    lake: Lake, *, workload: str, judge: str, labels: str, model: str, against: str
) -> CalibratedMean | str:
    """The share of wins of `model` that experts would give, over the pairs the judge judged.

    1 where its answer won, 0.5 for a tie. A pair the judge could not judge stays in, as if of its
    average.

    Args:
        lake: Where assessments and interactions are.
        workload: Of both.
        judge: Name of its preferences; of its versions, the one that judged last counts.
        labels: Name of the experts' preferences.
        model: `response_model` of the answers whose wins count.
        against: `response_model` of the others.

    Returns:
        The mean, or a sentence that says why there is none.
    """
    sql = (files("flywheel.label") / "model_pairs.sql").read_text(encoding="utf-8")
    pairs = lake.query(sql, [workload, judge, model, against]).to_pylist()
    is_first = {str(pair["item"]): bool(pair["is_first"]) for pair in pairs}
    version = _version(lake, workload, judge)
    judged = [
        one if is_first[one.item] else _turned(one)
        for one in read_items(lake, workload, judge, labels, version=version)
        if one.is_judged and one.item in is_first
    ]
    drawn = sum(one.is_drawn for one in judged)
    if not drawn:
        return "no random slice of experts' preferences; `flywheel review push` draws one"
    if drawn < MINIMUM_LABELS:
        return (
            f"{drawn} randomly drawn pairs have an expert's preference, {MINIMUM_LABELS} are "
            "needed; `flywheel review push` draws more"
        )
    return calibrated_mean(judged)


def controlled_rate(wins: Floats, lengths: Floats) -> float:
    """The win rate at equal length."""
    return _sigmoid(fit(wins, lengths)[0])


def fit(wins: Floats, lengths: Floats) -> Floats:
    """Theta and phi, by Newton's method on the penalised likelihood; wins may be fractions."""
    sigma = float(lengths.std()) or 1.0
    x = np.column_stack([np.ones_like(lengths), np.tanh(lengths / sigma)])
    # The ridge on theta only keeps a clean sweep finite; that on phi is the regularisation.
    penalty = np.diag([1e-3, RIDGE])
    beta = np.zeros(2)
    for _ in range(ITERATIONS):
        p = 1 / (1 + np.exp(-x @ beta))
        gradient = x.T @ (wins - p) - penalty @ beta
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return beta


def _version(lake: Lake, workload: str, judge: str) -> str | None:
    """The version that judged last."""
    versions = judge_versions(lake, workload, judge)
    return versions[0].version if versions else None


def _turned(one: CalibrationItem) -> CalibrationItem:
    """The same, by how often the other answer wins."""
    return one.model_copy(
        update={
            "judge_said": None if one.judge_said is None else 1 - one.judge_said,
            "experts_said": None if one.experts_said is None else 1 - one.experts_said,
        }
    )


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


def _resamples(clusters: Sequence[str], seed: int) -> list[NDArray[np.intp]]:
    """Item indices of each draw of whole clusters, with replacement."""
    groups: dict[str, list[int]] = {}
    for index, cluster in enumerate(clusters):
        groups.setdefault(cluster, []).append(index)
    members = [np.array(group, dtype=np.intp) for group in groups.values()]
    random = np.random.default_rng(seed)
    return [
        np.concatenate([members[i] for i in random.integers(0, len(members), len(members))])
        for _ in range(RESAMPLES)
    ]


def _interval(mean: float, drawn: Sequence[float], level: float) -> Interval:
    low, high = np.quantile(np.array(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=mean, low=float(low), high=float(high), level=level)
