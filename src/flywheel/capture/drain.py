"""Spool -> lake, exactly once.

Input: a spool folder. Output: rows of `interactions`, `assessments` and `quarantine`, and a
DrainReport.
Command: `flywheel capture drain`.

Live writers are asked to seal first, so that every call answered before the drain began is in it.
A segment is deleted only when all it held is committed and counted in the folder's ledger, and
every append is idempotent on the record's id: a drain that is killed anywhere is simply run again.
Calls are committed before judgements, because a judgement may take its workload from the call it
judges.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

from flywheel.capture.batch import Batch, Origin, Row
from flywheel.capture.calm import few_collections
from flywheel.capture.folder import SpoolFolder
from flywheel.capture.ledger import Books
from flywheel.capture.parse import sentences, to_assessment, to_interaction
from flywheel.capture.parsed import Refused
from flywheel.capture.redact import Redactor, Redactors
from flywheel.capture.resolve import conversations_of, resolve_workloads
from flywheel.capture.seal import seal_live_writers
from flywheel.capture.segment import Damage, Frame, SegmentHeader, decode_header, read_frames
from flywheel.errors import BadRecordError
from flywheel.lake import Lake
from flywheel.records import Assessment, Exchange, Feedback, Interaction, Record, utcnow

logger = logging.getLogger(__name__)

COMMIT_ROWS = 5_000
"""Calls a commit, where there are so many: the next ones are parsed meanwhile."""
BATCH_BYTES = 64 << 20
"""Segments booked and deleted together."""
MAX_JUDGEMENTS = 50_000
"""Judgements kept back until the calls are committed; they are small."""

OnProgress = Callable[[int, int], None]
"""Called with the bytes drained so far and the bytes there are."""


R = TypeVar("R", bound=Record)
P = ParamSpec("P")


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
    """Lost before they reached the disk, by the writers now there and those this drain found gone;
    `flywheel capture status` has the total."""
    skipped_segments: int = 0
    """Written by a newer Flywheel; left where they are."""
    duration_s: float = 0.0


def drain(
    spool_dir: Path,
    lake: Lake,
    *,
    on_progress: OnProgress | None = None,
    seal_timeout_s: float = 10.0,
    redactors: Mapping[str, Redactor] | None = None,
) -> DrainReport:
    """Moves everything captured so far into the lake.

    Args:
        spool_dir: the gateways' spool folder; one that does not exist holds nothing.
        lake: where to.
        redactors: by workload, from `redactors_for`; a workload without one is stored as it came.
        on_progress: told after every segment.
        seal_timeout_s: longest wait for a live writer whose disk is stuck.

    Raises:
        SpoolBusyError: another drain works on the folder.
        LakeConflictError: the lake cannot be committed to now; nothing was deleted.
    """
    if not spool_dir.is_dir():
        return DrainReport(spool=str(spool_dir))
    folder, started = SpoolFolder(spool_dir), time.monotonic()
    with folder.draining(), few_collections():
        unsealed = seal_live_writers(folder, timeout_s=seal_timeout_s)
        books = Books(folder)
        run = _Drain(lake, books, Redactors(redactors), on_progress or (lambda done, total: None))
        run.all_of(sorted([*folder.segments(), *folder.leftovers()]))
        dropped = books.absorb()
    return DrainReport(
        spool=str(spool_dir),
        unsealed_writers=unsealed,
        dropped=dropped,
        duration_s=round(time.monotonic() - started, 3),
        **run.counts,
    )


class _Drain:
    """One run over the segments, in batches of whole segments."""

    def __init__(
        self, lake: Lake, books: Books, redactors: Redactors, on_progress: OnProgress
    ) -> None:
        self._lake, self._books, self._on_progress = lake, books, on_progress
        self._redactors = redactors
        self._done = self._total = 0
        self._seen: Counter[str] = Counter()
        self._committed: Counter[str] = Counter()
        """Apart from what was seen, because another thread counts it."""
        self._free, self._held = self._new_batch(), self._new_batch()
        """Held are segments with judgements: those are committed when all calls are."""
        self._judgements: list[tuple[Feedback, Origin]] = []
        self._batch_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flywheel-drain")
        self._commits: Future[None] | None = None

    def _new_batch(self) -> Batch:
        return Batch(self._lake, self._redactors)

    @property
    def counts(self) -> dict[str, int]:
        """As DrainReport has them."""
        return self._seen + self._committed

    def all_of(self, paths: Sequence[Path]) -> None:
        """Drains the segments; while one batch is committed the next one is read."""
        self._total = sum(path.stat().st_size for path in paths)
        self._on_progress(0, self._total)
        with self._thread:
            for path in paths:
                self._read(path)
                if self._batch_bytes >= BATCH_BYTES:
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
            self._seen["skipped_segments"] += 1
            return
        parts = list(read_frames(data, start))
        has_judgements = any(isinstance(p, Frame) and p.kind == "feedback" for p in parts)
        batch = self._held if has_judgements else self._free
        stem = path.stem
        for part in parts:
            source = f"{stem}@{part.offset}"
            if isinstance(part, Damage):
                self._seen["damaged"] += 1
                detail = f"{len(part.data)} bytes at offset {part.offset} are no whole record"
                origin = Origin(source, header, part.data)
                batch.reject(BadRecordError(part.reason, detail), origin)
            else:
                self._seen["records"] += 1
                self._take(batch, part, Origin(source, header, part.payload))
                if batch.waiting >= COMMIT_ROWS:
                    self._submit(self._commit_rows, batch, batch.take_rows())
        batch.add_segment(path, len(parts))
        self._batch_bytes += len(data)

    def _take(self, batch: Batch, frame: Frame, origin: Origin) -> None:
        try:
            if frame.kind == "feedback":
                self._judgements.append((_parse(Feedback, frame.payload), origin))
            elif frame.kind == "refused":
                batch.refuse(_parse(Refused, frame.payload), origin)
            elif frame.kind == "assessment":
                batch.add_assessment(_parse(Assessment, frame.payload), origin)
            elif frame.kind == "interaction":
                call = _parse(Interaction, frame.payload)
                batch.add_call(call.model_copy(update={"ingested_at": utcnow()}), origin)
            else:
                batch.add_call(to_interaction(_parse(Exchange, frame.payload)), origin)
        except BadRecordError as error:
            batch.reject(error, origin)

    def _commit_calls(self) -> None:
        """Commits the calls read so far, and deletes the segments that held nothing else."""
        for batch in (self._free, self._held):
            self._submit(self._commit_rows, batch, batch.take_rows())
        free, self._free = self._free, self._new_batch()
        self._submit(self._delete, free)
        self._batch_bytes = 0

    def _commit_rows(self, batch: Batch, rows: Batch) -> None:
        rows.commit_calls()
        batch.counts += rows.counts

    def _submit(self, work: Callable[P, None], *args: P.args, **options: P.kwargs) -> None:
        """Hands work to the other thread when the work before has succeeded."""
        self._wait()
        self._commits = self._thread.submit(work, *args, **options)

    def _wait(self) -> None:
        if self._commits is not None:
            self._commits.result()

    def _commit(self) -> None:
        self._commit_calls()
        self._wait()
        asked = [
            (feedback, origin.header.default_workload) for feedback, origin in self._judgements
        ]
        judged = [feedback.interaction_id for feedback, _ in self._judgements if self._redactors]
        conversations = conversations_of(self._lake, judged)
        assessments: list[Row] = []
        for (feedback, origin), workload in zip(
            self._judgements, resolve_workloads(self._lake, asked), strict=True
        ):
            try:
                if workload is None:
                    raise BadRecordError("unknown_workload", "no call, no default: whose is it?")
                received_at = origin.header.created_at
                row = to_assessment(feedback, workload=workload, received_at=received_at)
                conversation_id = conversations.get(feedback.interaction_id or "")
                assessments.append((self._redactors.judgement(row, conversation_id), origin))
            except BadRecordError as error:
                self._held.reject(error, origin)
        self._held.commit_judgements(assessments)
        self._delete(self._held)
        self._held, self._judgements = self._new_batch(), []

    def _delete(self, batch: Batch) -> None:
        """Books and deletes the batch's segments: all they held is committed."""
        if not batch.paths:
            return
        if "://" not in self._lake.root:
            os.sync()  # a commit is not fsynced; the segments were, and outlive a power cut
        self._committed["bytes"] += sum(path.stat().st_size for path in batch.paths)
        self._committed["segments"] += len(batch.paths)
        self._books.delete(batch.paths, batch.drained, batch.records_of)
        self._committed += batch.counts


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
        told = f"not {record.__name__}: {sentences(error)}"
        raise BadRecordError("invalid_record", told) from error
