"""`flywheel label import`: a label file -> assessments, and quarantine for rows that are not.

Output: rows of `assessments`; a row that cannot be read goes to `quarantine` with its reason and
its original bytes, and the rest go on. Importing a file twice adds nothing. An interaction that is
not in the lake (yet) is accepted and counted: its label is found when it arrives.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from flywheel.errors import BadRecordError
from flywheel.label.files import Line, read_lines
from flywheel.label.rows import RowDefaults, parse_row
from flywheel.lake import Lake
from flywheel.records import Assessment, QuarantineRecord, Record

BATCH = 5_000
"""Rows a commit."""
_KNOWN = """
SELECT interaction_id FROM interactions
WHERE workload = ? AND interaction_id IN (SELECT unnest(?::VARCHAR[]))
"""


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
    names: dict[str, int]
    """Judgements read, per question."""


def import_labels(
    lake: Lake,
    path: Path,
    defaults: RowDefaults,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Appends a file's judgements.

    Args:
        lake: Where they go.
        path: CSV or JSONL; the columns are in `rows.py`.
        defaults: What holds where a row does not say.
        on_progress: Called with the bytes read and the size of the file.

    Raises:
        ConfigError: the file cannot be read at all; nothing was imported.
    """
    size = path.stat().st_size if path.is_file() else 0
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    names: Counter[str] = Counter()
    judged: set[str] = set()
    for batch in _batches(read_lines(path)):
        good: list[Assessment] = []
        bad: list[QuarantineRecord] = []
        for line in batch:
            try:
                good.append(_read(line, defaults))
            except BadRecordError as error:
                bad.append(_quarantined(line, error, path, defaults.now))
        totals.update(rows=len(batch), bytes=sum(len(line.raw) for line in batch))
        totals.update(_append(lake, good))
        totals.update(quarantined=len(bad))
        _append(lake, bad)
        reasons.update(record.reason for record in bad)
        names.update(record.name for record in good)
        judged.update(record.interaction_id for record in good if record.interaction_id)
        if on_progress:
            on_progress(totals["bytes"], size)
    return ImportReport(
        rows=totals["rows"],
        written=totals["written"],
        duplicates=totals["duplicates"],
        quarantined=totals["quarantined"],
        reasons=dict(reasons),
        unknown_interactions=len(judged - _known(lake, defaults.workload, judged)),
        names=dict(names),
    )


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


def _quarantined(line: Line, error: BadRecordError, path: Path, now: datetime) -> QuarantineRecord:
    source = f"{path.name}:{line.number}"
    identity = hashlib.sha256(b"\0".join((b"label import", source.encode(), line.raw)))
    return QuarantineRecord(
        quarantine_id=identity.hexdigest()[:32],
        event_date=now.date(),
        created_at=now,
        source=source,
        reason=error.reason,
        detail=error.detail,
        payload=line.raw,
    )


def _append(lake: Lake, records: list[Assessment] | list[QuarantineRecord]) -> dict[str, int]:
    if not records:
        return {}
    result = lake.append(records)
    return {"written": result.written, "duplicates": result.duplicates}


def _known(lake: Lake, workload: str, ids: set[str]) -> set[str]:
    found = lake.query(_KNOWN, [workload, sorted(ids)])
    return set(found.column("interaction_id").to_pylist())
