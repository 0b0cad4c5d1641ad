"""Says out loud that records are lost or unsafe, often enough to be heard and not once a record."""

import logging
import threading
import time
from pathlib import Path

logger = logging.getLogger("flywheel.capture.spool")

SHOUT_S = 10.0
"""A loss that goes on is logged this often."""


class Alarm:
    """The error log of one spool, from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._shouted = float("-inf")

    def dropped(self, reason: str, cause: OSError | None, total: int) -> None:
        """A record is lost."""
        if self._may_shout():
            why = f" ({cause})" if cause is not None and reason == "disk_error" else ""
            logger.error(
                "spool %s dropped a record: %s%s; %d lost since the start. Calls go on being "
                "answered and are not captured: make room, or run `flywheel capture drain`",
                self._folder,
                reason,
                why,
                total,
            )

    def late(self, waited_s: float, total: int) -> None:
        """An answer leaves whose record should have been on disk."""
        if self._may_shout():
            logger.error(
                "spool %s: an answer left although its record is not on disk after %.1f s; %d such "
                "since the start. They wait in memory, and a kill would lose them",
                self._folder,
                waited_s,
                total,
            )

    def _may_shout(self) -> bool:
        with self._lock:
            is_time = time.monotonic() - self._shouted > SHOUT_S
            if is_time:
                self._shouted = time.monotonic()
        return is_time
