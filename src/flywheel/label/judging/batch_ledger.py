"""Which batches were started: a run that is killed while a batch is worked on finds it again.

The entry is written before the batch is started and gets its id after: in between, the batch is
found at the provider by the sha256 of its input.
"""

import sqlite3
from pathlib import Path
from typing import NamedTuple

from flywheel.label.judging.spending import BUSY_S, Reservation

_TABLE = """
CREATE TABLE IF NOT EXISTS batches (
    sha TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    batch_id TEXT,
    reserved_pico INTEGER NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    is_settled INTEGER NOT NULL DEFAULT 0,
    is_done INTEGER NOT NULL DEFAULT 0
)
"""


class BatchEntry(NamedTuple):
    """One batch of a run."""

    sha: str
    """sha256 of the request lines."""
    provider: str
    model: str
    batch_id: str | None
    """NULL when the process ended before the provider had answered."""
    reserved: Reservation
    is_settled: bool


class BatchLedger:
    """The batches of one run.

    Args:
        path: the SQLite file.
        run_id: whose batches.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._run_id = run_id
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._db.execute(_TABLE)

    def unfinished(self) -> list[BatchEntry]:
        """Batches whose answers are not all in the cache yet."""
        rows = self._db.execute(
            "SELECT sha, provider, model, batch_id, reserved_pico, reserved_tokens, is_settled "
            "FROM batches WHERE run_id = ? AND NOT is_done",
            (self._run_id,),
        )
        return [
            BatchEntry(sha, provider, model, batch_id, Reservation(pico, tokens), bool(settled))
            for sha, provider, model, batch_id, pico, tokens, settled in rows.fetchall()
        ]

    def intend(self, sha: str, provider: str, model: str, reserved: Reservation) -> BatchEntry:
        """A batch is about to be started."""
        self._db.execute(
            "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?, NULL, ?, ?, 0, 0)",
            (sha, self._run_id, provider, model, reserved.pico, reserved.tokens),
        )
        return BatchEntry(sha, provider, model, None, reserved, is_settled=False)

    def started(self, entry: BatchEntry, batch_id: str) -> BatchEntry:
        """The provider has given it an id."""
        self._set(entry, "batch_id", batch_id)
        return entry._replace(batch_id=batch_id)

    def settled(self, entry: BatchEntry) -> None:
        """What it cost is booked."""
        self._set(entry, "is_settled", 1)

    def done(self, entry: BatchEntry) -> None:
        """Nothing more is wanted of it."""
        self._set(entry, "is_done", 1)

    def _set(self, entry: BatchEntry, column: str, value: str | int) -> None:
        sql = f"UPDATE batches SET {column} = ? WHERE sha = ?"  # noqa: S608 - a name of ours
        self._db.execute(sql, (value, entry.sha))

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
