"""The lake: Delta tables that DuckDB queries, under one root.

Appends are idempotent and safe from several processes at once; queries read the active files of a
pinned version; the release ledger moves by compare-and-swap.
"""

from flywheel.lake.blobs import TAG as BLOB_TAG
from flywheel.lake.blobs import BlobReference
from flywheel.lake.describe import ColumnInfo, Relation
from flywheel.lake.lake import AppendResult, Lake
from flywheel.lake.maintenance import Commit, Compaction, Vacuum
from flywheel.lake.rows import Rows

__all__ = [
    "BLOB_TAG",
    "AppendResult",
    "BlobReference",
    "ColumnInfo",
    "Commit",
    "Compaction",
    "Lake",
    "Relation",
    "Rows",
    "Vacuum",
]
