"""Intervals of agreement: their coverage, their clusters, and their edges."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flywheel.label.agreement import bootstrap_interval, cohen_kappa, share_interval
from flywheel.label.agreement.coefficients import Summed, cohen_summed, fleiss_summed
from flywheel.label.agreement.intervals import coefficient_interval

Z2 = 1.959964**2


def raters(
    n: int, *, skill: float, seed: int, size: int = 1
) -> tuple[NDArray[np.int64], list[str]]:
    """Two raters who know the truth with probability `skill` and guess otherwise.

    Items come in clusters of `size` that share everything.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    codes = np.stack(
        [np.where(rng.random(n) < skill, truth, rng.integers(0, 2, n)) for _ in range(2)], axis=1
    )
    return np.repeat(codes, size, axis=0), [str(i // size) for i in range(n * size)]


def kappa_of(codes: NDArray[np.int64]) -> Summed:
    return cohen_summed(codes, 2)


def test_both_bootstraps_give_the_same_interval() -> None:
    codes, clusters = raters(200, skill=0.8, seed=1)
    names = codes.astype(str)

    def statistic(index: NDArray[np.intp]) -> float | None:
        return cohen_kappa(list(names[index, 0]), list(names[index, 1]))

    slow = bootstrap_interval(statistic, clusters, resamples=400)
    fast = coefficient_interval(kappa_of(codes), clusters, resamples=2000)
    assert slow is not None
    assert fast is not None
    assert slow.mean == pytest.approx(fast.mean)
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), abs=0.03)


def test_an_interval_covers_the_kappa_of_the_raters() -> None:
    """Who knows with probability s and guesses else: kappa = s^2 = .64. 200 rounds: +-3 %."""
    inside = 0
    for seed in range(200):
        codes, clusters = raters(120, skill=0.8, seed=seed)
        found = coefficient_interval(kappa_of(codes), clusters, resamples=400)
        assert found is not None
        inside += found.low <= 0.64 <= found.high
    assert 0.915 <= inside / 200 <= 0.985


def test_repeating_every_item_five_times_proves_nothing_more() -> None:
    once = coefficient_interval(kappa_of(raters(80, skill=0.8, seed=3)[0]), [*map(str, range(80))])
    codes, clusters = raters(80, skill=0.8, seed=3, size=5)
    again = coefficient_interval(kappa_of(codes), clusters)
    naive = coefficient_interval(kappa_of(codes), [*map(str, range(400))])
    assert once is not None
    assert again is not None
    assert naive is not None
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.1)
    assert naive.high - naive.low < 0.6 * (again.high - again.low)


def test_raters_who_never_disagreed_are_not_certain_to_agree() -> None:
    """50 items, half and half: disagreement at most z^2 / (50 + z^2) = .0713 of them, expected .5:
    kappa at least 1 - .0713 / .5 = .857. The bootstrap says [1, 1]."""
    codes = np.repeat([[0, 0], [1, 1]], 25, axis=0)
    clusters = [*map(str, range(50))]
    found = coefficient_interval(kappa_of(codes), clusters)
    assert found is not None
    assert (found.low, found.mean, found.high) == pytest.approx((1 - Z2 / (50 + Z2) / 0.5, 1, 1))


def test_the_same_seed_gives_the_same_interval() -> None:
    codes, clusters = raters(60, skill=0.7, seed=2)
    summed = kappa_of(codes)
    assert coefficient_interval(summed, clusters) == coefficient_interval(summed, clusters)
    assert coefficient_interval(summed, clusters) != coefficient_interval(summed, clusters, seed=12)


@pytest.mark.parametrize("clusters", [["one"] * 4, []])
def test_one_cluster_has_no_interval(clusters: list[str]) -> None:
    assert bootstrap_interval(lambda index: float(len(index)), clusters) is None
    counts = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])[: len(clusters)]
    assert coefficient_interval(fleiss_summed(counts), clusters) is None


def test_no_interval_where_too_many_resamples_have_one_category_only() -> None:
    """One of ten items holds the second category: 35 % of resamples never draw it."""
    counts = np.array([[2.0, 0.0]] * 9 + [[1.0, 1.0]])
    assert coefficient_interval(fleiss_summed(counts), [*map(str, range(10))]) is None


def test_a_share_of_dependent_items_is_as_wide_as_of_its_clusters() -> None:
    values = [True, True, True, False]
    single = share_interval(values * 10, [*map(str, range(40))])
    repeated = share_interval(
        [value for value in values * 10 for _ in range(3)], [str(i // 3) for i in range(120)]
    )
    assert single is not None
    assert repeated is not None
    assert repeated.low == pytest.approx(single.low, abs=0.02)
    assert share_interval([], []) is None
