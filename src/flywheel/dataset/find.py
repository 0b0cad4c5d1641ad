"""Snapshots by name: all of a workload's, or one by the start of its id."""

from flywheel.errors import DatasetError
from flywheel.lake import Lake
from flywheel.records import Snapshot

_NEWEST_FIRST = """
SELECT * FROM snapshots WHERE workload = ? ORDER BY created_at DESC, snapshot_id
"""


def list_snapshots(lake: Lake, workload: str) -> list[Snapshot]:
    """A workload's snapshots, newest first."""
    return lake.fetch(Snapshot, _NEWEST_FIRST, [workload])


def find_snapshot(lake: Lake, workload: str, name: str = "latest") -> Snapshot:
    """A snapshot by the start of its id, or the newest.

    Raises:
        DatasetError: there is none, or several ids start so.
    """
    snapshots = list_snapshots(lake, workload)
    if not snapshots:
        raise DatasetError(f"{workload} has no snapshot yet: `flywheel dataset build` makes one")
    if name == "latest":
        return snapshots[0]
    found = [snapshot for snapshot in snapshots if snapshot.snapshot_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    newest = ", ".join(snapshot.snapshot_id[:12] for snapshot in (found or snapshots)[:10])
    problem = f"{len(found)} snapshots of {workload} start" if found else "no snapshot starts"
    raise DatasetError(f"{problem} with {name!r}; newest first: {newest}")
