"""The slope a soak reports, by hand."""

import pytest

from benchmarks.gateway_overhead import summarise
from benchmarks.gateway_soak import Samples


def test_the_slope_is_an_hours_with_its_standard_error() -> None:
    """0, 1, 2 h and 10, 13, 13 MB: slope 1.5; residuals -.5, 1, -.5: sqrt((1.5 / 1) / 2)."""
    samples = Samples()
    for hour, megabytes in enumerate((10, 13, 13)):
        samples.add(hour * 3600, megabytes)
    assert samples.slope() == {
        "per_hour": 1.5,
        "standard_error": pytest.approx(0.75**0.5, abs=5e-4),
    }


def test_what_comes_before_the_warm_up_is_left_out() -> None:
    samples = Samples([0.0, 5.0, 10.0], [1.0, 2.0, 3.0])
    assert samples.after(5).values == [2.0, 3.0]


def test_memory_that_rose_in_one_early_step_is_flat_in_the_last_half_and_third() -> None:
    samples = Samples()
    for minute in range(31):
        samples.add(minute * 60, 85 if minute < 8 else 87)
    slopes = samples.slopes(120)
    assert slopes["after_warm_up"]["per_hour"] > 1
    assert slopes["last_half"]["per_hour"] == slopes["last_third"]["per_hour"] == 0


def test_what_a_gateway_adds_is_taken_round_by_round() -> None:
    """Medians apart would say 3 - 2 = 1; the rounds say 1, 2, 2."""

    def cells(p50: float, per_second: float) -> dict[str, float]:
        return {
            "p50_ms_1": p50,
            "p99_ms_1": p50,
            "first_token_p50_ms": p50,
            "per_second_16": per_second,
        }

    summary = summarise(
        {
            "direct": [cells(1, 800), cells(2, 800), cells(9, 800)],
            "bare": [cells(2, 400), cells(4, 400), cells(11, 400)],
            "mlflow": [cells(5, 100), cells(5, 100), cells(5, 100)],
        }
    )
    assert summary["added"]["bare"]["p50_ms_1"] == 2
    assert summary["throughput_ratios"]["bare"] == {"bare": 1.0, "mlflow": 4.0}
