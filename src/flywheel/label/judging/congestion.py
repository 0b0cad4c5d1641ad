"""How many requests an endpoint takes, found while asking.

Pure: every method is told the time, nothing sleeps. Additive increase, multiplicative decrease, by
TCP's rules (Chiu and Jain 1989; RFC 5681), with the endpoint's refusals and failures for packets
that were lost:

- the *window* is how many requests may be under way. It starts small and grows by one with each
  success until the first trouble (slow start), then by one with each round trip, or by a twentieth
  where that is more (Scalable TCP, Kelly 2003);
- trouble shrinks it, once a round trip: requests sent before the last shrinking say nothing new.
  One item that always fails is no trouble: failures must be a fair share of the last replies. A
  refusal (429) is trouble always;
- a *hold* keeps everything back: as long as `retry-after` says, or, where failing servers say
  nothing, for a random time that doubles while nothing succeeds;
- a *pace* keeps requests apart where the endpoint limits requests or tokens a minute. It comes from
  the `x-ratelimit-*` headers once little is left, before anything is refused; without them from
  what was accepted between two refusals, when the bucket was empty at both ends: the limit is at
  least that over all of the time, and at most that over the time not held. Between the two it is
  searched as BIC searches a window (Xu, Harfoush, Rhee 2004).
"""

import random
from collections import deque

from flywheel.label.judging.headers import Allowance, Limits

NOTHING = Limits()
START = 4
"""Requests under way at first."""
SHRINK_FAILED, SHRINK_REFUSED = 0.5, 0.7
GROW = 0.05
FAIR_SHARE = 0.25
"""Of the last replies: with fewer failures than this the endpoint is well and the items are not."""
REMEMBERED = 20
FIRST_HOLD_S = 0.25
LONGEST_HOLD_S = 4.0
"""Between two looks at an endpoint that is down; it is also what a run loses when it comes back."""
SCARCE, MOST_SCARCE = 0.15, 0.5
"""Share of an allowance under which requests are kept apart: the greater, the more are under way,
for what a reply tells is older than they are."""
APPROACH_PER_S, PROBE_PER_S = 0.1, 0.005
"""Growth of a pace learnt from refusals: towards the one that was refused, and beyond it."""
BURST_S = 0.1
"""Requests of so much time may go at once: timers are not exact."""


