"""What is trained, as data: `plan` decides it, the worker reads it as JSON.

A spec's `key` is the hash of what determines the weights: base, parent, snapshot and recipe, not
where they lie. Training the same twice finds the first result.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from flywheel.errors import TrainingError
from flywheel.records import Adapter, DatasetKind, JsonObject, Record, Snapshot
from flywheel.workload import TrainingSection, Workload

PHASES: tuple[DatasetKind, ...] = ("sft", "dpo")
"""In the order they are trained."""
RESULT_FILE = "result.json"


class TrainResult(Record):
    """What the worker leaves beside a finished adapter, as `result.json`."""

    adapter_id: str
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int
    metrics: dict[str, float]
    """`<phase>/<metric>` of each phase, and what concerns the whole run."""


class TrainSpec(Record):
    """One training run: what goes in, how, and where it leaves what comes out."""

    version: Literal[1] = 1
    """Of the recipe's meaning: raised when the same spec would train something else."""
    workload: str
    base_model: str
    """The served id; written into the adapter."""
    base_model_path: str
    """The folder it is loaded from."""
    snapshot_id: str
    snapshot_path: str
    """Folder with `<kind>-<split>.parquet`."""
    parent: str | None = None
    """adapter_id to continue from; None starts from the base."""
    parent_path: str | None = None
    training: TrainingSection
    output_root: str
    tracking_uri: str

    @property
    def key(self) -> str:
        """First 16 hex digits of the sha256 over what determines the weights."""
        places = {"base_model_path", "snapshot_path", "parent_path", "output_root", "tracking_uri"}
        content = self.model_dump(mode="json", exclude=places)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """All of this run: spec.json, training.jsonl, worker.log, adapter/, manifest.json."""
        return Path(self.output_root) / self.key

    @property
    def adapter_folder(self) -> Path:
        """The adapter: its config and its weights, and nothing else."""
        return self.folder / "adapter"

    @property
    def work_folder(self) -> Path:
        """Checkpoints; removed when the run is complete."""
        return self.folder / "work"

    def read_result(self) -> TrainResult | None:
        """What the worker left; None while it has not finished."""
        try:
            return TrainResult.model_validate_json((self.folder / RESULT_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def write_result(self, result: TrainResult) -> None:
        """Marks the adapter as finished: whole or not at all."""
        draft = self.folder / f".{RESULT_FILE}"
        draft.write_text(result.model_dump_json(indent=2), encoding="utf-8")
        draft.replace(self.folder / RESULT_FILE)

    def discard_result(self) -> None:
        """Forgets a result whose adapter is gone or damaged."""
        (self.folder / RESULT_FILE).unlink(missing_ok=True)


def plan(  # noqa: PLR0913 - each is a fact of the one run, all but two by name
    workload: Workload,
    snapshot: Snapshot,
    *,
    base_model_path: Path,
    parent: Adapter | None,
    output_root: Path,
    tracking_uri: str,
) -> TrainSpec:
    """Decides what to train tonight.

    Args:
        workload: its `training` section is the recipe.
        snapshot: the data.
        base_model_path: folder of the base model, from the resolver.
        parent: the champion; continued from where `training.start_from` says so, else ignored.
        output_root: folder that holds a folder a run.
        tracking_uri: MLflow's.

    Raises:
        TrainingError: the snapshot has no rows for any phase, or the parent cannot be continued.
    """
    training = workload.training
    wanted = [kind for kind in PHASES if getattr(training, kind) is not None]
    if not any(snapshot.counts.get(f"{kind}/train", 0) for kind in wanted):
        raise TrainingError(
            f"snapshot {snapshot.snapshot_id[:12]} has no training rows for {' or '.join(wanted)}; "
            f"it has: {json.dumps(snapshot.counts)}. Label more, then `flywheel dataset build`."
        )
    if training.start_from == "base":
        parent = None
    if parent is not None:
        _check_parent(workload, parent)
    return TrainSpec(
        workload=workload.name,
        base_model=workload.base_model,
        base_model_path=str(base_model_path.absolute()),
        snapshot_id=snapshot.snapshot_id,
        snapshot_path=snapshot.path,
        parent=parent.adapter_id if parent else None,
        parent_path=parent.path if parent else None,
        training=training,
        output_root=str(output_root.absolute()),
        tracking_uri=tracking_uri,
    )


def _check_parent(workload: Workload, parent: Adapter) -> None:
    lora = workload.training.lora
    if parent.base_model != workload.base_model:
        raise TrainingError(
            f"{parent.name} cannot be continued: it is of {parent.base_model}, the workload of "
            f"{workload.base_model}. Set training.start_from to base."
        )
    if parent.rank != lora.rank:
        raise TrainingError(
            f"{parent.name} cannot be continued: its rank is {parent.rank}, the workload's "
            f"{lora.rank}. Set training.lora.rank to {parent.rank} or training.start_from to base."
        )


def spec_params(spec: TrainSpec) -> JsonObject:
    """The spec as a person compares runs by: what determines the weights, without the places."""
    return {
        "key": spec.key,
        "base_model": spec.base_model,
        "snapshot_id": spec.snapshot_id,
        "parent": spec.parent,
        "training": spec.training.model_dump(mode="json"),
    }
