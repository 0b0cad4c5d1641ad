import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from flywheel.adapters import inspect_adapter
from flywheel.cli import app
from flywheel.errors import DatasetError, FlywheelError
from flywheel.lake import Lake
from flywheel.records import Adapter, Snapshot, utcnow
from flywheel.tracking import Tracker
from tests.train.conftest import write_snapshot


@pytest.fixture
def workload(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "flywheel.yaml"
    task = {
        "name": "triage",
        "alias": "triage",
        "base_model": str(tiny_model),
        "labels": {"name": "urgency"},
        "training": {
            "lora": {"rank": 8},
            "sft": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01},
            "dpo": None,
        },
        "graders": {"correct": {"type": "string_check"}},
        "gate": {"suite": "holdout.jsonl", "target": {"grader": "correct"}},
    }
    path.write_text(yaml.safe_dump(task), encoding="utf-8")
    return path


def flywheel(home: Path, workload: Path, *words: str) -> Result:
    place = ["--home", str(home), "--workload", str(workload)]
    return CliRunner().invoke(app, ["train", *words, *place])


def test_the_newest_snapshot_becomes_an_adapter_in_store_lake_and_registry(
    tmp_path: Path, workload: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_MLFLOW_TRACKING_URI", tracking_uri)
    home = tmp_path / "home"
    lake = Lake(str(home / "lake"))
    snapshot = Snapshot(
        snapshot_id="5" * 64,
        workload="triage",
        created_at=utcnow(),
        path=str(write_snapshot(tmp_path / "snapshot")),
        lake_versions={},
        recipe={},
        counts={"sft/train": 10, "sft/validation": 2},
        labels=12,
        new_labels=12,
    )
    lake.append([snapshot])
    shown = flywheel(home, workload, "--latest", "--json")
    assert shown.exit_code == 0, shown.output
    adapter = Adapter.model_validate(json.loads(shown.stdout))
    assert lake.fetch(Adapter, "select * from adapters") == [adapter]
    assert Path(adapter.path).is_relative_to(home / "adapters")
    assert inspect_adapter(Path(adapter.path)).adapter_id == adapter.adapter_id
    assert adapter.snapshot_id == snapshot.snapshot_id
    assert adapter.metrics["sft/steps"] == 3
    assert Tracker(tracking_uri).register_adapter(adapter) == 1
    again = flywheel(home, workload, "5555")
    assert again.exit_code == 0, again.output
    assert adapter.name in again.output
    assert len(lake.fetch(Adapter, "select * from adapters")) == 1


def test_which_snapshot_must_be_said(tmp_path: Path, workload: Path) -> None:
    for words in ((), ("55", "--latest")):
        shown = flywheel(tmp_path / "home", workload, *words)
        assert shown.exit_code == 2
        assert "either a snapshot id or --latest" in shown.output


def test_no_snapshot_is_an_error_with_the_next_command(tmp_path: Path, workload: Path) -> None:
    shown = flywheel(tmp_path / "home", workload, "--latest")
    assert isinstance(shown.exception, FlywheelError)
    assert isinstance(shown.exception, DatasetError)
    assert "flywheel dataset build" in str(shown.exception)
