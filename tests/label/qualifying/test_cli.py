import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.errors import JudgeNotQualifiedError
from flywheel.label.qualifying import require_qualified
from flywheel.lake import Lake
from flywheel.settings import Settings
from flywheel.workload import Workload
from tests.label.qualifying.material import GOLD, judge_of
from tests.label.qualifying.replay import ReplayEndpoint

GOLD_PAIRS = str(GOLD / "better_answer.jsonl")


@pytest.fixture
def home(tmp_path: Path, tracking_uri: str) -> Path:
    """Where `tracking_uri` puts MLflow's file is where a home has it."""
    return tmp_path


def run(home: Path, *args: str) -> Result:
    return CliRunner().invoke(
        app,
        ["judge", *args, "--home", str(home), "--workload", str(home / "flywheel.yaml")],
        env={"COLUMNS": "220"},
    )


def test_a_judge_is_listed_measured_and_listed_as_qualified(
    home: Path, workload: Workload, endpoint: ReplayEndpoint
) -> None:
    before = json.loads(run(home, "list", "--json").stdout)
    assert [(one["judge"], one["state"]) for one in before] == [
        ("better", "never"),
        ("good", "never"),
    ]
    told = run(home, "list")
    assert "it was never measured on gold labels" in told.stdout
    assert "`flywheel judge qualify good --gold gold.jsonl` qualifies good" in told.stderr

    refused = run(home, "run", "better")
    assert isinstance(refused.exception, JudgeNotQualifiedError)
    assert "`flywheel judge qualify better --gold gold.jsonl`" in str(refused.exception)

    result = run(home, "qualify", "better", "--gold", GOLD_PAIRS)
    assert result.exit_code == 0, result.output
    assert run(home, "run", "better").exit_code == 0, "now it may"
    assert "better: 56 gold items, 0 without a verdict" in result.stdout
    assert "swap_consistency" in result.stdout
    assert "qualified until" in result.stderr
    assert "measurement 1 of this very judge, on 1 gold sets" in result.stderr
    assert "right on 100.0% of the items" in result.stderr

    (better, good) = json.loads(run(home, "list", "--json").stdout)
    assert (better["state"], good["state"]) == ("qualified", "never")
    assert (better["measurements"], better["gold_sets"], good["measurements"]) == (1, 1, 0)
    assert "gold sets" in run(home, "list").stdout
    assert better["valid_until"] == better["last"]["expires_at"]
    lake = Lake.open(Settings.load(home=home))
    assert require_qualified(lake, workload, judge_of(workload)).qualified


def test_a_judge_that_does_not_qualify_exits_with_1_and_its_reasons(
    home: Path, workload: Workload, endpoint: ReplayEndpoint
) -> None:
    endpoint.script = lambda shown: "A"
    result = run(home, "qualify", "better", "--gold", GOLD_PAIRS, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["qualified"] is False
    assert "swap_consistency 0.000" in "; ".join(found["reasons"])
    standing = json.loads(run(home, "list", "--json").stdout)[0]
    assert standing["state"] == "failed"
    assert "swap_consistency 0.000" in standing["reason"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nobody", "--gold", GOLD_PAIRS], "no judge 'nobody'; there are: better, good"),
        (["better", "--gold", "nowhere.jsonl"], "nowhere.jsonl: 1 problem"),
        (["better", "--from-lake"], "no adjudicated label named better of triage"),
    ],
)
def test_a_mistake_is_told_and_nothing_asked(
    home: Path, workload: Workload, endpoint: ReplayEndpoint, args: list[str], told: str
) -> None:
    result = run(home, "qualify", *args)
    assert result.exit_code == 1
    assert told in str(result.exception)
    assert endpoint.shown == []


@pytest.mark.parametrize("args", [[], ["--gold", GOLD_PAIRS, "--from-lake"]])
def test_gold_comes_from_one_place(home: Path, workload: Workload, args: list[str]) -> None:
    result = run(home, "qualify", "better", *args)
    assert result.exit_code == 2
    assert "give either --gold gold.jsonl or --from-lake" in result.stderr
