"""Follows the release ledger, so that a gateway that was restarted or missed a flip catches up.

Input: a ReleaseSource. Output: releases applied to the route table. The admin port is the fast way
for a flip; this is the sure one.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from flywheel.errors import EpochConflictError
from flywheel.records import Release
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.routing import RouteTable

logger = logging.getLogger(__name__)


class ReleaseSource(Protocol):
    """Where releases are recorded."""

    def current(self, workload: str) -> Release | None:
        """The workload's latest release, None before the first. Blocks; called in a thread."""
        ...


class ReleaseWatcher:
    """Asks the source every few seconds.

    `loaded` is set once every workload's release was read: until then the gateway does not know
    which model is the champion, and must not answer with a worse one.
    """

    def __init__(
        self, source: ReleaseSource, routes: RouteTable, metrics: Metrics, *, interval_s: float
    ) -> None:
        self._source, self._routes, self._metrics = source, routes, metrics
        self._interval_s = interval_s
        self._unread = set(routes.workloads)
        self._task: asyncio.Task[None] | None = None
        self.loaded = asyncio.Event()

    def start(self) -> None:
        """Begins to watch, on the running loop."""
        self._task = asyncio.create_task(self._watch(), name="release-watcher")

    async def stop(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            for workload in self._routes.workloads:
                await self._look(workload)
            if not self._unread:
                self.loaded.set()
            await asyncio.sleep(self._interval_s)

    async def _look(self, workload: str) -> None:
        try:
            release = await asyncio.to_thread(self._source.current, workload)
        except Exception as error:  # noqa: BLE001 - the loop must outlive any failure of a lake
            self._metrics.release_poll_failures += 1
            logger.error("the release of %s cannot be read: %s", workload, error)
            return
        # One that the admin port has overtaken meanwhile is old news.
        with suppress(EpochConflictError):
            if release is not None and self._routes.apply(release):
                logger.info("%s now serves %s (epoch %d)", workload, release.model, release.epoch)
        self._unread.discard(workload)
