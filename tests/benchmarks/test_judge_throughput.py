"""The proof at full size; its speed is told by `make bench NAME=judge_throughput`, not asserted."""

import pytest

from benchmarks.judge_throughput import BUDGET_USD, COUNT, measure


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("has_headers", [True, False])
def test_ten_thousand_judgements_end_complete_none_invented_none_paid_twice(
    has_headers: bool,
) -> None:
    line = measure(COUNT, has_headers=has_headers)
    assert (line.judged, line.failed) == (COUNT, 0)
    assert (line.invented, line.paid_twice) == (0, 0)
    assert line.dead_s >= 20
    assert line.cost_usd <= BUDGET_USD
    # One repair for each item first answered with nonsense, and nothing besides.
    assert COUNT < line.completions < 1.05 * COUNT
