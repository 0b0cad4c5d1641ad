"""Training as the night does it: the snapshot from the lake, the adapter into the lake."""

from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.errors import TrainingError
from flywheel.records import Adapter, Snapshot
from flywheel.train.process import OnProgress, train
from flywheel.train.spec import plan
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.lake import Lake


def find_snapshot(lake: "Lake", workload: Workload, snapshot_id: str | None) -> Snapshot:
    """The snapshot whose id begins so, or the newest of the workload.

    Raises:
        TrainingError: none, or several.
    """
    sql = (
        "select * from snapshots where workload = ? and starts_with(snapshot_id, ?) "
        "order by created_at desc limit 2"
    )
    found = lake.fetch(Snapshot, sql, (workload.name, snapshot_id or ""))
    if not found:
        which = f"no snapshot {snapshot_id}" if snapshot_id else "no snapshot"
        raise TrainingError(f"{workload.name} has {which}: make one with `flywheel dataset build`")
    if snapshot_id and len(found) > 1:
        raise TrainingError(
            f"several snapshots of {workload.name} begin with {snapshot_id}: give more of the id"
        )
    return found[0]


def find_parent(lake: "Lake", workload: Workload) -> Adapter | None:
    """The adapter that serves now; None while the base model does."""
    release = lake.current_release(workload.name)
    if release is None or release.adapter is None:
        return None
    sql = "select * from adapters where workload = ? and name = ?"
    found = lake.fetch(Adapter, sql, (workload.name, release.adapter))
    return found[0] if found else None


def train_snapshot(  # noqa: PLR0913 - where things are, and what to train, all but two by name
    lake: "Lake",
    workload: Workload,
    *,
    snapshot_id: str | None,
    base_model_path: Path,
    output_root: Path,
    tracking_uri: str,
    on_progress: OnProgress | None = None,
) -> Adapter:
    """Trains on a snapshot of the lake and registers the adapter there.

    Args:
        lake: holds the snapshot, and the champion to continue from where the workload says so.
        workload: its `training` section is the recipe.
        snapshot_id: or its beginning; None takes the newest.
        base_model_path: folder of the base model.
        output_root: folder that holds a folder a run.
        tracking_uri: MLflow's.
        on_progress: called after each step and each evaluation.

    Raises:
        TrainingError: nothing to train on, or a guard tripped.
        TrainingInterruptedError: the process was killed; the same call resumes.
    """
    spec = plan(
        workload,
        find_snapshot(lake, workload, snapshot_id),
        base_model_path=base_model_path,
        parent=find_parent(lake, workload),
        output_root=output_root,
        tracking_uri=tracking_uri,
    )
    adapter = train(spec, on_progress=on_progress)
    lake.append([adapter])
    return adapter
