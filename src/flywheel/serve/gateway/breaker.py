"""Leaves a provider alone for a while after it failed several times in a row.

Source: the circuit breaker of Nygard, "Release It!" (2007). Closed: asked. Open: not asked. When
the cool-down is over, one request is let through: its success closes the circuit, its failure opens
it again.
"""

import time
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


class CircuitBreaker:
    """One provider's.

    Args:
        failures: in a row, until it opens.
        cooldown_s: how long it stays open.
        clock: monotonic seconds.
    """

    def __init__(
        self, failures: int, cooldown_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit, self._cooldown_s, self._clock = failures, cooldown_s, clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._tried_at: float | None = None

    @property
    def state(self) -> State:
        """Whether the provider is asked."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._cooldown_s else "open"

    def allows(self) -> bool:
        """Whether a request may go there now; a half-open circuit lets one through at a time.

        A trial whose caller never came back is forgotten after another cool-down.
        """
        if self.state != "half_open":
            return self.state == "closed"
        now = self._clock()
        if self._tried_at is not None and now - self._tried_at < self._cooldown_s:
            return False
        self._tried_at = now
        return True

    def succeeded(self) -> None:
        """It answered."""
        self._in_a_row = 0
        self._opened_at = self._tried_at = None

    def failed(self) -> None:
        """It did not, or said that it cannot."""
        self._in_a_row += 1
        if self._in_a_row >= self._limit or self._opened_at is not None:
            self._opened_at, self._tried_at = self._clock(), None
