"""`flywheel capture import`: log files -> interactions, assessments, and quarantine for the rest.

Output: rows of `interactions` and `assessments`; what cannot be read goes to `quarantine` with its
reason and its original bytes, and the rest go on. Importing a file twice adds nothing. Rows are
read and committed in batches, so memory does not grow with the file.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from flywheel.capture.importers import (
    langfuse,
    litellm,
    nvidia,
    openai,
    openpipe,
    otlp,
    tensorzero,
)
from flywheel.capture.importers.files import is_protobuf, read_rows
from flywheel.capture.importers.joins import JoinStore
from flywheel.capture.importers.row import Format, Source, parse_json
from flywheel.capture.importers.run import ImportRun, Prepare
from flywheel.capture.redact import Redactor, Redactors
from flywheel.errors import BadRecordError, ConfigError
from flywheel.lake import Lake
from flywheel.records import JsonObject, Record

FormatName = Literal["openai", "nvidia", "otlp", "litellm", "langfuse", "tensorzero", "openpipe"]
FORMATS: dict[FormatName, Format] = {
    "nvidia": nvidia,
    "openai": openai,
    "otlp": otlp,
    "litellm": litellm,
    "langfuse": langfuse,
    "tensorzero": tensorzero,
    "openpipe": openpipe,
}
"""In the order in which a row is asked whose it is: the more particular first."""
Parts = Callable[[JsonObject], Iterable[tuple[str, JsonObject]]]
_JOINED: dict[FormatName, tuple[bytes, Parts]] = {
    "openai": (b'"custom_id"', openai.requests_of),
    "otlp": (b'"resourceLogs"', otlp.events_of),
}
"""Formats whose rows need others: what such a row contains, and what it gives."""
_LOOKED_AT = 20
"""Rows read to find out a file's format."""


class ImportReport(Record):
    """What became of the rows."""

    format: FormatName
    files: int
    bytes: int
    rows: int
    interactions: int = 0
    """New."""
    assessments: int = 0
    """New."""
    duplicates: int = 0
    """In the lake already, or twice in the files."""
    quarantined: int = 0
    """Added to the quarantine."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Parts of the log that are no model calls and no judgements."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Why rows went to quarantine."""
    is_dry_run: bool = False
    """Nothing was written; the counts are of what would be read, duplicates not told apart."""
    duration_s: float = 0.0


def import_files(  # noqa: PLR0913 - two are needed, each other is a choice with a default
    lake: Lake,
    paths: Sequence[Path],
    source: Source,
    *,
    format_name: FormatName | None = None,
    is_dry_run: bool = False,
    prepare: Prepare | None = None,
    redactors: Mapping[str, Redactor] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Imports log files of one format.

    Args:
        lake: where to.
        paths: the files; a batch's output and input, or spans and log records, belong together.
        source: whose calls they are, and how people are pseudonymised.
        format_name: found out from the first rows where it is not given.
        is_dry_run: reads everything and writes nothing.
        prepare: applied to every call before it is redacted and committed.
        redactors: by workload, from `redactors_for`; without one rows are stored as they came.
        on_progress: called with the bytes read and the bytes there are.

    Raises:
        ConfigError: a file cannot be read, or its format cannot be told; what was committed before
            stays, and is not doubled by importing again.
        LakeConflictError: the lake cannot be committed to now.
    """
    began = time.monotonic()
    absent = [f"{path}: there is no such file" for path in paths if not path.is_file()]
    if absent or not paths:
        raise ConfigError("import", absent or ["give at least one file"])
    name = format_name or detect_format(paths[0])
    with JoinStore() as store:
        _index(name, paths, store)
        run = ImportRun(
            None if is_dry_run else lake,
            FORMATS[name],
            replace(source, joined=store.get),
            prepare or (lambda call: call),
            Redactors(redactors),
        )
        total, done = sum(path.stat().st_size for path in paths), 0
        for path in paths:
            for position in run.file(path):
                if on_progress:
                    on_progress(done + position, total)
            done += path.stat().st_size
        run.commit()
        if on_progress:
            on_progress(total, total)
    counts = {key: run.counts[key] for key in _COUNTED}
    return ImportReport(
        format=name,
        files=len(paths),
        bytes=total,
        passed_over=dict(run.passed_over),
        reasons=dict(run.reasons),
        is_dry_run=is_dry_run,
        duration_s=round(time.monotonic() - began, 3),
        **counts,
    )


_COUNTED = ("rows", "interactions", "assessments", "duplicates", "quarantined")


def detect_format(path: Path) -> FormatName:
    """The format of a file's first readable rows.

    Raises:
        ConfigError: none knows them.
    """
    if is_protobuf(path):
        return "otlp"
    for row, _ in zip(read_rows(path), range(_LOOKED_AT), strict=False):
        try:
            value = parse_json(row.raw)
        except BadRecordError:
            continue
        if isinstance(value, dict):
            for name, module in FORMATS.items():
                if module.looks_like(value):
                    return name
    known = ", ".join(get_args(FormatName))
    raise ConfigError(str(path), [f"its format cannot be told; give --format, one of: {known}"])


def _index(name: FormatName, paths: Sequence[Path], store: JoinStore) -> None:
    """An earlier pass, for what a later row needs: a batch's requests, a span's log events."""
    if name not in _JOINED:
        return
    mark, parts_of = _JOINED[name]
    for path in paths:
        for row in () if is_protobuf(path) else read_rows(path):
            if mark not in row.raw or not row.is_whole:
                continue
            try:
                value = parse_json(row.raw)
            except BadRecordError:
                continue  # the later pass says so
            if isinstance(value, dict):
                store.add(parts_of(value))
