"""How a spool folder is: what waits in it, and what its writers say of themselves.

Input: a spool folder. Output: a SpoolStatus. Command: `flywheel capture status`.
"""

from datetime import UTC, datetime
from pathlib import Path

from flywheel.capture.folder import SpoolFolder, WriterState
from flywheel.capture.segment import begun_at
from flywheel.records import Record, UtcDatetime, utcnow

_HEAD_BYTES = 4096
"""More than a segment's header."""


class WriterStatus(Record):
    """One writer, as of about a second ago."""

    is_alive: bool
    state: WriterState


class SpoolStatus(Record):
    """What waits to be drained, and who writes."""

    spool: str
    bytes: int
    sealed_segments: int
    open_segments: int
    leftover_segments: int
    """Of dead writers; the next drain takes them."""
    oldest_at: UtcDatetime | None
    """When the oldest segment was begun; None when nothing waits."""
    oldest_age_s: float | None
    writers: tuple[WriterStatus, ...]


def read_status(spool_dir: Path) -> SpoolStatus:
    """Looks at a spool folder; one that does not exist is empty."""
    folder = SpoolFolder(spool_dir)
    opened, leftovers = folder.open_segments(), folder.leftovers()
    begun = [moment for path in (*folder.segments(), *opened) if (moment := _begun(path))]
    oldest = min(begun, default=None)
    states = [(writer, folder.state(writer)) for writer in folder.writers()]
    return SpoolStatus(
        spool=str(spool_dir),
        bytes=folder.size(),
        sealed_segments=len(folder.segments()),
        open_segments=len(opened) - len(leftovers),
        leftover_segments=len(leftovers),
        oldest_at=oldest,
        oldest_age_s=round((utcnow() - oldest).total_seconds(), 3) if oldest else None,
        writers=tuple(
            WriterStatus(is_alive=folder.is_alive(writer), state=state)
            for writer, state in states
            if state is not None
        ),
    )


def _begun(path: Path) -> datetime | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        return begun_at(head, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    except FileNotFoundError:  # drained while we looked
        return None
