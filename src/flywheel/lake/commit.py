"""Appending by compare-and-swap.

A commit here becomes exactly the version after the one it read, or nothing. Delta's own rule, that
appends never conflict, is not enough: whether a row is new can only be decided against the version
the commit follows.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.lake.delta import Partition, Storage
from flywheel.lake.tables import TableSpec
from flywheel.records import new_id

if TYPE_CHECKING:
    import pyarrow
    from deltalake import DeltaTable

COMMIT_KEY = "flywheel.commit"
"""Commit metadata by which a writer recognises its own commit after an error."""
TURN_SECONDS = 10
"""How long a writer waits for its turn before it goes ahead all the same."""


def without_known(
    storage: Storage, spec: TableSpec, table: "DeltaTable", rows: "pyarrow.Table"
) -> "pyarrow.Table":
    """The rows whose key is neither in the table, at its version, nor earlier among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = list(spec.key)
    dataset = storage.dataset(table, spec.name, _partitions(spec, rows))
    wanted = pc.field(key[0]).isin(rows.column(key[0]).combine_chunks())
    if spec.search_within is not None:
        first, last = pc.min_max(rows.column(spec.search_within)).values()
        column = pc.field(spec.search_within)
        wanted = (column >= first) & (column <= last) & wanted
    known = dataset.to_table(columns=key, filter=wanted)
    identities = _identities(rows, key)
    if known.num_rows == 0 and len(set(identities)) == len(identities):
        return rows
    seen = set(_identities(known, key))
    fresh = []
    for position, identity in enumerate(identities):
        if identity not in seen:
            seen.add(identity)
            fresh.append(position)
    return rows.take(pa.array(fresh, pa.int64())) if len(fresh) < rows.num_rows else rows


def _identities(rows: "pyarrow.Table", key: Sequence[str]) -> list[object]:
    columns = [rows.column(name).to_pylist() for name in key]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _partitions(spec: TableSpec, rows: "pyarrow.Table") -> list[Partition] | None:
    """Delta's filter for the partitions in which the rows' keys could be."""
    return [
        (name, "in", sorted({str(value) for value in rows.column(name).unique().to_pylist()}))
        for name in spec.search_by
    ] or None


def try_commit(table: "DeltaTable", rows: "pyarrow.Table") -> bool:
    """Appends rows as exactly the version after the one `table` was opened at.

    Returns:
        False when somebody else committed that version first; then nothing was added.
    """
    from deltalake import CommitProperties, write_deltalake
    from deltalake.exceptions import CommitFailedError, DeltaError

    token = new_id()
    properties = CommitProperties(custom_metadata={COMMIT_KEY: token}, max_commit_retries=0)
    read_version = table.version()
    try:
        write_deltalake(table, rows, mode="append", commit_properties=properties)
    except (DeltaError, OSError) as error:
        # An error may come after the commit was written: the log knows, the exception does not.
        if _has_commit(table, read_version, token):
            return True
        if isinstance(error, CommitFailedError):
            return False
        raise
    return True


def _has_commit(table: "DeltaTable", since: int, token: str) -> bool:
    table.update_incremental()
    newer = table.version() - since
    return newer > 0 and any(entry.get(COMMIT_KEY) == token for entry in table.history(limit=newer))


@contextmanager
def turn(storage: Storage, name: str) -> Iterator[None]:
    """Lets local writers of a table go one after the other, so that they seldom collide.

    A courtesy and no more: the commit decides by itself. So nobody waits long for a writer that
    hangs, and where there is no such lock (an object store, some network folders) writers collide
    and try again.
    """
    if not storage.is_local:
        yield
        return
    Path(storage.root).mkdir(parents=True, exist_ok=True)
    with Path(storage.root, f".{name}.lock").open("ab") as lock:
        deadline = time.monotonic() + TURN_SECONDS
        while not _locked(lock.fileno()) and time.monotonic() < deadline:
            time.sleep(random.uniform(0.001, 0.005))
        yield


def _locked(descriptor: int) -> bool:
    """Whether the lock is ours now, or never can be; closing the file gives it back."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def back_off(attempt: int) -> None:
    """Sleeps a random moment, longer with each attempt, so that writers stop colliding."""
    time.sleep(random.uniform(0.001, 0.01 * min(2**attempt, 32)))