class Congestion:
    """The state of one endpoint.

    Args:
        ceiling: most requests under way, ever.
        seed: of the jitter.
    """

    def __init__(self, ceiling: int, *, seed: int | None = None) -> None:
        self.window = float(min(START, ceiling))
        self._ceiling = ceiling
        self._threshold = float(ceiling)
        """Under it the window grows fast."""
        self._random = random.Random(seed)
        self._recent: deque[bool] = deque(maxlen=REMEMBERED)
        self._shrunk_at = self._refused_at = float("-inf")
        self._held_until = float("-inf")
        self._hold_s = FIRST_HOLD_S
        self._accepted = 0
        """Successes since the last refusal."""
        self._held_s = 0.0
        """Of the time since then, how much was held."""
        self._pace: float | None = None
        """Requests a second, learnt from refusals."""
        self._too_fast = float("inf")
        """The pace that was refused last."""
        self._told_pace: float | None = None
        """The same, from headers."""
        self._next_at = float("-inf")
        self._last_success = float("-inf")
        self._tokens_each = 0.0

    @property
    def pace(self) -> float | None:
        """Requests a second that are let go; None where nothing limits them."""
        known = [pace for pace in (self._pace, self._told_pace) if pace is not None]
        return min(known, default=None)

    def wait_s(self, now: float, in_flight: int) -> float | None:
        """Seconds until the next request may go, 0 for now; None until one comes back."""
        if in_flight >= int(self.window):
            return None
        paced = self._next_at if self.pace is not None else float("-inf")
        return max(0.0, self._held_until - now, paced - now)

    def sent(self, now: float) -> None:
        """A request has gone."""
        pace = self.pace
        if pace is not None:
            self._next_at = max(self._next_at, now - BURST_S) + 1 / pace

    def succeeded(
        self, now: float, *, in_flight: int, limits: Limits = NOTHING, tokens: int = 0
    ) -> None:
        """A request was answered; `in_flight` with it."""
        if not any(self._recent):
            self._recent.clear()  # it is back: its failures of before say nothing of now
        self._recent.append(True)
        self._accepted += 1
        self._hold_s = FIRST_HOLD_S
        if tokens:
            self._tokens_each += (tokens - self._tokens_each) * (0.05 if self._tokens_each else 1.0)
        # A window that is not in use proves nothing (RFC 7661).
        if in_flight >= 0.8 * int(self.window):
            step = 1.0 if self.window < self._threshold else max(1.0 / self.window, GROW)
            self.window = min(float(self._ceiling), self.window + step)
        if self._pace is not None:
            elapsed = min(1.0, now - self._last_success)
            gap = max(0.0, self._too_fast - self._pace)
            self._pace += elapsed * (APPROACH_PER_S * gap + PROBE_PER_S * self._pace)
        self._last_success = now
        self._heed(limits, in_flight)

    def refused(self, now: float, *, sent_at: float, limits: Limits = NOTHING) -> None:
        """A request was answered 429."""
        self._recent.append(False)
        wait = limits.retry_after_s
        if wait is not None:
            # Everybody told the same moment must not come back in the same moment.
            self._hold(now, wait * self._random.uniform(1.0, 1.05))
        if sent_at <= self._refused_at:
            return
        self._learn(now)
        self._shrink(now, sent_at, SHRINK_REFUSED)
        if wait is None and self._heed(limits, 0) is None:
            self._hold(now, self._random.uniform(0, FIRST_HOLD_S))

    def failed(self, now: float, *, sent_at: float) -> None:
        """A request was answered 5xx, too late, or not at all."""
        self._recent.append(False)
        failures = self._recent.count(False)
        if failures < max(2, FAIR_SHARE * len(self._recent)) or sent_at <= self._shrunk_at:
            return
        self._shrink(now, sent_at, SHRINK_FAILED)
        # Time in which it was ill is no part of what it accepts.
        self._accepted, self._held_s, self._refused_at = 0, 0.0, float("-inf")
        if not any(list(self._recent)[-4:]):
            self._hold(now, self._hold_s * self._random.uniform(0.5, 1.0))
            self._hold_s = min(LONGEST_HOLD_S, self._hold_s * 2)

    def _learn(self, now: float) -> None:
        """Takes the pace from what was accepted since the refusal before."""
        elapsed = now - self._refused_at
        if self._accepted and 0 < elapsed < float("inf"):
            low = self._accepted / elapsed
            high = self._accepted / max(elapsed - self._held_s, 0.02 * elapsed)
            self._too_fast = max(low, min(high, self._pace or high))
            self._pace = (low + self._too_fast) / 2
        self._accepted, self._refused_at = 0, now
        self._held_s = max(0.0, self._held_until - now)

    def _shrink(self, now: float, sent_at: float, factor: float) -> None:
        if sent_at <= self._shrunk_at:
            return
        if any(self._recent):
            self._threshold = max(2.0, self.window * factor)
        self.window = max(1.0, self.window * factor)
        self._shrunk_at = now

    def _hold(self, now: float, wait_s: float) -> None:
        until = max(self._held_until, now + wait_s)
        self._held_s += until - max(now, self._held_until)
        self._held_until = until

    def _heed(self, limits: Limits, in_flight: int) -> float | None:
        """Takes up the pace that the headers ask for, or drops it where there is plenty."""
        paces = [
            _asked_pace(limits.requests, 1.0, in_flight),
            _asked_pace(limits.tokens, self._tokens_each, in_flight),
        ]
        if limits.requests is not None or limits.tokens is not None:
            self._told_pace = min((pace for pace in paces if pace is not None), default=None)
        return self._told_pace


def _asked_pace(allowance: Allowance | None, each: float, in_flight: int) -> float | None:
    """Requests a second that an allowance bears; None where there is plenty, or it does not say."""
    if allowance is None or allowance.limit is None or each <= 0:
        return None
    untold = min(in_flight * each, MOST_SCARCE * allowance.limit)
    scarce = max(2 * each, SCARCE * allowance.limit, untold)
    refill = allowance.refill_per_s
    return refill / each if refill is not None and allowance.remaining < scarce else None
