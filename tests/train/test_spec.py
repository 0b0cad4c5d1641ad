from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import TrainingError
from flywheel.records import Adapter, Snapshot
from flywheel.train import TrainSpec, plan
from flywheel.train.launch import launch_command, process_count
from flywheel.workload import (
    DpoSection,
    GateSection,
    LabelsSection,
    LoraSection,
    SftSection,
    TargetSection,
    TrainingSection,
    Workload,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def workload(training: TrainingSection) -> Workload:
    return Workload(
        name="triage",
        alias="triage",
        base_model="some/base",
        labels=LabelsSection(name="urgency"),
        training=training,
        graders={"correct": {}},
        gate=GateSection(suite=Path("holdout.jsonl"), target=TargetSection(grader="correct")),
    )


def snapshot(**counts: int) -> Snapshot:
    return Snapshot(
        snapshot_id="ab" * 32,
        workload="triage",
        created_at=NOW,
        path="/snapshots/ab",
        lake_versions={},
        recipe={},
        counts={name.replace("_", "/"): count for name, count in counts.items()},
        labels=10,
        new_labels=10,
    )


def adapter(*, rank: int = 16, base_model: str = "some/base") -> Adapter:
    return Adapter(
        adapter_id="cd" * 32,
        name="triage-cdcdcdcdcdcd",
        workload="triage",
        created_at=NOW,
        base_model=base_model,
        spec={},
        rank=rank,
        target_modules=("q_proj",),
        size_bytes=1,
        path="/adapters/cd",
    )


def planned(
    training: TrainingSection, *, parent: Adapter | None = None, root: Path = Path("/runs")
) -> TrainSpec:
    return plan(
        workload(training),
        snapshot(sft_train=10),
        base_model_path=Path("/models/base"),
        parent=parent,
        output_root=root,
        tracking_uri="sqlite:////mlflow.db",
    )


def test_a_spec_survives_json() -> None:
    spec = planned(TrainingSection())
    assert TrainSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_key_is_the_recipe_and_not_where_things_lie() -> None:
    spec = planned(TrainingSection())
    assert spec.key == planned(TrainingSection(), root=Path("/elsewhere")).key
    assert spec.key != planned(TrainingSection(seed=8)).key
    assert len(spec.key) == 16


def test_the_champion_is_continued_only_where_the_workload_says_so() -> None:
    assert planned(TrainingSection(start_from="base"), parent=adapter()).parent is None
    continued = planned(TrainingSection(start_from="champion"), parent=adapter())
    assert (continued.parent, continued.parent_path) == ("cd" * 32, "/adapters/cd")
    assert planned(TrainingSection(start_from="champion")).parent is None


def test_a_parent_of_another_base_or_rank_is_refused() -> None:
    champion = TrainingSection(start_from="champion")
    with pytest.raises(TrainingError, match="it is of other/base"):
        planned(champion, parent=adapter(base_model="other/base"))
    with pytest.raises(TrainingError, match="its rank is 8, the workload's 16"):
        planned(champion, parent=adapter(rank=8))


def test_a_snapshot_without_rows_for_the_recipe_is_refused() -> None:
    only_dpo = TrainingSection(sft=None, dpo=DpoSection())
    with pytest.raises(TrainingError, match="no training rows for dpo"):
        planned(only_dpo)


@given(gpus=st.integers(0, 16), sft=st.integers(1, 64), dpo=st.integers(1, 64))
def test_processes_share_each_batch_evenly(gpus: int, sft: int, dpo: int) -> None:
    recipe = TrainingSection(sft=SftSection(batch_size=sft), dpo=DpoSection(batch_size=dpo))
    count = process_count(recipe, gpus=gpus)
    assert 1 <= count <= max(gpus, 1)
    assert sft % count == dpo % count == 0


def test_one_device_needs_no_launcher_and_several_do() -> None:
    recipe = TrainingSection(lora=LoraSection())
    alone = launch_command(Path("spec.json"), recipe, gpus=1)
    assert alone[1:] == ["-m", "flywheel.train.worker", "spec.json"]
    several = launch_command(Path("spec.json"), recipe, gpus=4)
    assert several[several.index("--num_processes") + 1] == "4"
    assert "--multi_gpu" in several
    assert several[-3:] == ["-m", "flywheel.train.worker", "spec.json"]
