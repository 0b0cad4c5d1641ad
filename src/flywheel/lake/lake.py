"""Lake: append records, query them with SQL, pin versions.

Input: records of `records.py`. Output: Delta tables under one root, a folder or an object store.
Command: `flywheel lake …`, `flywheel sql "…"`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.errors import EpochConflictError, LakeConflictError
from flywheel.lake import blobs, describe, maintenance, session
from flywheel.lake.catalog import write_catalog
from flywheel.lake.commit import back_off, try_commit, turn, without_known
from flywheel.lake.delta import Storage
from flywheel.lake.describe import ColumnInfo, Relation
from flywheel.lake.maintenance import Commit, Compaction, Vacuum
from flywheel.lake.rows import R, Rows, from_arrow, to_arrow
from flywheel.lake.tables import TABLES, table_of
from flywheel.records import Interaction, Record, Release
from flywheel.settings import Settings

if TYPE_CHECKING:
    import pyarrow
    from deltalake import DeltaTable

MAX_ATTEMPTS = 200
"""Commits another writer may win before an append gives up; some twenty seconds of losing."""


@dataclass(frozen=True)
class AppendResult:
    """What an append did."""

    table: str
    written: int
    """Rows added."""
    duplicates: int
    """Rows not added, because their key was there already or twice in the batch."""
    version: int
    """Delta version at which all of them are in the table."""


class Lake:
    """The tables under one root.

    Opening it reads nothing. It holds no connection and no lock, and may be shared by threads.

    Args:
        root: A folder, or `s3://…`, `gs://…`, `az://…`.
        storage_options: Credentials and endpoints, as delta-rs names them.
    """

    def __init__(self, root: str, *, storage_options: Mapping[str, str] | None = None) -> None:
        self._storage = Storage(root, storage_options)

    @classmethod
    def open(cls, settings: Settings) -> "Lake":
        """The deployment's lake."""
        return cls(settings.lake_root, storage_options=settings.lake_storage_options)

    @property
    def root(self) -> str:
        """The root URI, or absolute folder."""
        return self._storage.root

    def append(self, records: Sequence[Record]) -> AppendResult:
        """Adds records of one type to their table; those already there, by key, add nothing.

        Safe with any number of writers in any number of processes: nothing is lost or doubled.

        Raises:
            BadRecordError: a record cannot be stored; nothing of the batch was.
            LakeConflictError: other writers kept winning; try again.
            TypeError: they are of several types, or releases, which have `append_release`.
        """
        return self.append_rows([self.prepare(records)])

    def prepare(self, records: Sequence[Record]) -> Rows:
        """The first half of `append`: all of it that a record can fail. It touches no table.

        A few hundred at a time, right after they were made, cost half of what thousands cost.

        Raises:
            BadRecordError: a record cannot be stored.
            TypeError: they are of several types, or releases, which have `append_release`.
        """
        spec = table_of(records)
        if spec.record is Release:
            raise TypeError("a release takes its epoch by compare-and-swap: use append_release")
        return Rows(spec, to_arrow(spec, records))

    def append_rows(self, parts: Sequence[Rows]) -> AppendResult:
        """The second half of `append`: one commit of rows made ready, at least one part.

        Raises:
            LakeConflictError: other writers kept winning; try again.
            TypeError: they are of several tables.
        """
        import pyarrow as pa

        spec = parts[0].spec
        if any(part.spec is not spec for part in parts):
            raise TypeError(
                f"rows of one table go together: {sorted({p.spec.name for p in parts})}"
            )
        rows = pa.concat_tables([part.table for part in parts])
        for attempt in range(MAX_ATTEMPTS):
            with turn(self._storage, spec.name):
                table = self._storage.open_or_create(spec)
                fresh = without_known(self._storage, spec, table, rows)
                added, known = fresh.num_rows, rows.num_rows - fresh.num_rows
                if added == 0 or try_commit(table, fresh):
                    return AppendResult(spec.name, added, known, table.version())
            back_off(attempt)
        raise LakeConflictError(spec.name, MAX_ATTEMPTS)

    def put_blob(self, data: bytes) -> str:
        """Stores large content beside the tables, once, and returns its sha256 in hex."""
        return blobs.put(self._storage, data)

    def get_blob(self, digest: str) -> bytes:
        """The content of a sha256.

        Raises:
            BadRecordError: there is none, or it is damaged.
        """
        return blobs.get(self._storage, digest)

    def with_content(self, call: Interaction) -> Interaction:
        """A call as the model saw it: images, audio and files where references stand in the row.

        Raises:
            BadRecordError: a blob is missing or damaged.
        """
        return blobs.restored(self._storage, call)

    def append_release(self, release: Release) -> int:
        """Appends to the release ledger by compare-and-swap, and returns the new epoch.

        Of several writers of one epoch exactly one wins, however they race.

        Raises:
            EpochConflictError: `release.epoch` is not the workload's current epoch plus one.
        """
        spec = TABLES["releases"]
        rows = to_arrow(spec, [release])
        for attempt in range(MAX_ATTEMPTS):
            with turn(self._storage, spec.name):
                table = self._storage.open_or_create(spec)
                ledger = self._ledger(table, release.workload)
                current = ledger[-1].epoch if ledger else 0
                if release.epoch != current + 1:
                    raise EpochConflictError(release.workload, release.epoch - 1, current)
                if try_commit(table, rows):
                    return release.epoch
            back_off(attempt)
        raise LakeConflictError(spec.name, MAX_ATTEMPTS)

    def current_release(self, workload: str) -> Release | None:
        """The workload's latest release, or None when nothing was ever released."""
        ledger = self.releases(workload)
        return ledger[-1] if ledger else None

    def releases(self, workload: str) -> list[Release]:
        """The workload's releases by epoch."""
        table = self._storage.open("releases")
        return self._ledger(table, workload) if table is not None else []

    def _ledger(self, table: "DeltaTable", workload: str) -> list[Release]:
        """Not through DuckDB: promotion and gateway want it in milliseconds."""
        dataset = self._storage.dataset(table, "releases", [("workload", "=", workload)])
        return from_arrow(Release, dataset.to_table().sort_by("epoch"))

    def fetch(self, record: type[R], sql: str, params: Sequence[object] = ()) -> list[R]:
        """The rows of a query as records; columns the record does not have are left out.

        Raises:
            QueryError: DuckDB refuses the SQL.
            BadRecordError: a row lacks a field the record requires.
        """
        return from_arrow(record, self.query(sql, params))

    def query(
        self, sql: str, params: Sequence[object] = (), *, versions: Mapping[str, int] | None = None
    ) -> "pyarrow.Table":
        """The result of one read-only SQL query over the tables and views.

        Args:
            sql: DuckDB SQL; `?` or `$1` stand for bound values.
            params: The values bound.
            versions: Delta version to read, per table; the latest of a table it does not name.

        Raises:
            QueryError: DuckDB refuses it, or it is not one statement that only reads.
        """
        with session.session(self._storage, sql, versions=versions) as connection:
            return session.run(connection, sql, params)

    def versions(self, *, as_of: datetime | None = None) -> dict[str, int]:
        """The Delta version of every table that exists, now or as it was at a moment."""
        return maintenance.versions(self._storage, as_of=as_of)

    def history(self, table: str, *, limit: int | None = None) -> list[Commit]:
        """A table's commits, newest first; empty when nothing was written to it yet.

        Raises:
            QueryError: there is no table of that name.
        """
        describe.check_name(table, list(TABLES))
        return maintenance.history(self._storage, table, limit=limit)

    def relations(self) -> list[Relation]:
        """Every table and view, with its size and what it is."""
        return describe.relations(self._storage)

    def columns(self, name: str) -> list[ColumnInfo]:
        """The columns of a table or view, and what they mean.

        Raises:
            QueryError: there is none of that name.
        """
        return describe.columns(self._storage, name)

    def catalog(self, path: Path) -> Path:
        """Writes `lake.duckdb`: views over the files active now, for plain DuckDB to open."""
        return write_catalog(self._storage, path)

    def compact(self) -> list[Compaction]:
        """Merges small files, table by table; safe beside appends and queries."""
        done = [maintenance.compact(self._storage, name) for name in TABLES]
        return [result for result in done if result is not None]

    def vacuum(self, *, retention_hours: int = 168) -> list[Vacuum]:
        """Deletes files that left their table longer ago than the retention.

        Versions older than that can no longer be queried; snapshots keep their own copy.
        """
        done = [
            maintenance.vacuum(self._storage, name, retention_hours=retention_hours)
            for name in TABLES
        ]
        return [result for result in done if result is not None]
