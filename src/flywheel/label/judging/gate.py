"""Where requests to one endpoint wait for their turn, earliest deadline first.

`Congestion` decides; this sleeps. One event loop only.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count

from flywheel.label.judging.congestion import NOTHING, Congestion
from flywheel.label.judging.headers import Limits


class Gate:
    """Lets requests go as its `Congestion` allows."""

    def __init__(
        self, congestion: Congestion, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.congestion = congestion
        self.in_flight = 0
        self._clock = clock
        self._waiting: list[tuple[float, int, asyncio.Future[float]]] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, *, deadline: float = float("inf")) -> float:
        """Waits for a place and returns the moment it was given; `leave` gives it back.

        Args:
            deadline: earlier ones go first: what has been tried before goes before what is new.
        """
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (deadline, next(self._order), turn))
        self._let_go()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Gives a place back; what the reply said was told to `congestion` before."""
        self.in_flight -= 1
        self._let_go()

    def succeeded(self, limits: Limits = NOTHING, *, tokens: int = 0) -> None:
        """A request was answered."""
        self.congestion.succeeded(
            self._clock(), in_flight=self.in_flight, limits=limits, tokens=tokens
        )

    def refused(self, sent_at: float, limits: Limits = NOTHING) -> None:
        """A request was answered 429."""
        self.congestion.refused(self._clock(), sent_at=sent_at, limits=limits)

    def failed(self, sent_at: float) -> None:
        """A request was answered 5xx, too late, or not at all."""
        self.congestion.failed(self._clock(), sent_at=sent_at)

    def _let_go(self) -> None:
        while self._waiting:
            _, _, turn = self._waiting[0]
            if turn.done():  # cancelled while it waited
                heapq.heappop(self._waiting)
                continue
            now = self._clock()
            wait = self.congestion.wait_s(now, self.in_flight)
            if wait is None:
                return
            if wait > 0:
                self._wake_in(wait)
                return
            heapq.heappop(self._waiting)
            self.in_flight += 1
            self.congestion.sent(now)
            turn.set_result(now)

    def _wake_in(self, wait_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._let_go)
