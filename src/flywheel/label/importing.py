"""`flywheel label import`: a label file -> assessments, and quarantine for rows that are not.

Output: rows of `assessments`; a row that cannot be read goes to `quarantine` with its reason and
its original bytes, and the rest go on. Importing a file twice adds nothing. An interaction that is
not in the lake (yet) is accepted and counted: its label is found when it arrives.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Protocol

from flywheel.errors import BadRecordError
from flywheel.label.exchange import LabelFile, read_label_file
from flywheel.label.files import Line
from flywheel.label.rows import RowDefaults, parse_row
from flywheel.lake import Lake
from flywheel.records import Assessment, QuarantineRecord, Record

BATCH = 5_000
"""Rows a commit."""
_KNOWN = """
SELECT interaction_id, conversation_id FROM interactions
WHERE workload = ? AND interaction_id IN (SELECT unnest(?::VARCHAR[]))
"""
_EXAMPLES = 5


class Redaction(Protocol):
    """What takes identifiers out of rows before they are committed."""

    def judgement(self, assessment: Assessment, conversation_id: str | None) -> Assessment:
        """The judgement with placeholders; `conversation_id` is the judged call's."""
        ...

    def rejected(self, error: BadRecordError, payload: bytes) -> tuple[str, bytes]:
        """Detail and bytes of a row that could not be read, as they may be kept."""
        ...


class ImportReport(Record):
    """What became of the rows of a label file."""

    rows: int
    written: int
    """New assessments."""
    duplicates: int
    """Rows whose judgement was there already."""
    quarantined: int
    reasons: dict[str, int]
    """Why rows went to quarantine."""
    unknown_interactions: int
    """Judged interactions that are not in the lake; their labels wait for them."""
    unknown_examples: tuple[str, ...] = ()
    """The first of them, by name."""
    contradictions: int = 0
    """Questions of this file on which one rater has said different things; the latest counts."""
    names: dict[str, int]
    """Judgements read, per question."""


def import_labels(
    lake: Lake,
    file: Path | LabelFile,
    defaults: RowDefaults,
    *,
    redaction: Redaction | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Appends a file's judgements.

    Args:
        lake: Where they go.
        file: CSV or JSONL of our own (the columns are in `rows.py`), or what another tool wrote.
        defaults: What holds where a row does not say, and who may judge.
        redaction: Applied to every row before it is committed, to quarantined ones too.
        on_progress: Called with the bytes read and the size of the file.

    Raises:
        ConfigError: the file cannot be read at all; nothing was imported.
    """
    source = file if isinstance(file, LabelFile) else LabelFile(path=file)
    size = source.path.stat().st_size if source.path.is_file() else 0
    run = _Import(lake, source, defaults, redaction)
    for batch in _batches(read_label_file(source)):
        run.take(batch)
        if on_progress:
            on_progress(run.bytes_read, size)
    return run.report()


class _Import:
    """One file on its way into the lake."""

    def __init__(
        self, lake: Lake, source: LabelFile, defaults: RowDefaults, redaction: Redaction | None
    ) -> None:
        self._lake, self._path, self._defaults = lake, source.path, defaults
        self._redaction = redaction
        self._totals: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self._judged: dict[str, None] = {}
        self._raters: set[str] = set()
        self.bytes_read = 0

    def take(self, batch: list[Line]) -> None:
        """Commits what is good of a batch of lines, and quarantines the rest."""
        read: list[tuple[Line, Assessment]] = []
        bad: list[QuarantineRecord] = []
        for line in batch:
            try:
                read.append((line, _read(line, self._defaults)))
            except BadRecordError as error:
                bad.append(self._quarantined(line, error))
        good = self._redacted(read, bad)
        self.bytes_read += sum(len(line.raw) for line in batch)
        self._totals.update(rows=len(batch), quarantined=len(bad))
        self._totals.update(self._append(good))
        self._append(bad)
        self._reasons.update(record.reason for record in bad)
        self._names.update(record.name for record in good)
        self._judged |= dict.fromkeys(one for record in good for one in _items(record))
        self._raters |= {record.source_id or "" for record in good}

    def report(self) -> ImportReport:
        """What became of it."""
        known = self._conversations(list(self._judged))
        unknown = [judged for judged in self._judged if judged not in known]
        return ImportReport(
            rows=self._totals["rows"],
            written=self._totals["written"],
            duplicates=self._totals["duplicates"],
            quarantined=self._totals["quarantined"],
            reasons=dict(self._reasons),
            unknown_interactions=len(unknown),
            unknown_examples=tuple(unknown[:_EXAMPLES]),
            contradictions=self._contradictions(),
            names=dict(self._names),
        )

    def _redacted(
        self, read: list[tuple[Line, Assessment]], bad: list[QuarantineRecord]
    ) -> list[Assessment]:
        if self._redaction is None:
            return [assessment for _, assessment in read]
        conversations = self._conversations([one for _, row in read for one in _items(row)])
        good: list[Assessment] = []
        for line, assessment in read:
            conversation_id = conversations.get(next(iter(_items(assessment)), ""))
            try:
                redacted = self._redaction.judgement(assessment, conversation_id)
            except BadRecordError as error:
                bad.append(self._quarantined(line, error))
                continue
            # Raters are staff: who judged is on record, or nobody could count or withdraw it.
            if assessment.source_type != "end_user":
                redacted = redacted.model_copy(update={"source_id": assessment.source_id})
            good.append(redacted)
        return good

    def _quarantined(self, line: Line, error: BadRecordError) -> QuarantineRecord:
        source = f"{self._path.name}:{line.number}"
        identity = hashlib.sha256(b"\0".join((b"label import", source.encode(), line.raw)))
        detail, payload = error.detail, line.raw
        if self._redaction is not None:
            detail, payload = self._redaction.rejected(error, line.raw)
        return QuarantineRecord(
            quarantine_id=identity.hexdigest()[:32],
            event_date=self._defaults.now.date(),
            created_at=self._defaults.now,
            source=source,
            reason=error.reason,
            detail=detail,
            payload=payload,
        )

    def _append(self, records: list[Assessment] | list[QuarantineRecord]) -> dict[str, int]:
        if not records:
            return {}
        result = self._lake.append(records)
        return {"written": result.written, "duplicates": result.duplicates}

    def _conversations(self, ids: list[str]) -> dict[str, str]:
        """The conversation of each interaction that is in the lake."""
        found = self._lake.query(_KNOWN, [self._defaults.workload, sorted(set(ids))])
        names = ("interaction_id", "conversation_id")
        return dict(zip(*(found.column(name).to_pylist() for name in names), strict=True))

    def _contradictions(self) -> int:
        if not self._judged:
            return 0
        sql = (files("flywheel.label") / "contradictions.sql").read_text(encoding="utf-8")
        params = [self._defaults.workload, list(self._judged), sorted(self._raters)]
        return int(self._lake.query(sql, params).column(0)[0].as_py())


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(line: Line, defaults: RowDefaults) -> Assessment:
    if isinstance(line.row, BadRecordError):
        raise line.row
    # A microsecond a line: of two judgements by one rater in a file the later line counts.
    moment = defaults.now + timedelta(microseconds=line.number)
    return parse_row(line.row, defaults.model_copy(update={"now": moment}))


def _items(assessment: Assessment) -> tuple[str, ...]:
    """The interactions judged: one, or the two of a pair."""
    if assessment.pair_ids is not None:
        return assessment.pair_ids
    return () if assessment.interaction_id is None else (assessment.interaction_id,)
