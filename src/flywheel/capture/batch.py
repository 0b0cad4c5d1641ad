"""Whole segments on their way into the lake: their rows, and what became of them.

Input: parsed calls and judgements with their origins, and what could not be parsed. Output: rows of
the lake; what it refuses goes to quarantine one by one, and the rest goes on.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flywheel.capture.folder import writer_of
from flywheel.capture.ledger import Drained
from flywheel.capture.segment import SegmentHeader
from flywheel.errors import BadRecordError
from flywheel.lake import Lake
from flywheel.records import QuarantineRecord, Record


class Origin(NamedTuple):
    """Where a record was read, kept for the case that it must go to quarantine."""

    source: str
    header: SegmentHeader
    payload: bytes


Row = tuple[Record, Origin]


class Batch:
    """Segments that are counted and deleted together, when all they hold is committed."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self.clear()

    def clear(self) -> None:
        """Empties it, counts included."""
        self.paths: list[Path] = []
        self.records_of: Counter[str] = Counter()
        """Records and damaged stretches by writer."""
        self.counts: Counter[str] = Counter()
        """interactions, assessments, quarantined, duplicates: as DrainReport has them."""
        self.calls: list[Row] = []
        self.blobs: dict[str, bytes] = {}
        """Large content of the calls, by its sha256."""
        self._bad: list[QuarantineRecord] = []

    @property
    def drained(self) -> Drained:
        """Its counts as the ledger keeps them."""
        return Drained(
            committed=self.counts["interactions"] + self.counts["assessments"],
            quarantined=self.counts["quarantined"],
            duplicates=self.counts["duplicates"],
        )

    def add_segment(self, path: Path, pieces: int) -> None:
        """Takes a segment whose records have been read."""
        self.paths.append(path)
        self.records_of[writer_of(path)] += pieces

    def reject(self, error: BadRecordError, origin: Origin) -> None:
        """Sends one record to quarantine, with the next commit."""
        created_at = origin.header.created_at
        self._bad.append(
            QuarantineRecord(
                quarantine_id=sha256(origin.source.encode() + b"\0" + origin.payload).hexdigest(),
                event_date=created_at.date(),
                created_at=created_at,
                source=f"spool:{origin.source}",
                reason=error.reason,
                detail=error.detail,
                payload=origin.payload,
            )
        )

    def commit_calls(self) -> None:
        """Commits the calls, their large content before them, and what was rejected so far."""
        for data in self.blobs.values():
            self._lake.put_blob(data)
        self.blobs = {}
        self.commit("interactions", self.calls)
        self.calls = []

    def commit(self, count: str, rows: Sequence[Row]) -> None:
        """Commits rows of one table, and what was rejected so far."""
        self._append(count, rows)
        if self._bad:
            result = self._lake.append(self._bad)
            self.counts["quarantined"] += result.written
            self.counts["duplicates"] += result.duplicates
        self._bad = []

    def _append(self, count: str, rows: Sequence[Row]) -> None:
        """One commit; where the lake refuses a row, halves are tried until it stands alone."""
        if not rows:
            return
        try:
            result = self._lake.append([row for row, _ in rows])
        except BadRecordError as error:
            if len(rows) == 1:
                self.reject(error, rows[0][1])
                return
            middle = len(rows) // 2
            self._append(count, rows[:middle])
            self._append(count, rows[middle:])
            return
        self.counts[count] += result.written
        self.counts["duplicates"] += result.duplicates
