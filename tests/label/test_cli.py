import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.lake import Lake
from flywheel.testing import make_interaction

EXAMPLE = Path(__file__).parents[2] / "examples" / "triage" / "flywheel.yaml"
CSV = b"""interaction_id,name,correction,value
i1,urgency,"{""urgency"": ""urgent""}",
i2,urgency,,1
i3,urgency,,one
i4,helpful,[/not markup],
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Lake(str(tmp_path / "home" / "lake")).append([make_interaction(interaction_id="i1")])
    return tmp_path / "home"


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(
        app,
        ["label", *args, "--home", str(home), "--workload", str(EXAMPLE)],
        env={"COLUMNS": "200"},
    )


def imported(home: Path, tmp_path: Path) -> Result:
    (tmp_path / "labels.csv").write_bytes(CSV)
    return run(home, "import", str(tmp_path / "labels.csv"), "--source-id", "dr-a", "--json")


def test_import_prints_what_became_of_the_rows(home: Path, tmp_path: Path) -> None:
    result = imported(home, tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["written"], report["quarantined"], report["unknown_interactions"]) == (3, 1, 2)
    assert "bad_number 1" in result.stderr


def test_import_of_a_file_without_one_good_row_fails(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"{}\n")
    result = run(home, "import", str(tmp_path / "bad.jsonl"))
    assert result.exit_code == 1
    assert "empty_judgement 1" in result.stderr


def test_import_says_when_no_row_answers_the_workloads_question(home: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes(b"interaction_id,name,value\ni1,urgent,1\n")
    result = run(home, "import", str(tmp_path / "l.csv"))
    assert "no row is named 'urgency' (labels.name)" in result.stderr.replace("\n", " ")


def test_labels_are_listed_counted_and_withdrawn(home: Path, tmp_path: Path) -> None:
    imported(home, tmp_path)
    listed = run(home, "list")
    assert "[/not markup]" in listed.stdout
    only = json.loads(run(home, "list", "--interaction-id", "i2", "--json").stdout)
    assert [judgement["value"] for judgement in only] == [1.0]

    summary = json.loads(run(home, "summary", "--json").stdout)
    assert summary["state"]["labelled"] == 2
    assert sum(count["in_force"] for count in summary["counts"]) == 3
    assert "urgency: 2 interactions judged (1 captured)" in run(home, "summary").stderr

    dry = json.loads(run(home, "retract", "--source-id", "dr-a", "--dry-run", "--json").stdout)
    assert dry["judgements"] == 3
    result = run(home, "retract", "--source-id", "dr-a", "--since", "2026-01-01")
    assert "3 judgements of 3 items withdrawn" in result.stderr
    assert json.loads(run(home, "summary", "--json").stdout)["state"]["labelled"] == 0


def test_a_time_that_is_none_is_refused(home: Path) -> None:
    result = run(home, "retract", "--source-id", "x", "--since", "yesterday")
    assert result.exit_code == 2
    assert "ISO 8601" in result.stderr


def test_grade_says_when_the_workload_names_no_grader(home: Path) -> None:
    result = run(home, "grade")
    assert result.exit_code == 0
    assert "labels.graders" in result.stderr and "valid_json" in result.stderr


def test_grade_grades_what_was_captured(home: Path, tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("  minimum_new: 12", "  graders: [valid_json]")
    (tmp_path / "flywheel.yaml").write_text(text)
    args = ["label", "grade", "--json", "--home", str(home), "-w", str(tmp_path / "flywheel.yaml")]
    report = json.loads(CliRunner().invoke(app, args).stdout)
    assert report["graders"]["valid_json"] == {"graded": 1, "failed": 0, "mean": 0.0}
