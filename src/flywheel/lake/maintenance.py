"""Keeping the tables small and quick: compaction, vacuum, history.

All of it is safe beside running appends and queries. Compaction only rewrites: an append that meets
it tries again. Vacuum removes only files that left the table, or never made it in, longer ago than
any running query or append can be. Commands: `flywheel lake compact`, `vacuum` and `history`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flywheel.errors import LakeConflictError
from flywheel.lake.commit import back_off
from flywheel.lake.delta import Storage
from flywheel.lake.tables import TABLES

if TYPE_CHECKING:
    from deltalake import DeltaTable

MAX_ATTEMPTS = 20
ORPHAN_HOURS = 24
"""A file the log does not know is an append in flight, until it is this old."""


@dataclass(frozen=True)
class Compaction:
    """What compacting a table did."""

    table: str
    files_before: int
    files_after: int
    version: int


@dataclass(frozen=True)
class Vacuum:
    """What vacuuming a table removed."""

    table: str
    files_removed: int


@dataclass(frozen=True)
class Commit:
    """One version of a table."""

    table: str
    version: int
    committed_at: datetime
    operation: str
    rows_added: int | None


def compact(storage: Storage, name: str) -> Compaction | None:
    """Merges a table's small files within each partition; None where there is no table.

    Raises:
        LakeConflictError: a delete or another compaction kept winning.
    """
    from deltalake import CommitProperties
    from deltalake.exceptions import CommitFailedError

    for attempt in range(MAX_ATTEMPTS):
        table = storage.open(name)
        if table is None:
            return None
        before = len(table.file_uris())
        try:
            # Appends never conflict with a rewrite, so delta-rs may follow them by itself.
            table.optimize.compact(commit_properties=CommitProperties(max_commit_retries=200))
        except CommitFailedError:
            back_off(attempt)
            continue
        return Compaction(name, before, len(table.file_uris()), table.version())
    raise LakeConflictError(name, MAX_ATTEMPTS)


def vacuum(storage: Storage, name: str, *, retention_hours: int) -> Vacuum | None:
    """Deletes a table's files that have been out of it for longer than the retention.

    Versions older than that can no longer be read. Files of appends that lost their commit go too,
    once they are old enough not to be one in flight.
    """
    table = storage.open(name)
    if table is None:
        return None
    removed = _vacuum(table, retention_hours, is_full=False)
    removed |= _vacuum(table, max(retention_hours, ORPHAN_HOURS), is_full=True)
    return Vacuum(name, len(removed))


def _vacuum(table: "DeltaTable", retention_hours: int, *, is_full: bool) -> set[str]:
    return set(
        table.vacuum(
            retention_hours=retention_hours,
            dry_run=False,
            enforce_retention_duration=False,
            full=is_full,
        )
    )


def history(storage: Storage, name: str, *, limit: int | None = None) -> list[Commit]:
    """A table's commits, newest first; empty where there is no table."""
    table = storage.open(name)
    entries = table.history(limit=limit) if table is not None else []
    return [
        Commit(
            table=name,
            version=entry["version"],
            committed_at=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
            operation=entry["operation"],
            rows_added=entry.get("operationMetrics", {}).get("num_added_rows"),
        )
        for entry in entries
    ]


def versions(storage: Storage, *, as_of: datetime | None = None) -> dict[str, int]:
    """The Delta version of every table that exists, now or as it was at a moment."""
    found: dict[str, int] = {}
    for name in TABLES:
        table = storage.open(name)
        if table is None:
            continue
        if as_of is not None:
            # A moment before the table existed is its version 0: created, and empty.
            table.load_as_version(as_of)
        found[name] = table.version()
    return found
