from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.label.judging.headers import Allowance, read_duration_s, read_limits

NOW = datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sat, 31 Jan 2026 08:00:12 GMT"}, 12),
        ({"retry-after": "Sat, 31 Jan 2026 07:00:00 GMT"}, 0),
        ({"retry-after": "99999999"}, 3600),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert read_limits(headers, now=NOW).retry_after_s == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1s", 1),
        ("1h2m3s", 3723),
        ("8.64s", 8.64),
        ("12", 12),
        ("2026-01-31T08:00:30Z", 30),
        ("", None),
        ("a while", None),
    ],
)
def test_a_reset_is_a_duration_or_a_moment(text: str, seconds: float | None) -> None:
    assert read_duration_s(text, now=NOW) == seconds


def test_an_allowance_refills_by_what_is_used_up_over_the_time_until_it_is_whole() -> None:
    """40 of 100 used, whole again in 8 s: 5 a second."""
    limits = read_limits(
        {
            "x-ratelimit-limit-requests": "100",
            "x-ratelimit-remaining-requests": "60",
            "x-ratelimit-reset-requests": "8s",
            "x-ratelimit-remaining-tokens": "149984",
        },
        now=NOW,
    )
    assert limits.requests == Allowance(remaining=60, limit=100, reset_s=8)
    assert limits.requests.refill_per_s == 5
    assert limits.tokens is not None and limits.tokens.refill_per_s is None


@given(st.dictionaries(st.sampled_from(["retry-after", "x-ratelimit-reset-tokens"]), st.text()))
def test_no_header_stops_a_run(headers: dict[str, str]) -> None:
    limits = read_limits({"x-ratelimit-remaining-tokens": "1", **headers})
    assert limits.retry_after_s is None or limits.retry_after_s >= 0
