"""Intervals against published values, values worked by hand, and simulated truth."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.gate.statistics import (
    PairedScores,
    items_needed,
    paired_intervals,
    smallest_margin,
    tango_interval,
)
from flywheel.records import Interval
from flywheel.statistics import FloatArray, IntArray

Z2 = 1.959964**2


def singles(count: int) -> IntArray:
    return np.arange(count, dtype=np.int64)


def difference(
    candidate: FloatArray, champion: FloatArray, clusters: IntArray | None = None, seed: int = 11
) -> Interval:
    scores = PairedScores(
        candidate, champion, singles(len(candidate)) if clusters is None else clusters
    )
    return paired_intervals(scores, alpha=0.025, resamples=1000, seed=seed).difference


def test_tango_matches_the_airway_example_of_fagerland_lydersen_and_laake() -> None:
    """21 children before and after a transplant (Bentur 2009): 1 against 7 discordant pairs.

    Stat. Med. 33:2850 gives (-0.517, -0.026).
    """
    low, high = tango_interval(1, 7, 21)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


def test_tango_matches_propcis() -> None:
    """R: PropCIs::scoreci.mp(25, 28, 618, conf.level = 0.90) is (-0.0148, 0.0247) for 28 - 25."""
    low, high = tango_interval(28, 25, 618, alpha=0.05)
    assert (round(low, 4), round(high, 4)) == (-0.0148, 0.0247)


def test_tango_of_no_discordant_pair_is_z_squared_over_n_plus_z_squared() -> None:
    """0 of 200: 3.8415 / 203.8415 = 0.01885; the rule of three says 1 - 0.025^(1/200) = 0.0183."""
    low, high = tango_interval(0, 0, 200)
    assert high == pytest.approx(Z2 / (200 + Z2), abs=1e-6)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1 - 0.025 ** (1 / 200), abs=0.001)


@pytest.mark.parametrize(("gained", "lost"), [(10, 0), (0, 10), (10, 10), (5, 5), (0.4, 0)])
def test_tango_stays_within_what_a_difference_can_be(gained: float, lost: float) -> None:
    pairs = max(10, gained + lost)
    low, high = tango_interval(gained, lost, pairs)
    assert -1 <= low <= (gained - lost) / pairs <= high <= 1
    assert low < high


@pytest.mark.parametrize(("margin", "items"), [(0.02, 3925), (0.03, 1745), (0.05, 628)])
def test_items_for_a_margin_at_twenty_percent_discordance(margin: float, items: int) -> None:
    """(1.95996 + 0.84162)^2 = 7.8489; 7.8489 x 0.2 / 0.02^2 = 3924.4."""
    assert items_needed(distance=margin, variance=0.2) == items


def test_no_number_of_items_settles_an_estimate_on_the_bound() -> None:
    assert items_needed(distance=0, variance=0.2) is None


def test_a_margin_needs_items_even_when_nothing_ever_differs() -> None:
    """z^2 (1 - 0.02) / 0.02 = 3.8415 x 49 = 188.2; below it a score interval cannot clear 0.02."""
    assert items_needed(distance=0.02, variance=1e-9) == 189
    assert tango_interval(0, 0, 189)[0] > -0.02 > tango_interval(0, 0, 188)[0]


def test_two_hundred_items_certify_six_to_eleven_points() -> None:
    """2.80158 x sqrt(0.1 / 200) = 0.0626; at 30 % discordance x sqrt(0.3 / 200) = 0.1085."""
    assert smallest_margin(items=200, variance=0.1) == pytest.approx(0.0626, abs=1e-4)
    assert smallest_margin(items=200, variance=0.3) == pytest.approx(0.1085, abs=1e-4)


@pytest.mark.parametrize(
    ("value", "clusters"),
    [
        pytest.param(1.0, singles(50), id="all right"),
        pytest.param(0.0, singles(50), id="all wrong"),
        pytest.param(0.37, singles(50), id="all the same and not binary"),
        pytest.param(1.0, np.repeat(np.arange(10), 5), id="in clusters"),
        pytest.param(1.0, np.zeros(50, dtype=np.int64), id="one cluster"),
    ],
)
def test_no_difference_at_all_is_not_certainty(value: float, clusters: IntArray) -> None:
    """A bootstrap of fifty equal pairs says [0, 0]: nothing it could draw differs."""
    scores = np.full(50, value)
    found = paired_intervals(
        PairedScores(scores, scores, clusters), alpha=0.025, resamples=500, seed=1
    )
    assert found.difference.low <= -0.05
    assert found.difference.high >= 0.05
    assert found.candidate.high - found.candidate.low > 0.05
    assert found.variance > 0


def test_fewer_clusters_say_less_of_the_same_items() -> None:
    """0 of 60 in 60, 20 and 1 clusters: z^2 / (n + z^2) is 0.060, 0.161 and 0.793."""
    same = np.ones(60)
    widths = [difference(same, same, np.arange(60) // size).high for size in (1, 3, 60)]
    assert widths == pytest.approx([Z2 / (n + Z2) for n in (60, 20, 1)], abs=1e-4)


def test_one_lost_pair_in_a_hundred_is_not_three_points_at_most() -> None:
    """The bootstrap's end is -0.03, its 97.5 % quantile of Poisson(1); Tango's is -0.054."""
    champion, candidate = np.ones(100), np.ones(100)
    candidate[0] = 0
    assert difference(candidate, champion).low == pytest.approx(-0.0545, abs=1e-3)


def test_repeating_every_item_five_times_proves_nothing_more() -> None:
    rng = np.random.default_rng(3)
    candidate, champion = (rng.random((2, 60)) < [[0.7], [0.5]]).astype(float)
    once = difference(candidate, champion)
    again = difference(np.repeat(candidate, 5), np.repeat(champion, 5), np.repeat(np.arange(60), 5))
    assert again.mean == pytest.approx(once.mean)
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.03)


def test_two_clusters_span_all_they_could_have_been() -> None:
    """Means 0 and 1 resample to 0, 1/2 and 1; with t(0.975, 1) = 12.7 both ends are reached."""
    scores = PairedScores(np.array([0.0, 1.0]), np.zeros(2), singles(2))
    found = paired_intervals(scores, alpha=0.025, resamples=500, seed=1).difference
    assert (found.low, found.high) == pytest.approx((-0.47, 1), abs=0.03)


def test_graded_scores_get_about_the_width_of_a_t_interval() -> None:
    """30 differences: 2 x t(0.975, 29) = 4.0905 standard errors wide."""
    rng = np.random.default_rng(5)
    champion = rng.random(30) * 0.5
    candidate = np.clip(champion + rng.normal(0.1, 0.1, 30), 0, 1)
    found = difference(candidate, champion)
    gap = candidate - champion
    assert found.high - found.low == pytest.approx(
        4.0905 * float(gap.std(ddof=1)) / math.sqrt(30), rel=0.1
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    candidate, champion = rng.random((2, 40))
    assert difference(candidate, champion) == difference(candidate, champion)
    assert difference(candidate, champion) != difference(candidate, champion, seed=12)


binary = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), min_size=1, max_size=60
)


@settings(max_examples=50, deadline=None)
@given(binary)
def test_an_interval_holds_its_mean_and_stays_within_what_can_be(
    rows: list[tuple[bool, bool, int]],
) -> None:
    candidate = np.array([float(row[0]) for row in rows])
    champion = np.array([float(row[1]) for row in rows])
    _, clusters = np.unique([row[2] for row in rows], return_inverse=True)
    found = difference(candidate, champion, clusters)
    assert -1 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 100))
def test_exchanging_the_models_mirrors_the_score_interval(
    gained: int, lost: int, alike: int
) -> None:
    low, high = tango_interval(gained, lost, gained + lost + alike)
    assert tango_interval(lost, gained, gained + lost + alike) == pytest.approx((-high, -low))


def test_five_thousand_items_take_a_moment() -> None:
    """Kinds of clusters are resampled, and not five thousand clusters four thousand times."""
    rng = np.random.default_rng(2)
    candidate, champion = (rng.random((2, 5000)) < [[0.7], [0.6]]).astype(float)
    started = time.perf_counter()
    scores = PairedScores(candidate, champion, singles(5000))
    found = paired_intervals(scores, alpha=0.025, resamples=4000, seed=1).difference
    assert time.perf_counter() - started < 1
    assert found.low > 0.07


def clustered_pairs(
    rng: np.random.Generator, *, sizes: IntArray, gain: float, loss: float, dependence: float
) -> PairedScores:
    """Pairs with known truth: with probability `dependence` a cluster's items share one outcome."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    both = 0.6 * (1 - gain - loss)
    shares = [gain, loss, both, 1 - gain - loss - both]
    own = rng.choice(4, size=len(clusters), p=shares)
    shared = rng.choice(4, size=len(sizes), p=shares)[clusters]
    outcome = np.where((rng.random(len(sizes)) < dependence)[clusters], shared, own)
    return PairedScores(
        candidate=np.isin(outcome, (0, 2)).astype(float),
        champion=np.isin(outcome, (1, 2)).astype(float),
        clusters=clusters,
    )


