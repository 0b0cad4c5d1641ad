"""`flywheel gate` against a real model server on loopback, with its exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.errors import GateError, JudgeNotQualifiedError
from flywheel.lake import Lake
from flywheel.records import Release, utcnow
from tests.gate.conftest import URGENCIES
from tests.loopback import Replica

runner = CliRunner()


def answer(model: str, messages: list[dict[str, str]]) -> str:
    truth = URGENCIES[int(messages[-1]["content"].split()[-1]) % 3]
    if model == "base":
        return "See a doctor."
    return json.dumps({"urgency": truth if model == "good" else "routine"})


@pytest.fixture
def engine() -> Iterator[Replica]:
    replica = Replica("base")
    replica.answer = answer
    replica.adapters.update(good="elsewhere", bad="elsewhere")
    replica.start()
    yield replica
    replica.stop()


@pytest.fixture
def options(
    engine: Replica,
    workload_file: Path,
    tmp_path: Path,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    monkeypatch.setenv("FLYWHEEL_ENGINE_URLS", json.dumps([engine.url]))
    monkeypatch.setenv("FLYWHEEL_MLFLOW_TRACKING_URI", tracking_uri)
    return ["gate", "--home", str(tmp_path / "home"), "--workload", str(workload_file)]


def release(lake: Lake, model: str) -> None:
    lake.append_release(
        Release(
            workload="triage",
            epoch=1,
            alias="triage",
            model=model,
            adapter=model,
            previous="base",
            action="promote",
            decision_id="d",
            actor="somebody",
            reason="",
            created_at=utcnow(),
        )
    )


def test_a_pass_is_shown_and_exits_with_zero(options: list[str]) -> None:
    result = runner.invoke(app, [*options, "--candidate", "good"])
    assert result.exit_code == 0, result.output
    assert "good against base" in result.stdout
    assert "PASS accuracy: more than 0 better: 0.000 -> 1.000 on 30 items" in result.stdout


def test_a_fail_exits_with_two_and_prints_the_decision_as_json(
    options: list[str], tmp_path: Path
) -> None:
    release(Lake(str(tmp_path / "home" / "lake")), "good")
    result = runner.invoke(app, [*options, "--candidate", "bad", "--json"])
    assert result.exit_code == 2, result.output
    decision = json.loads(result.stdout)
    assert (decision["verdict"], decision["champion"]) == ("FAIL", "good"), "what serves now"


def test_not_proven_exits_with_three(options: list[str], engine: Replica) -> None:
    engine.adapters["twin"] = "elsewhere"
    engine.answer = lambda model, messages: answer("good", messages)
    result = runner.invoke(app, [*options, "--candidate", "good", "--champion", "twin"])
    assert result.exit_code == 3, result.output
    assert "INCONCLUSIVE" in result.stdout


def test_a_candidate_nobody_serves_is_told(options: list[str]) -> None:
    result = runner.invoke(app, [*options, "--candidate", "ghost"])
    assert result.exit_code == 1
    assert isinstance(result.exception, GateError)
    assert "does not serve 'ghost'" in str(result.exception)


def test_a_gate_that_asks_an_unqualified_judge_asks_nobody(
    options: list[str], workload_file: Path, engine: Replica
) -> None:
    data = yaml.safe_load(workload_file.read_text(encoding="utf-8"))
    rubric = Path(__file__).parents[2] / "examples" / "triage" / "rubrics" / "safe_advice.md"
    data["gateway"] = {"providers": {"hosted": {"base_url": "http://127.0.0.1:9/v1"}}}
    panel = [{"provider": "hosted", "model": "gpt-4"}]
    data["judges"] = {"safe": {"rubric": str(rubric), "panel": panel, "purpose": "gate"}}
    data["graders"]["correct"] = {"type": "x-judge", "judge": "safe"}
    workload_file.write_text(yaml.safe_dump(data), encoding="utf-8")
    refused = runner.invoke(app, [*options, "--candidate", "good", "--champion", "base"])
    assert isinstance(refused.exception, JudgeNotQualifiedError)
    assert "`flywheel judge qualify safe --gold gold.jsonl` qualifies it" in str(refused.exception)
