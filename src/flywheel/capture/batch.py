"""Whole segments on their way into the lake: their rows, and what became of them.

Input: parsed calls and judgements with their origins, and what could not be parsed. Output: rows of
the lake; what it refuses goes to quarantine one by one, and the rest goes on.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flywheel.capture.blobs import INLINE_BYTES, without_large_content
from flywheel.capture.folder import writer_of
from flywheel.capture.ledger import Drained
from flywheel.capture.parsed import Refused
from flywheel.capture.redact import Redactors
from flywheel.capture.segment import SegmentHeader
from flywheel.errors import BadRecordError
from flywheel.lake import Lake, Rows
from flywheel.records import Assessment, Interaction, QuarantineRecord, Record

CACHED_ROWS = 256
"""Calls made ready together."""


class Origin(NamedTuple):
    """Where a record was read, kept for the case that it must go to quarantine."""

    source: str
    header: SegmentHeader
    payload: bytes


Row = tuple[Record, Origin]


class Batch:
    """Segments that are counted and deleted together, when all they hold is committed."""

    def __init__(self, lake: Lake, redactors: Redactors) -> None:
        self._lake, self._redactors = lake, redactors
        self.paths: list[Path] = []
        self.records_of: Counter[str] = Counter()
        """Records and damaged stretches by writer."""
        self.counts: Counter[str] = Counter()
        """interactions, assessments, quarantined, duplicates: as DrainReport has them."""
        self._calls: list[Row] = []
        self._assessments: list[Row] = []
        self._judged: list[Rows] = []
        """Assessments of a known workload, made ready: they need not wait for the calls."""
        self._ready: list[Rows] = []
        """Calls made ready; they are counted by `waiting`."""
        self.waiting = 0
        """Calls to be committed."""
        self.blobs: dict[str, bytes] = {}
        """Large content of the calls, by its sha256."""
        self._bad: list[QuarantineRecord] = []

    def take_rows(self) -> "Batch":
        """The rows so far, to be committed by themselves; the segments stay here."""
        self._make_ready()
        rows = Batch(self._lake, self._redactors)
        rows._judged = self._prepared(self._assessments)
        rows._ready, rows.blobs, rows._bad = self._ready, self.blobs, self._bad
        self._ready, self.blobs, self._bad, self.waiting = [], {}, [], 0
        self._assessments = []
        return rows

    def add_call(self, call: Interaction, origin: Origin) -> None:
        """Takes a call; it is made ready with its neighbours, while they are in the cache.

        Raises:
            BadRecordError: its workload's policy withholds it; nothing of it was kept.
        """
        call = self._redactors.call(call)
        if len(origin.payload) > INLINE_BYTES:
            call, blobs = without_large_content(call)
            self.blobs |= blobs
        self._calls.append((call, origin))
        self.waiting += 1
        if len(self._calls) >= CACHED_ROWS:
            self._make_ready()

    def add_assessment(self, assessment: Assessment, origin: Origin) -> None:
        """Takes a judgement that came parsed, with its workload.

        Raises:
            BadRecordError: its workload's policy withholds it.
        """
        self._assessments.append((self._redactors.judgement(assessment, None), origin))

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
        identity = origin.source.encode() + b"\0" + origin.payload
        self._quarantine(error, f"spool:{origin.source}", origin.payload, identity, origin)

    def refuse(self, refused: Refused, origin: Origin) -> None:
        """The same for what was none when it came in; sent twice, it is there once."""
        error = BadRecordError(refused.reason, refused.detail)
        identity = refused.source.encode() + b"\0refused\0" + refused.payload
        self._quarantine(error, refused.source, refused.payload, identity, origin)

    def _quarantine(
        self, error: BadRecordError, source: str, data: bytes, identity: bytes, origin: Origin
    ) -> None:
        created_at = origin.header.created_at
        detail, payload = self._redactors.rejected(error, data)
        self._bad.append(
            QuarantineRecord(
                quarantine_id=sha256(identity).hexdigest(),
                event_date=created_at.date(),
                created_at=created_at,
                source=source,
                reason=error.reason,
                detail=detail,
                payload=payload,
            )
        )

    def commit_calls(self) -> None:
        """Commits the calls, their large content before them, and what was rejected so far."""
        for data in self.blobs.values():
            self._lake.put_blob(data)
        self.blobs = {}
        self._append("interactions", self._ready)
        self._append("assessments", self._judged)
        self._ready, self._judged = [], []
        self._append_bad()

    def commit_judgements(self, rows: Sequence[Row]) -> None:
        """Commits assessments, and what was rejected so far."""
        self._append("assessments", self._prepared(rows))
        self._append_bad()

    def _make_ready(self) -> None:
        self._ready += self._prepared(self._calls)
        self._calls = []

    def _prepared(self, rows: Sequence[Row]) -> list[Rows]:
        """The rows; where the lake refuses one, halves are tried until it stands alone."""
        if not rows:
            return []
        try:
            return [self._lake.prepare([row for row, _ in rows])]
        except BadRecordError as error:
            if len(rows) == 1:
                self.reject(error, rows[0][1])
                return []
            middle = len(rows) // 2
            return self._prepared(rows[:middle]) + self._prepared(rows[middle:])

    def _append(self, count: str, parts: Sequence[Rows]) -> None:
        if parts:
            result = self._lake.append_rows(parts)
            self.counts[count] += result.written
            self.counts["duplicates"] += result.duplicates

    def _append_bad(self) -> None:
        if self._bad:
            self._append("quarantined", [self._lake.prepare(self._bad)])
        self._bad = []
