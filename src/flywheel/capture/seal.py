"""Asks the live writers of a spool folder to put on disk what they hold, and waits for it.

Input: a spool folder. Output: how many writers did not answer. A file is the message, so that it
reaches every gateway of the folder without an address or a token. Both ends of it are here.
"""

import logging
import time

from flywheel.capture.folder import SpoolFolder

logger = logging.getLogger(__name__)

POLL_S = 0.01


def seal_live_writers(folder: SpoolFolder, *, timeout_s: float) -> int:
    """Returns once every live writer has sealed, or has died, or the time is up.

    Returns:
        Live writers that did not seal: what they hold comes with the next drain.
    """
    if not _live(folder):
        return 0
    try:
        nonce = folder.ask_to_seal()
    except OSError as error:
        logger.warning("writers of %s cannot be asked to seal: %s", folder.path, error)
        return len(_live(folder))
    waiting = _live(folder)
    deadline = time.monotonic() + timeout_s
    try:
        while waiting and time.monotonic() < deadline:
            time.sleep(POLL_S)
            waiting = [w for w in waiting if not _has_sealed(folder, w, nonce)]
    finally:
        folder.seal_request.unlink(missing_ok=True)
    for writer in waiting:
        logger.warning(
            "writer %s of %s did not seal within %.0f s (is its disk full?); "
            "what it holds comes with the next drain",
            writer,
            folder.path,
            timeout_s,
        )
    return len(waiting)


def _live(folder: SpoolFolder) -> list[str]:
    return [writer for writer in folder.writers() if folder.is_alive(writer)]


def _has_sealed(folder: SpoolFolder, writer: str, nonce: str) -> bool:
    state = folder.state(writer)
    return (state is not None and state.sealed == nonce) or not folder.is_alive(writer)


class SealRequests:
    """What the drains of a folder ask of one writer; cheap to look at many times a second."""

    def __init__(self, folder: SpoolFolder) -> None:
        self._path = folder.seal_request
        self._nonce: str | None = None
        self._stat: tuple[int, int] | None = None

    def latest(self) -> str | None:
        """The nonce of the latest request; the file is read only when it changed."""
        try:
            stat = self._path.stat()
            if (stat.st_ino, stat.st_mtime_ns) == self._stat:
                return self._nonce
            self._nonce = self._path.read_text(encoding="utf-8")
        except OSError:  # there is none, or it went while we looked
            return self._nonce
        self._stat = (stat.st_ino, stat.st_mtime_ns)
        return self._nonce
