"""Coroutines that wait until their records are on disk, woken by the spool's thread.

Input: how many records must be durable, from event loops; how many are, from the thread. Output:
each waiter's True, or False when the spool closed without them. One fsync wakes all it covers, with
one call into each loop. Not locked: the spool's lock is held around every method.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress


class Waiters:
    """Who waits for which count."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[bool], int] = {}

    def add(self, count: int) -> asyncio.Future[bool]:
        """A future of the running loop, for when so many records are durable."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[future] = count
        return future

    def discard(self, future: asyncio.Future[bool]) -> None:
        """Forgets one that no longer waits."""
        self._waiting.pop(future, None)

    def wake(self, durable: int) -> None:
        """Tells all whose records are among the first so many."""
        self._tell([future for future, count in self._waiting.items() if count <= durable], True)

    def give_up(self) -> None:
        """Tells the rest that nobody will write their records any more."""
        self._tell(list(self._waiting), False)

    def _tell(self, futures: Sequence[asyncio.Future[bool]], is_durable: bool) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[bool]]] = defaultdict(list)
        for future in futures:
            del self._waiting[future]
            by_loop[future.get_loop()].append(future)
        for loop, waiting in by_loop.items():
            with suppress(RuntimeError):  # the loop was closed: nobody waits there
                loop.call_soon_threadsafe(_resolve, waiting, is_durable)


def _resolve(futures: Sequence[asyncio.Future[bool]], is_durable: bool) -> None:
    for future in futures:
        if not future.done():  # its caller may have gone away meanwhile
            future.set_result(is_durable)
