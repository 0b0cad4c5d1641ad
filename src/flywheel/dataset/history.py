"""What earlier nights did with the labels."""

from collections.abc import Sequence
from importlib.resources import files

from flywheel.lake import Lake
from flywheel.records import Record

_LEARNED = """
SELECT DISTINCT interaction_id FROM snapshot_rows
WHERE workload = ? AND snapshot_id IN (SELECT unnest(?::VARCHAR[]))
"""


class History(Record):
    """The snapshots there are, and which of them a night finished with."""

    unfinished: frozenset[str]
    """Snapshots no night has finished with."""
    learned: frozenset[str]
    """Interactions in a snapshot a night has finished with."""


def read_history(lake: Lake, workload: str) -> History:
    """Reads a workload's history; `consumed.sql` says when a night has finished."""
    sql = (files("flywheel.dataset") / "consumed.sql").read_text(encoding="utf-8")
    consumed = _column(lake, sql, [workload])
    known = _column(lake, "SELECT snapshot_id FROM snapshots WHERE workload = ?", [workload])
    learned = _column(lake, _LEARNED, [workload, sorted(consumed)])
    return History(unfinished=known - consumed, learned=learned)


def _column(lake: Lake, sql: str, params: Sequence[object]) -> frozenset[str]:
    return frozenset(lake.query(sql, params).column(0).to_pylist())
