"""Appending by compare-and-swap.

A commit here becomes exactly the version after the one it read, or nothing. Delta's own rule, that
appends never conflict, is not enough: whether a row is new can only be decided against the version
the commit follows.
"""

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flywheel.lake.tables import TableSpec
from flywheel.records import new_id

if TYPE_CHECKING:
    import pyarrow
    from deltalake import DeltaTable

COMMIT_KEY = "flywheel.commit"
"""Commit metadata by which a writer recognises its own commit after an error."""


def without_known(spec: TableSpec, table: "DeltaTable", rows: "pyarrow.Table") -> "pyarrow.Table":
    """The rows whose key is neither in the table, at its version, nor earlier among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = list(spec.key)
    dataset = table.to_pyarrow_dataset(file_pruning_predicate=_partitions(spec, rows))
    candidates = rows.column(key[0]).combine_chunks()
    known = dataset.to_table(columns=key, filter=pc.field(key[0]).isin(candidates))
    seen = set(_tuples(known, key))
    fresh = []
    for position, identity in enumerate(_tuples(rows, key)):
        if identity not in seen:
            seen.add(identity)
            fresh.append(position)
    return rows.take(pa.array(fresh, pa.int64())) if len(fresh) < rows.num_rows else rows


def _tuples(rows: "pyarrow.Table", key: Sequence[str]) -> list[tuple[object, ...]]:
    return list(zip(*(rows.column(name).to_pylist() for name in key), strict=True))


def _partitions(spec: TableSpec, rows: "pyarrow.Table") -> list[tuple[str, str, list[str]]] | None:
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


def back_off(attempt: int) -> None:
    """Sleeps a random moment, longer with each attempt, so that writers stop colliding."""
    time.sleep(random.uniform(0.001, 0.01 * min(2**attempt, 32)))
