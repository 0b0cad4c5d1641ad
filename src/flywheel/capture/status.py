"""How a spool folder is: what waits in it, what its writers say, and whether all of it adds up.

Input: a spool folder. Output: a SpoolStatus. Command: `flywheel capture status`.
"""

import mmap
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import computed_field

from flywheel.capture.folder import SpoolFolder, WriterState, writer_of
from flywheel.capture.importers.live import JoinBuffer, NotKeptError
from flywheel.capture.ledger import Ledger, added, read_ledger, settled
from flywheel.capture.segment import HEADER_BYTES, begun_at, count_frames
from flywheel.records import CaptureCounters, Record, UtcDatetime, utcnow

ATTEMPTS = 5
"""Times the totals are added up anew because a drain changed the ledger meanwhile."""


class WriterStatus(Record):
    """One writer, as of about a second ago."""

    is_alive: bool
    state: WriterState


class SpoolTotals(Record):
    """What became of every record since the folder was made, over restarts and kills.

    Always `accepted == spooled + pending + sum(dropped.values())` and
    `drained == committed + quarantined + duplicates`.
    """

    accepted: int
    spooled: int
    """On disk at some time."""
    pending: int
    dropped: dict[str, int]
    """By reason; `killed` is what a killed gateway had in memory and had told of."""
    late: int
    """Answers of `before_response` that left before their record was on disk."""
    waiting: int
    """In segments, counted there."""
    drained: int
    committed: int
    """Rows of `interactions` and `assessments`."""
    quarantined: int
    duplicates: int
    difference: int
    """spooled - drained - waiting: not 0 only while gateways or a drain are at work, because a
    gateway says how many it has spooled once a second."""

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def adds_up(self) -> bool:
        """Whether every record is accounted for; it is in the JSON too, and never read from it."""
        return (
            self.difference == 0
            and self.accepted == self.spooled + self.pending + sum(self.dropped.values())
            and self.drained == self.committed + self.quarantined + self.duplicates
        )


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
    """Never negative, though a clock that was set back says so."""
    writers: tuple[WriterStatus, ...]
    """Alive, or killed and not drained yet."""
    totals: SpoolTotals
    waiting_spans: int | None
    """Sent live without content, until their log records have come; None: they cannot be read."""
    waiting_log_records: int | None
    """Of such spans, or of spans that have not come; both are in no total yet."""


def read_status(spool_dir: Path) -> SpoolStatus:
    """Looks at a spool folder; one that does not exist is empty."""
    folder = SpoolFolder(spool_dir)
    opened, leftovers = folder.open_segments(), folder.leftovers()
    begun = [moment for path in (*folder.segments(), *opened) if (moment := _begun(path))]
    oldest = min(begun, default=None)
    states = [(writer, folder.state(writer)) for writer in folder.writers()]
    waiting: tuple[int | None, int | None] = (None, None)
    with suppress(NotKeptError):
        waiting = JoinBuffer(spool_dir).waiting()
    return SpoolStatus(
        spool=str(spool_dir),
        bytes=folder.size(),
        sealed_segments=len(folder.segments()),
        open_segments=len(opened) - len(leftovers),
        leftover_segments=len(leftovers),
        oldest_at=oldest,
        oldest_age_s=_age_s(oldest) if oldest else None,
        writers=tuple(
            WriterStatus(is_alive=folder.is_alive(writer), state=state)
            for writer, state in states
            if state is not None
        ),
        totals=read_totals(folder),
        waiting_spans=waiting[0],
        waiting_log_records=waiting[1],
    )


def read_totals(folder: SpoolFolder) -> SpoolTotals:
    """Adds up the ledger, the writers and the segments; again where a drain moved meanwhile."""
    ledger, attempts = read_ledger(folder), 0
    while True:
        totals, before = _totals(folder, ledger), ledger
        ledger, attempts = read_ledger(folder), attempts + 1
        if ledger == before or attempts == ATTEMPTS:
            return totals


def _totals(folder: SpoolFolder, ledger: Ledger) -> SpoolTotals:
    writers = {*folder.states(), *ledger.drained_of} - {*ledger.absorbed}
    alive = {writer for writer in writers if folder.is_alive(writer)}
    said = {writer: folder.state(writer) for writer in writers}
    waiting = _waiting(folder, alive, ledger.deleting)
    counters = ledger.finished
    for writer in writers | set(waiting):
        state = said.get(writer)
        own = state.counters if state else CaptureCounters()
        if writer not in alive:
            on_disk = ledger.drained_of.get(writer, 0) + waiting[writer]
            own = settled(own, on_disk, is_closed=folder.is_closed(writer))
        counters = added(counters, own)
    drained = ledger.drained
    return SpoolTotals(
        accepted=counters.accepted,
        spooled=counters.spooled,
        pending=counters.pending,
        dropped=counters.dropped,
        late=counters.late,
        waiting=waiting.total(),
        drained=drained.total,
        committed=drained.committed,
        quarantined=drained.quarantined,
        duplicates=drained.duplicates,
        difference=counters.spooled - drained.total - waiting.total(),
    )


def _waiting(folder: SpoolFolder, alive: set[str], counted: Sequence[str]) -> Counter[str]:
    """Records in segments, by writer."""
    waiting: Counter[str] = Counter()
    for path in folder.all_segments():
        if path.name not in counted:
            writer = writer_of(path)
            is_whole = path.suffix == ".seg" or writer not in alive
            waiting[writer] += _count(path, is_whole=is_whole)
    return waiting


def _count(path: Path, *, is_whole: bool) -> int:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return count_frames(data, is_whole=is_whole)
    except (FileNotFoundError, ValueError):  # sealed or drained while we looked, or still empty
        return 0


def _age_s(begun: datetime) -> float:
    return max(0.0, round((utcnow() - begun).total_seconds(), 3))


def _begun(path: Path) -> datetime | None:
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        return begun_at(head, datetime.fromtimestamp(path.stat().st_mtime, UTC))
    except FileNotFoundError:  # drained while we looked
        return None
