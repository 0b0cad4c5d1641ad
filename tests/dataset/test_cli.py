import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.errors import NotEnoughLabelsError
from flywheel.lake import Lake
from flywheel.workload import Workload
from tests.dataset.make import fill


@pytest.fixture
def home(tmp_path: Path, workload: Workload) -> Path:
    """A deployment with twelve corrections."""
    fill(Lake(str(tmp_path / "home" / "lake")), range(12))
    return tmp_path / "home"


def run(home: Path, *args: str) -> Result:
    workload = home.parent / "flywheel.yaml"
    args = ("dataset", *args, "--home", str(home), "--workload", str(workload))
    return CliRunner().invoke(app, args, env={"COLUMNS": "200"})


def test_a_snapshot_is_built_listed_and_shown(home: Path) -> None:
    built = run(home, "build")
    assert built.exit_code == 0, built.output
    assert "labels used" in built.stdout and "dpo/train" in built.stdout
    snapshot = json.loads(run(home, "build", "--json").stdout)
    assert Path(snapshot["path"]).parent == home / "snapshots"

    listed = json.loads(run(home, "list", "--json").stdout)
    assert [one["snapshot_id"] for one in listed] == [snapshot["snapshot_id"]]
    assert snapshot["snapshot_id"][:12] in run(home, "list").stdout
    assert run(home, "show").stdout.startswith("# triage · snapshot ")
    manifest = json.loads(run(home, "show", snapshot["snapshot_id"][:8], "--json").stdout)
    assert manifest["snapshot"] == snapshot


def test_a_snapshot_is_exported_to_stdout_or_a_file(home: Path) -> None:
    counts = json.loads(run(home, "build", "--json").stdout)["counts"]
    lines = run(home, "export").stdout.splitlines()
    assert len(lines) == counts["sft/train"]
    assert json.loads(lines[0]).keys() == {"prompt", "completion"}

    out = home / "exported" / "pairs.jsonl"
    args = ["--to", "openai", "--kind", "dpo", "--split", "train", "--out", str(out)]
    assert run(home, "export", *args).exit_code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == counts["dpo/train"]
    assert rows[0].keys() == {"input", "preferred_output", "non_preferred_output"}


def test_too_few_labels_are_an_error_with_a_sentence(home: Path) -> None:
    workload = home.parent / "flywheel.yaml"
    workload.write_text(workload.read_text().replace("minimum_new: 2", "minimum_new: 100"))
    result = run(home, "build")
    assert isinstance(result.exception, NotEnoughLabelsError)
    assert "12 new labels since the last night, 100 are needed" in str(result.exception)
