"""What gate and labels share, against tables and values worked by hand."""

import numpy as np
import pytest

from flywheel.statistics import (
    IntArray,
    design_effect,
    expanded_tail,
    resampled_totals,
    t_quantile,
    wilson_interval,
)

Z2 = 1.959964**2


def singles(count: int) -> IntArray:
    return np.arange(count, dtype=np.int64)


def test_wilson_of_all_right_is_n_over_n_plus_z_squared() -> None:
    """10 of 10: 10 / 13.8415 = 0.7225."""
    low, high = wilson_interval(10, 10)
    assert low == pytest.approx(10 / (10 + Z2), abs=1e-6)
    assert high == pytest.approx(1)


@pytest.mark.parametrize(
    ("probability", "freedom", "table"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 3, 3.1824),
        (0.975, 9, 2.2622),
        (0.95, 10, 1.8125),
        (0.995, 39, 2.7079),
        (0.975, 200, 1.9719),
        (0.975, 201, 1.9718),
        (0.975, 5000, 1.9604),
    ],
)
def test_t_quantiles_are_those_of_the_table(probability: float, freedom: int, table: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(table, abs=1e-4)


def test_design_effect_of_single_items_is_one() -> None:
    assert design_effect(np.array([1.0, -1, 0, 0, 1]), singles(5)) == 1


def test_design_effect_of_wholly_dependent_items_is_the_cluster_size() -> None:
    """Residuals 1 1 -1 -1: between 2^2 + 2^2 = 8, items 4, size 2: (8 + 2) / (4 + 1) = 2."""
    values, clusters = np.array([1.0, 1, -1, -1]), np.array([0, 0, 1, 1])
    assert design_effect(values, clusters) == 2


def test_design_effect_counts_clusters_where_nothing_varies() -> None:
    """Twelve equal items in four clusters of three: (0 + 3) / (0 + 1) = 3, so four observations."""
    assert design_effect(np.zeros(12), np.repeat(np.arange(4), 3)) == 3


def test_design_effect_fades_to_one_when_items_of_a_cluster_disagree() -> None:
    """200 clusters of +1 and -1: between 0, items 400, size 2: (0 + 2) / (400 + 1), held at 1."""
    assert design_effect(np.tile([1.0, -1.0], 200), np.repeat(np.arange(200), 2)) == 1


def test_the_expanded_tail_of_many_clusters_is_the_tail_itself() -> None:
    """Phi(-sqrt(n/(n-1)) t): 0.025 for very many; of 10, Phi(-1.0541 x 2.2622) = 0.00855."""
    assert expanded_tail(0.025, 100_000) == pytest.approx(0.025, abs=1e-5)
    assert expanded_tail(0.025, 10) == pytest.approx(0.00855, abs=1e-4)


def test_a_bootstrap_sample_draws_as_many_clusters_as_there_are() -> None:
    """Two clusters of one and three items: a sample holds 2, 4 or 6 items, never 3 or 5."""
    sums, clusters = np.ones((4, 1)), np.array([0, 1, 1, 1])
    totals = resampled_totals(sums, clusters, resamples=400, seed=1)
    assert set(totals[:, 0]) == {2.0, 4.0, 6.0}
