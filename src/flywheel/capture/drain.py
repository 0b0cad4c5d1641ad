"""Spool -> lake, exactly once.

Input: a spool folder. Output: rows of `interactions`, `assessments` and `quarantine`, and a
DrainReport.
Command: `flywheel capture drain`.

Live writers are asked to seal first, so that every call answered before the drain began is in it.
A segment is deleted only when all it held is committed, and every append is idempotent on the
record's id: a drain that is killed anywhere is simply run again. Calls are committed before
judgements, because a judgement may take its workload from the call it judges.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from flywheel.capture.folder import SpoolFolder
from flywheel.capture.parse import to_assessment, to_interaction
from flywheel.capture.resolve import resolve_workloads
from flywheel.capture.seal import seal_live_writers
from flywheel.capture.segment import Damage, Frame, SegmentHeader, decode_header, read_frames
from flywheel.errors import BadRecordError
from flywheel.lake import Lake
from flywheel.records import (
    Assessment,
    Exchange,
    Feedback,
    Interaction,
    QuarantineRecord,
    Record,
    utcnow,
)

logger = logging.getLogger(__name__)

BATCH_RECORDS = 20_000
BATCH_BYTES = 64 << 20
MAX_JUDGEMENTS = 50_000
"""Judgements kept back until the calls are committed; they are small."""

OnProgress = Callable[[int, int], None]
"""Called with the bytes drained so far and the bytes there are."""


R = TypeVar("R", bound=Record)


class DrainReport(Record):
    """What one drain did.

    Always `records + damaged == interactions + assessments + quarantined + duplicates`.
    """

    spool: str
    segments: int = 0
    """Drained and deleted."""
    bytes: int = 0
    records: int = 0
    """Whole records read."""
    damaged: int = 0
    """Stretches that held no whole record: the torn end a kill leaves, or changed bytes."""
    interactions: int = 0
    assessments: int = 0
    quarantined: int = 0
    """Added to the quarantine."""
    duplicates: int = 0
    """In the lake already."""
    unsealed_writers: int = 0
    """Live writers that did not seal in time; what they hold comes with the next drain."""
    dropped: int = 0
    """Lost before they reached the disk, as the writers report since each was started."""
    skipped_segments: int = 0
    """Written by a newer Flywheel; left where they are."""
    duration_s: float = 0.0


class _Origin(NamedTuple):
    """Where a record was read, kept for the case that it must go to quarantine."""

    source: str
    header: SegmentHeader
    payload: bytes


def drain(
    spool_dir: Path,
    lake: Lake,
    *,
    on_progress: OnProgress | None = None,
    seal_timeout_s: float = 10.0,
) -> DrainReport:
    """Moves everything captured so far into the lake.

    Args:
        spool_dir: the gateways' spool folder; one that does not exist holds nothing.
        lake: where to.
        on_progress: told after every segment.
        seal_timeout_s: longest wait for a live writer whose disk is stuck.

    Raises:
        SpoolBusyError: another drain works on the folder.
        LakeConflictError: the lake cannot be committed to now; nothing was deleted.
    """
    if not spool_dir.is_dir():
        return DrainReport(spool=str(spool_dir))
    folder, started = SpoolFolder(spool_dir), time.monotonic()
    with folder.draining():
        unsealed = seal_live_writers(folder, timeout_s=seal_timeout_s)
        run = _Drain(lake, on_progress or (lambda done, total: None))
        run.all_of(sorted([*folder.segments(), *folder.leftovers()]))
        dropped = _dropped(folder)
        _forget_dead_writers(folder)
    return DrainReport(
        spool=str(spool_dir),
        unsealed_writers=unsealed,
        dropped=dropped,
        duration_s=round(time.monotonic() - started, 3),
        **run.counts,
    )


class _Drain:
    """One run over the segments, in batches of whole segments."""

    def __init__(self, lake: Lake, on_progress: OnProgress) -> None:
        self._lake, self._on_progress = lake, on_progress
        self._done = self._total = 0
        self.counts = {"segments": 0, "bytes": 0, "records": 0, "damaged": 0, "interactions": 0}
        self.counts |= {"assessments": 0, "quarantined": 0, "duplicates": 0, "skipped_segments": 0}
        self._calls: list[tuple[Record, _Origin]] = []
        self._assessments: list[tuple[Record, _Origin]] = []
        """Of a known workload, so they need not wait for the calls."""
        self._bad: list[QuarantineRecord] = []
        self._judgements: list[tuple[Feedback, _Origin]] = []
        self._batch_bytes = 0
        self._batch: list[Path] = []
        self._held: list[Path] = []
        """Committed but for the judgements in them."""

    def all_of(self, paths: Sequence[Path]) -> None:
        """Drains the segments."""
        self._total = sum(path.stat().st_size for path in paths)
        self._on_progress(0, self._total)
        for path in paths:
            self._read(path)
            if len(self._calls) >= BATCH_RECORDS or self._batch_bytes >= BATCH_BYTES:
                self._commit_calls()
            if len(self._judgements) >= MAX_JUDGEMENTS:
                self._commit()
            self._on_progress(self._done, self._total)
        self._commit()

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        self._done += len(data)
        header, start = _header(path, data)
        if header is None:
            self.counts["skipped_segments"] += 1
            return
        judgements_before = len(self._judgements)
        for part in read_frames(data, start):
            source = f"{path.stem}@{part.offset}"
            if isinstance(part, Damage):
                self.counts["damaged"] += 1
                detail = f"{len(part.data)} bytes at offset {part.offset} are no whole record"
                origin = _Origin(source, header, part.data)
                self._reject(BadRecordError(part.reason, detail), origin)
            else:
                self.counts["records"] += 1
                self._take(part, _Origin(source, header, part.payload))
        self._batch_bytes += len(data)
        (self._batch if len(self._judgements) == judgements_before else self._held).append(path)

    def _take(self, frame: Frame, origin: _Origin) -> None:
        try:
            if frame.kind == "feedback":
                feedback = _parse(Feedback, frame.payload)
                self._judgements.append((feedback, origin))
            elif frame.kind == "assessment":
                self._assessments.append((_parse(Assessment, frame.payload), origin))
            elif frame.kind == "interaction":
                call = _parse(Interaction, frame.payload)
                self._calls.append((call.model_copy(update={"ingested_at": utcnow()}), origin))
            else:
                self._calls.append((to_interaction(_parse(Exchange, frame.payload)), origin))
        except BadRecordError as error:
            self._reject(error, origin)

    def _reject(self, error: BadRecordError, origin: _Origin) -> None:
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

    def _commit_calls(self) -> None:
        self._append("interactions", self._calls)
        self._append("assessments", self._assessments)
        self._append_bad()
        if self._batch:
            self._delete(self._batch)
        self._calls, self._assessments, self._batch, self._batch_bytes = [], [], [], 0

    def _commit(self) -> None:
        self._commit_calls()
        asked = [
            (feedback, origin.header.default_workload) for feedback, origin in self._judgements
        ]
        assessments: list[tuple[Record, _Origin]] = []
        for (feedback, origin), workload in zip(
            self._judgements, resolve_workloads(self._lake, asked), strict=True
        ):
            try:
                if workload is None:
                    raise BadRecordError("unknown_workload", "no call, no default: whose is it?")
                received_at = origin.header.created_at
                row = to_assessment(feedback, workload=workload, received_at=received_at)
                assessments.append((row, origin))
            except BadRecordError as error:
                self._reject(error, origin)
        self._append("assessments", assessments)
        self._append_bad()
        self._delete(self._held)
        self._judgements, self._held = [], []

    def _append(self, count: str, rows: Sequence[tuple[Record, _Origin]]) -> None:
        """One commit; where the lake refuses a row, halves are tried until it stands alone."""
        if not rows:
            return
        try:
            result = self._lake.append([row for row, _ in rows])
        except BadRecordError as error:
            if len(rows) == 1:
                self._reject(error, rows[0][1])
                return
            middle = len(rows) // 2
            self._append(count, rows[:middle])
            self._append(count, rows[middle:])
            return
        self.counts[count] += result.written
        self.counts["duplicates"] += result.duplicates

    def _append_bad(self) -> None:
        if self._bad:
            result = self._lake.append(self._bad)
            self.counts["quarantined"] += result.written
            self.counts["duplicates"] += result.duplicates
        self._bad = []

    def _delete(self, paths: Sequence[Path]) -> None:
        if paths and "://" not in self._lake.root:
            os.sync()  # a commit is not fsynced; the segments were, and must outlive a power cut
        for path in paths:
            self.counts["bytes"] += path.stat().st_size
            path.unlink()
            self.counts["segments"] += 1


def _header(path: Path, data: bytes) -> tuple[SegmentHeader | None, int]:
    """The header and where frames begin; None for a file of a newer format."""
    try:
        return decode_header(data)
    except BadRecordError as error:
        if error.reason == "newer_segment":
            logger.error("%s was left alone: %s; upgrade Flywheel", path, error.detail)
            return None, 0
        # Frames are found without it; only the default workload is gone.
        changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return SegmentHeader(writer=path.stem, created_at=changed_at), 0


def _parse(record: type[R], payload: bytes) -> R:
    try:
        return record.model_validate_json(payload)
    except ValidationError as error:
        raise BadRecordError("invalid_record", f"not {record.__name__}: {error}") from error


def _dropped(folder: SpoolFolder) -> int:
    states = (folder.state(writer) for writer in folder.writers())
    return sum(sum(state.counters.dropped.values()) for state in states if state is not None)


def _forget_dead_writers(folder: SpoolFolder) -> None:
    busy = {path.stem.rpartition("-")[0] for path in folder.open_segments()}
    for writer in folder.writers():
        if writer not in busy and not folder.is_alive(writer):
            folder.writer_file(writer).unlink(missing_ok=True)
