"""Token buckets, with a clock that also jumps."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import RateLimitedError
from flywheel.records import new_id, utcnow
from flywheel.serve.gateway.keys import GatewayKey
from flywheel.serve.gateway.limits import RateLimits


class Clock:
    """Seconds that pass, or jump, when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key(requests: int | None = None, tokens: int | None = None) -> GatewayKey:
    return GatewayKey(
        key_id=new_id(),
        name="ward-7",
        sha256="0" * 64,
        workloads=("triage",),
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        created_at=utcnow(),
    )


def test_a_full_minute_at_once_then_one_every_second() -> None:
    """60 a minute is one a second; after half a second the next is half a second away."""
    clock, limited = Clock(), key(requests=60)
    limits = RateLimits(clock=clock)
    for _ in range(60):
        limits.take(limited)
    clock.now += 0.5
    with pytest.raises(RateLimitedError, match="60 requests a minute") as caught:
        limits.take(limited)
    assert caught.value.retry_after_s == 1 and caught.value.status == 429
    assert (caught.value.kind, caught.value.code) == ("requests", "rate_limit_exceeded")
    clock.now += 0.5
    limits.take(limited)


def test_tokens_are_paid_after_the_answer_and_debt_refuses() -> None:
    """600 a minute is ten a second: 900 used leave a debt of 300, gone after 30 s."""
    clock, limited = Clock(), key(tokens=600)
    limits = RateLimits(clock=clock)
    limits.take(limited)
    limits.settle(limited, 900)
    with pytest.raises(RateLimitedError) as caught:
        limits.take(limited)
    assert caught.value.kind == "tokens" and caught.value.retry_after_s == 31
    clock.now += 29.9
    with pytest.raises(RateLimitedError):
        limits.take(limited)
    clock.now += 1.1
    limits.take(limited)


def test_a_key_in_debt_loses_no_request() -> None:
    clock, limited = Clock(), key(requests=2, tokens=60)
    limits = RateLimits(clock=clock)
    limits.settle(limited, 61)
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="tokens"):
            limits.take(limited)
    clock.now += 2
    assert limits.take(limited)["x-ratelimit-remaining-requests"] == "1"


def test_headers_are_openais() -> None:
    clock, limited = Clock(), key(requests=60, tokens=6000)
    limits = RateLimits(clock=clock)
    limits.settle(limited, 1500)
    assert limits.take(limited) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "4500",
        "x-ratelimit-reset-tokens": "15s",
    }
    limits.settle(limited, 45_000)
    assert limits.headers(limited)["x-ratelimit-reset-tokens"] == "7m45s"
    assert limits.headers(limited)["x-ratelimit-remaining-tokens"] == "0"
    assert RateLimits(clock=clock).take(key()) == {}


def test_a_changed_limit_begins_anew() -> None:
    limits, limited = RateLimits(clock=Clock()), key(requests=1)
    limits.take(limited)
    headers = limits.take(limited.model_copy(update={"requests_per_minute": 5}))
    assert headers["x-ratelimit-remaining-requests"] == "4"


def test_memory_is_bounded_and_the_idlest_key_is_forgotten() -> None:
    limits = RateLimits(clock=Clock(), max_buckets=10)
    first, last = key(requests=1), key(requests=1)
    limits.take(first)
    for _ in range(100):
        limits.take(key(requests=1))
    limits.take(last)
    assert len(limits) == 10
    with pytest.raises(RateLimitedError):
        limits.take(last)
    limits.take(first)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 120)),
        st.tuples(st.just("jump"), st.floats(-1e7, 1e7)),
        st.tuples(st.just("call"), st.integers(0, 5000)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 100), st.integers(1, 2000))
def test_no_key_gets_more_than_its_limit_over_the_time_that_passed(
    steps: list[tuple[str, float]], requests: int, tokens: int
) -> None:
    """Never more than one full bucket and what went by forwards; never beyond a full bucket."""
    clock, limited = Clock(), key(requests, tokens)
    limits = RateLimits(clock=clock)
    forward = used = 0.0
    admitted = largest = 0
    for kind, amount in steps:
        if kind != "call":
            clock.now += amount
            forward += max(0.0, amount)
            continue
        try:
            headers = limits.take(limited)
        except RateLimitedError as error:
            assert error.retry_after_s >= 1
            headers = limits.headers(limited)
        else:
            admitted += 1
            used += amount
            largest = max(largest, int(amount))
            limits.settle(limited, int(amount))
        assert 0 <= int(headers["x-ratelimit-remaining-requests"]) <= requests
        assert 0 <= int(headers["x-ratelimit-remaining-tokens"]) <= tokens
        assert re.fullmatch(r"\d+ms|\d+(\.\d+)?s|\d+m\d+s", headers["x-ratelimit-reset-tokens"])
    assert admitted <= requests + forward * requests / 60 + 0.001
    assert used <= tokens + forward * tokens / 60 + largest + 0.001


@given(st.integers(1, 1000), st.integers(1, 100_000), st.integers(0, 1_000_000))
def test_who_waits_as_long_as_told_is_let_in(requests: int, tokens: int, used: int) -> None:
    clock, limited = Clock(), key(requests, tokens)
    limits = RateLimits(clock=clock)
    limits.settle(limited, used)
    for _ in range(3):
        try:
            limits.take(limited)
        except RateLimitedError as error:
            assert error.retry_after_s > 0
            clock.now += error.retry_after_s
            limits.take(limited)  # raises if it was told too short a wait