def coverage(rounds: int, *, gain: float, loss: float, dependence: float) -> tuple[float, float]:
    """Share of 40-cluster samples whose interval holds the truth: ours, and item by item."""
    rng = np.random.default_rng(7)
    truth, ours, naive = gain - loss, 0, 0
    for _ in range(rounds):
        sizes = rng.integers(2, 10, 40)
        scores = clustered_pairs(rng, sizes=sizes, gain=gain, loss=loss, dependence=dependence)
        found = paired_intervals(scores, alpha=0.025, resamples=300, seed=1).difference
        gap = scores.candidate - scores.champion
        half = 1.96 * float(gap.std(ddof=1)) / math.sqrt(len(gap))
        ours += found.low <= truth <= found.high
        naive += abs(float(gap.mean()) - truth) <= half
    return ours / rounds, naive / rounds


def test_intervals_cover_the_truth_in_clusters_where_naive_ones_do_not() -> None:
    ours, naive = coverage(150, gain=0.1, loss=0.1, dependence=0.4)
    assert ours >= 0.92
    assert naive <= 0.85


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "loss", "dependence"),
    [(0.1, 0.1, 0.0), (0.1, 0.1, 0.5), (0.3, 0.05, 0.3), (0.0, 0.02, 0.5), (0.01, 0.08, 1.0)],
)
def test_coverage_is_nominal_or_better(gain: float, loss: float, dependence: float) -> None:
    """Standard error of 1,500 rounds at 0.95: 0.006."""
    ours, _ = coverage(1500, gain=gain, loss=loss, dependence=dependence)
    assert ours >= 0.935
