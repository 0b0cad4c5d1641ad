"""A snapshot of a dozen triage examples, a recipe that learns them, and one uninterrupted run."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel.records import JsonObject
from flywheel.train import TrainSpec
from flywheel.train.events import TrainEvent
from flywheel.train.spec import TrainResult
from flywheel.train.worker import run
from flywheel.workload import DpoSection, LoraSection, SftSection, TrainingSection

BASE = "tiny/base"
LABELS = ("emergency", "urgent", "routine")
RECIPE = TrainingSection(
    lora=LoraSection(rank=8, alpha=16),
    sft=SftSection(learning_rate=1e-2, epochs=3, batch_size=4),
    dpo=DpoSection(learning_rate=1e-3, epochs=2, batch_size=4),
    max_length=256,
)
STEPS = 3 * 3 + 2 * 3
"""Of RECIPE on ten training examples: three batches an epoch in both phases."""


def chat(*turns: tuple[str, str]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in turns])


def examples(count: int = 12) -> list[JsonObject]:
    return [
        {
            "prompt": chat(("system", "Triage."), ("user", "It hurts. " * (1 + index % 4))),
            "completion": chat(("assistant", json.dumps({"urgency": LABELS[index % 3]}))),
            "tools": None,
        }
        for index in range(count)
    ]


def pairs(count: int = 12) -> list[JsonObject]:
    return [
        {
            "prompt": row["prompt"],
            "chosen": row["completion"],
            "rejected": chat(("assistant", "No idea.")),
            "tools": None,
        }
        for row in examples(count)
    ]


def write_parquet(path: Path, rows: Sequence[JsonObject]) -> None:
    schema = pa.schema([(name, pa.string()) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def write_snapshot(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in (("sft", examples()), ("dpo", pairs())):
        write_parquet(folder / f"{kind}-train.parquet", rows[:10])
        write_parquet(folder / f"{kind}-validation.parquet", rows[10:])
    return folder


@pytest.fixture(scope="session")
def snapshot_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("snapshots") / "one")


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path, snapshot_folder: Path) -> TrainSpec:
    return make_spec(tmp_path / "runs", tiny_model, snapshot_folder)


def make_spec(output_root: Path, model: Path, snapshot: Path) -> TrainSpec:
    spec = TrainSpec(
        workload="triage",
        base_model=BASE,
        base_model_path=str(model),
        snapshot_id="5" * 64,
        snapshot_path=str(snapshot),
        training=RECIPE,
        output_root=str(output_root),
        tracking_uri=f"sqlite:///{output_root / 'mlflow.db'}",
    )
    spec.folder.mkdir(parents=True)
    return spec


def changed(spec: TrainSpec, *, training: TrainingSection, **fields: str | None) -> TrainSpec:
    """The spec with another recipe, and its folder made."""
    other = spec.model_copy(update={"training": training, **fields})
    other.folder.mkdir(parents=True, exist_ok=True)
    return other


class Trained:
    """An uninterrupted run, and everything it told."""

    def __init__(self, spec: TrainSpec) -> None:
        self.spec = spec
        self.events: list[TrainEvent] = []
        self.result: TrainResult = run(spec, self.events.append)


@pytest.fixture(scope="session")
def golden(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, snapshot_folder: Path
) -> Trained:
    """What an interrupted run must leave too, byte for byte."""
    return Trained(make_spec(tmp_path_factory.mktemp("golden"), tiny_model, snapshot_folder))
