"""The rules one by one, and then an endpoint in virtual time: nothing here sleeps."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from flywheel.label.judging.congestion import Congestion
from flywheel.label.judging.headers import Allowance, Limits


def test_the_window_grows_by_one_with_each_success_until_the_first_trouble() -> None:
    state = Congestion(64)
    assert state.window == 4
    for n in range(6):
        state.succeeded(n * 0.1, in_flight=int(state.window))
    assert state.window == 10


def test_a_window_nobody_uses_does_not_grow() -> None:
    state = Congestion(64)
    for n in range(50):
        state.succeeded(n * 0.1, in_flight=1)
    assert state.window == 4


def test_it_never_grows_over_the_ceiling() -> None:
    state = Congestion(6)
    for n in range(50):
        state.succeeded(n * 0.1, in_flight=int(state.window))
    assert state.window == 6
    assert state.wait_s(10, in_flight=6) is None


def test_refusals_of_one_round_trip_shrink_the_window_once() -> None:
    state = Congestion(64)
    for n in range(36):
        state.succeeded(n * 0.01, in_flight=int(state.window))
    assert state.window == 40
    for n in range(10):
        state.refused(1 + n * 0.001, sent_at=0.9)
    assert state.window == pytest.approx(28)
    state.refused(2, sent_at=1.5)
    assert state.window == pytest.approx(19.6)


def test_after_trouble_it_grows_by_a_round_trip_and_not_by_a_success() -> None:
    """At 28: 28 successes are a round trip; each adds a twentieth, 1.4 in all."""
    state = Congestion(64)
    for n in range(36):
        state.succeeded(n * 0.01, in_flight=int(state.window))
    state.refused(1, sent_at=0.9)
    before = state.window
    for n in range(28):
        state.succeeded(2 + n * 0.01, in_flight=int(state.window))
    assert state.window == pytest.approx(before + 1.4)


def test_retry_after_keeps_everybody_back_until_then_and_hardly_longer() -> None:
    state = Congestion(64, seed=1)
    state.refused(10, sent_at=9, limits=Limits(retry_after_s=3))
    wait = state.wait_s(10, in_flight=0)
    assert wait is not None and 3 <= wait <= 3.15
    assert state.wait_s(13.2, in_flight=0) == 0


def test_one_item_that_always_fails_is_no_trouble_of_the_endpoint() -> None:
    state = Congestion(64)
    for n in range(200):
        at = n * 0.1
        if n % 10 == 9:
            state.failed(at, sent_at=at - 0.05)
        else:
            state.succeeded(at, in_flight=int(state.window))
    assert state.window > 40
    assert state.wait_s(20, in_flight=0) == 0


def test_an_endpoint_that_is_down_is_looked_at_less_and_less_often() -> None:
    state, now, waits = Congestion(64, seed=1), 0.0, []
    for _ in range(12):
        wait = state.wait_s(now, in_flight=0)
        assert wait is not None
        now += wait
        waits.append(wait)
        state.failed(now + 0.01, sent_at=now)
        now += 0.01
    assert state.window == 1
    assert max(waits) <= 4
    assert sum(waits[-3:]) > 3 * sum(waits[2:5])


def test_headers_pace_before_anything_is_refused() -> None:
    """5 of 100 left, 95 back in 9.5 s: 10 a second, so the second waits a tenth."""
    state = Congestion(64)
    scarce = Limits(requests=Allowance(remaining=5, limit=100, reset_s=9.5))
    state.succeeded(1, in_flight=4, limits=scarce)
    assert state.pace == pytest.approx(10)
    for _ in range(2):
        state.sent(1)
    wait = state.wait_s(1, in_flight=1)
    assert wait == pytest.approx(0.1)
    plenty = Limits(requests=Allowance(remaining=80, limit=100, reset_s=2))
    state.succeeded(2, in_flight=4, limits=plenty)
    assert state.pace is None


def test_an_allowance_of_tokens_paces_by_what_a_request_takes() -> None:
    """1,000 tokens a second come back and a request takes 500: 2 a second."""
    state = Congestion(64)
    scarce = Limits(tokens=Allowance(remaining=1_000, limit=60_000, reset_s=59))
    state.succeeded(1, in_flight=4, limits=scarce, tokens=500)
    assert state.pace == pytest.approx(2)


@dataclass
class Endpoint:
    """A token bucket that is slow, and dead for a while."""

    rate: float
    burst: float
    latency_s: float = 0.3
    capacity: int | None = None
    dead: tuple[float, float] = (-1.0, -1.0)
    has_headers: bool = False
    has_retry_after: bool = True
    tokens: float = field(init=False)
    filled: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def allows(self, now: float, in_flight: int) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1 or (self.capacity is not None and in_flight > self.capacity):
            return False
        self.tokens -= 1
        return True

    def limits(self, is_allowed: bool) -> Limits:
        reset = (self.burst - self.tokens) / self.rate
        allowance = Allowance(int(self.tokens), self.burst, reset) if self.has_headers else None
        wait = max(1.0, (1 - self.tokens) / self.rate) if self.has_retry_after else None
        return Limits(None if is_allowed else wait, allowance)


@dataclass
class Simulation:
    """So many requests to an endpoint, from event to event."""

    endpoint: Endpoint
    ready: int
    state: Congestion = field(default_factory=lambda: Congestion(64, seed=3))
    rng: random.Random = field(default_factory=lambda: random.Random(3))
    now: float = 0.0
    in_flight: int = 0
    done: int = 0
    refused: int = 0
    sent: int = 0
    events: list[tuple[float, int, str, float, Limits]] = field(default_factory=list)
    later: list[float] = field(default_factory=list)

    def run(self) -> None:
        count = self.ready
        while self.done < count:
            self.send()
            self.wait()
            while self.later and self.later[0] <= self.now:
                heapq.heappop(self.later)
                self.ready += 1
            while self.events and self.events[0][0] <= self.now:
                self.answer(*heapq.heappop(self.events)[2:])

    def send(self) -> None:
        endpoint = self.endpoint
        while self.ready and self.state.wait_s(self.now, self.in_flight) == 0:
            self.state.sent(self.now)
            self.ready, self.in_flight, self.sent = (
                self.ready - 1,
                self.in_flight + 1,
                self.sent + 1,
            )
            takes, kind, limits = 0.005, "failed", Limits()
            if not endpoint.dead[0] <= self.now < endpoint.dead[1]:
                is_allowed = endpoint.allows(self.now, self.in_flight)
                kind, limits = "ok" if is_allowed else "refused", endpoint.limits(is_allowed)
                takes = endpoint.latency_s * self.rng.uniform(0.5, 1.5) if is_allowed else 0.01
            heapq.heappush(self.events, (self.now + takes, self.sent, kind, self.now, limits))

    def wait(self) -> None:
        wait = self.state.wait_s(self.now, self.in_flight) if self.ready else None
        upcoming = [self.events[0][0]] if self.events else []
        upcoming += self.later[:1]
        upcoming += [self.now + wait + 1e-9] if wait else []
        self.now = min(upcoming)

    def answer(self, kind: str, sent_at: float, limits: Limits) -> None:
        if kind == "ok" and not sent_at < self.endpoint.dead[0] <= self.now:
            self.done += 1
            self.state.succeeded(self.now, in_flight=self.in_flight, limits=limits, tokens=500)
        elif kind == "refused":
            self.refused += 1
            self.state.refused(self.now, sent_at=sent_at, limits=limits)
            heapq.heappush(self.later, self.now)
        else:
            self.state.failed(self.now, sent_at=sent_at)
            heapq.heappush(self.later, self.now + self.rng.uniform(0, 1))
        self.in_flight -= 1


def simulate(endpoint: Endpoint, count: int = 10_000) -> tuple[float, int]:
    """Share of what the endpoint allows while it is up, and how often it had to refuse."""
    run = Simulation(endpoint, count)
    run.run()
    up = run.now - (endpoint.dead[1] - endpoint.dead[0])
    if endpoint.capacity is not None:
        return count / (endpoint.capacity / endpoint.latency_s * up), run.refused
    return count / (endpoint.burst + endpoint.rate * up), run.refused


OUTAGE = (40.0, 60.0)


@pytest.mark.parametrize(
    ("endpoint", "least"),
    [
        (Endpoint(100, 100, dead=OUTAGE, has_headers=True), 0.9),
        (Endpoint(100, 100, dead=OUTAGE), 0.9),
        (Endpoint(100, 100, dead=OUTAGE, has_retry_after=False), 0.9),
        (Endpoint(100, 100, latency_s=0.05, dead=OUTAGE), 0.9),
        (Endpoint(30, 60, latency_s=1.0), 0.9),
        # Each refusal costs a second of `retry-after`, in which so small a bucket runs over.
        (Endpoint(100, 10, has_headers=True), 0.7),
        (Endpoint(1e6, 1e6, capacity=20, has_retry_after=False), 0.7),
    ],
    ids=["headers", "refusals", "bare 429", "fast", "slow", "small bucket", "by capacity"],
)
def test_most_of_what_an_endpoint_allows_is_used_and_little_is_refused(
    endpoint: Endpoint, least: float
) -> None:
    used, refused = simulate(endpoint)
    assert used > least
    assert refused < 0.01 * 10_000
