"""The commands, as somebody types them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.graders.judge import build_judges
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.testing import make_assessment
from flywheel.workload import Workload
from tests.label.agreement.world import fill

EXAMPLE = Path(__file__).parents[3] / "examples" / "triage" / "flywheel.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    fill(Lake(str(folder / "lake")))
    return folder


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(
        app,
        ["label", *args, "--home", str(home), "--workload", str(EXAMPLE)],
        env={"COLUMNS": "250"},
    )


@pytest.mark.parametrize(
    ("by", "told"),
    [
        ("criterion", "krippendorff ordinal"),
        ("rater", "agrees with gold"),
        ("week", "2026-W05"),
        ("guideline", "2026-02"),
        ("workload", "triage: agreement of human raters"),
    ],
)
def test_agreement_is_told_by(home: Path, by: str, told: str) -> None:
    result = run(home, "agreement", "--name", "urgency", "--by", by)
    assert result.exit_code == 0, result.output
    assert told in result.stdout
    assert "`flywheel label disagreements`" in result.stderr


def test_the_json_holds_all_and_the_page_is_written(home: Path, tmp_path: Path) -> None:
    page = tmp_path / "agreement.html"
    result = run(home, "agreement", "--name", "urgency", "--json", "--html", str(page))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [one["name"] for one in report["overall"]] == ["urgency"]
    assert len(report["weeks"]) == 8
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_without_ratings_it_says_where_to_look(tmp_path: Path) -> None:
    result = run(tmp_path, "agreement")
    assert result.exit_code == 0, result.output
    assert result.stdout == "", "an empty table tells nothing"
    assert "nothing was found: triage has no human ratings; names there are: none" in result.stderr
    assert "`flywheel label summary`" in result.stderr


@pytest.mark.parametrize("by", ["criterion", "rater", "week", "guideline"])
def test_a_name_nobody_rated_is_told_with_those_there_are(home: Path, by: str) -> None:
    result = run(home, "agreement", "--name", "urgncy", "--guideline", "x", "--by", by)
    assert result.stdout == ""
    told = "triage has no human ratings named 'urgncy' under guideline 'x'; names there are: "
    assert told in result.stderr
    assert "urgency (" in result.stderr


def test_without_overlap_it_says_so(tmp_path: Path) -> None:
    Lake(str(tmp_path / "lake")).append(
        [
            make_assessment(interaction_id=rater, source_id=rater, label="x")
            for rater in ("dr-a", "dr-b")
        ]
    )
    result = run(tmp_path, "agreement")
    assert "no item is rated by two raters: no agreement can be computed" in result.stderr
    assert " nan" not in result.output.lower()


def test_disagreements_are_listed_with_who_said_what(home: Path) -> None:
    result = run(home, "disagreements", "--name", "urgency", "--limit", "5")
    assert result.exit_code == 0, result.output
    assert "dr-a: " in result.stdout
    found = json.loads(run(home, "disagreements", "--json").stdout)
    assert {one["name"] for one in found} == {"urgency", "helpful"}


def test_a_judge_is_calibrated_with_labels_alone_beside_it(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.append(
        [
            make_assessment(
                interaction_id=str(n), name="helpful", value=n % 2, source_type="llm_judge",
                source_id="judge:helpful/m",
            )
            for n in range(60)
        ]
    )  # fmt: skip
    refused = run(tmp_path, "calibrate", "helpful", "--against", "helpful")
    assert "no item it judged has a score by an expert" in str(refused.exception)
    lake.append(
        [
            make_assessment(
                interaction_id=str(n), name="helpful", value=n % 2, inclusion_prob=1 / 3
            )
            for n in range(0, 60, 3)
        ]
    )
    result = run(tmp_path, "calibrate", "helpful", "--against", "helpful")
    assert result.exit_code == 0, result.output
    for told in ("calibrated (PPI++)", "labels only", "judge alone, uncorrected"):
        assert told in result.stdout


DECLARED = """
name: triage
alias: triage
base_model: base
labels: {name: helpful}
graders: {correct: {type: string_check, operation: eq, input: "a", reference: "a"}}
gate: {suite: holdout.jsonl, target: {grader: correct}}
gateway: {providers: {judges: {base_url: "http://127.0.0.1:9/v1"}}}
judges: {helpful: {rubric: helpful.md, panel: [{provider: judges, model: judge-1}]}}
"""
RUBRIC = """---
name: helpful
version: 1
mode: pointwise
criteria:
  - name: helpful
    question: Does the answer help?
    grades: [{label: bad, value: 0}, {label: good, value: 1}]
---
{{question}}

{{response}}
"""


def test_a_declared_judge_is_calibrated_as_it_is_declared(tmp_path: Path) -> None:
    """Its earlier version judged last all the same: somebody went back to the first rubric."""
    (tmp_path / "flywheel.yaml").write_text(DECLARED)
    (tmp_path / "helpful.md").write_text(RUBRIC)
    declared = build_judges(Workload.load(tmp_path / "flywheel.yaml"))["helpful"].identity
    lake = Lake(str(tmp_path / "lake"))
    corrected = Message(role="assistant", content="Rest it.")
    lake.append(
        [
            make_assessment(
                interaction_id=str(n), name="helpful", value=n % 2, source_type="llm_judge",
                source_id="judge:helpful/judge-1", judge_prompt_hash=version,
                created_at=datetime(2026, month, 1, tzinfo=UTC),
            )
            for n in range(30)
            for version, month in ((declared, 1), ("another", 2))
        ]
    )  # fmt: skip
    lake.append(
        [
            *(
                make_assessment(interaction_id=str(n), name="helpful", value=1, inclusion_prob=0.5)
                for n in range(12)
            ),
            make_assessment(interaction_id="20", name="helpful", correction=corrected),
        ]
    )
    asked = ["label", "calibrate", "helpful", "--against", "helpful", "--home", str(tmp_path),
             "--workload", str(tmp_path / "flywheel.yaml")]  # fmt: skip
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert (found["version"], found["other_versions"]) == (declared, 30)
    told = " ".join(CliRunner().invoke(app, asked).stderr.split())
    assert "left out: 30 judgements of other versions of helpful" in told
    assert "1 without a score" in told
