"""The lake: Delta tables that DuckDB queries, under one root.

Appends are idempotent and safe from several processes at once; queries read the active files of a
pinned version; the release ledger moves by compare-and-swap.
"""

from flywheel.lake.describe import ColumnInfo, Relation
from flywheel.lake.lake import AppendResult, Lake
from flywheel.lake.maintenance import Commit, Compaction, Vacuum

__all__ = ["AppendResult", "ColumnInfo", "Commit", "Compaction", "Lake", "Relation", "Vacuum"]
