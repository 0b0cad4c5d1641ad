"""One import: outcomes of rows, committed in batches, and counted.

Input: files of one format. Output: rows of `interactions`, `assessments`, `quarantine`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from flywheel.capture.blobs import INLINE_BYTES, without_large_content
from flywheel.capture.importers import otlp
from flywheel.capture.importers.files import RawRow, is_protobuf, read_rows, read_whole
from flywheel.capture.importers.row import (
    Format,
    Outcome,
    PassedOver,
    Rejected,
    Source,
    parse_json,
)
from flywheel.capture.importers.settle import settle
from flywheel.capture.importers.spans import spans_of_protobuf
from flywheel.capture.redact import Redactors
from flywheel.errors import BadRecordError
from flywheel.lake import BLOB_TAG, Lake
from flywheel.records import Assessment, Interaction, QuarantineRecord

BATCH_ROWS = 5_000
BATCH_BYTES = 16 << 20
"""Of log per commit, whichever comes first."""

Prepare = Callable[[Interaction], Interaction]
"""Whatever must happen to a call before its policy and its first commit."""
Call = Interaction | Assessment


class ImportRun:
    """One run over the files, in batches."""

    def __init__(
        self,
        lake: Lake | None,
        module: Format,
        source: Source,
        prepare: Prepare,
        redactors: Redactors,
    ) -> None:
        self._lake, self._module, self._source, self._prepare = lake, module, source, prepare
        self._redactors = redactors
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self._calls: list[tuple[Interaction, RawRow, Path]] = []
        self._judgements: list[tuple[Assessment, RawRow, Path]] = []
        self._bad: list[QuarantineRecord] = []
        self._waiting_rows = self._waiting_bytes = 0

    def file(self, path: Path) -> Iterator[int]:
        """Reads a file; yields how far into it each commit came."""
        is_binary = self._module.NAME == otlp.NAME and is_protobuf(path)
        for row in [read_whole(path)] if is_binary else read_rows(path):
            self.counts["rows"] += 1
            try:
                for outcome in self._outcomes(row, is_binary=is_binary):
                    self._take(outcome, row, path)
            except BadRecordError as error:
                self._refuse(Rejected(error.reason, error.detail, row.raw), row, path)
            self._waiting_rows += 1
            self._waiting_bytes += len(row.raw)
            if self._waiting_rows >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
                self.commit()
                yield row.position

    def _outcomes(self, row: RawRow, *, is_binary: bool) -> list[Outcome]:
        if not row.is_whole:
            raise BadRecordError("row_too_long", f"the row is cut after {len(row.raw)} bytes")
        if is_binary:
            spans = list(spans_of_protobuf(row.raw))
            return [out for span in spans for out in otlp.read_span(span, self._source)]
        value = parse_json(row.raw)
        if not isinstance(value, dict):
            raise BadRecordError("bad_json", "a row must be an object {…}")
        found: list[Outcome] = self._module.read(value, self._source)
        return found

    def _take(self, outcome: Outcome, row: RawRow, path: Path) -> None:
        if isinstance(outcome, PassedOver):
            self.passed_over[outcome.reason] += 1
        elif isinstance(outcome, Rejected):
            self._refuse(outcome, row, path)
        elif isinstance(outcome, Interaction):
            self._calls.append((self._ready(outcome, row), row, path))
        else:
            self._judgements.append((self._redactors.judgement(outcome, None), row, path))

    def _ready(self, call: Interaction, row: RawRow) -> Interaction:
        """As it may be committed: redacted, its large content beside the lake."""
        ours = {name: value for name, value in call.tags.items() if name != BLOB_TAG}
        call = self._redactors.call(self._prepare(call.model_copy(update={"tags": ours})))
        if len(row.raw) > INLINE_BYTES:
            call, blobs = without_large_content(call)
            if self._lake is not None:
                for data in blobs.values():
                    self._lake.put_blob(data)
        return call

    def _refuse(self, rejected: Rejected, row: RawRow, path: Path) -> None:
        self.reasons[rejected.reason] += 1
        refused = BadRecordError(rejected.reason, rejected.detail)
        detail, payload = self._redactors.rejected(refused, rejected.payload)
        identity = sha256(self._module.NAME.encode() + b"\0import\0" + rejected.payload)
        self._bad.append(
            QuarantineRecord(
                quarantine_id=identity.hexdigest(),
                event_date=self._source.now.date(),
                created_at=self._source.now,
                source=f"import:{self._module.NAME}:{path.name}:{row.number}",
                reason=rejected.reason,
                detail=detail[:1000],
                payload=payload,
            )
        )

    def commit(self) -> None:
        """Calls first: a judgement of a trace or an episode looks for its calls in the lake."""
        self._append("interactions", self._calls)
        if self._lake is not None and self._judgements:
            settled = settle(self._lake, self._source.workload, [j for j, _, _ in self._judgements])
            self._judgements = [
                (judgement, row, path)
                for judgement, (_, row, path) in zip(settled, self._judgements, strict=True)
            ]
        self._append("assessments", self._judgements)
        if self._bad and self._lake is not None:
            result = self._lake.append(self._bad)
            self.counts["quarantined"] += result.written
            self.counts["duplicates"] += result.duplicates
        elif self._bad:
            self.counts["quarantined"] += len(self._bad)
        self._calls, self._judgements, self._bad = [], [], []
        self._waiting_rows = self._waiting_bytes = 0

    def _append(self, count: str, rows: Sequence[tuple[Call, RawRow, Path]]) -> None:
        """One commit; where the lake refuses a row, halves are tried until it stands alone."""
        if not rows:
            return
        if self._lake is None:
            self.counts[count] += len(rows)
            return
        try:
            result = self._lake.append([record for record, _, _ in rows])
        except BadRecordError as error:
            if len(rows) == 1:
                _, row, path = rows[0]
                self._refuse(Rejected(error.reason, error.detail, row.raw), row, path)
                return
            middle = len(rows) // 2
            self._append(count, rows[:middle])
            self._append(count, rows[middle:])
            return
        self.counts[count] += result.written
        self.counts["duplicates"] += result.duplicates
