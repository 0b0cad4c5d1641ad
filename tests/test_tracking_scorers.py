"""MLflow's own scorers as graders: the real mlflow.genai, no model asked."""

import types
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.graders import build_graders
from flywheel.records import JsonObject
from flywheel.tracking_scorers import open_scorer
from flywheel.workload import Workload

ITEM: JsonObject = {
    "messages": [{"role": "user", "content": "My knee hurts."}],
    "reference": {"advice": "Rest it."},
}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a deployment with scorers in it."""
    import sys

    from mlflow.entities import Feedback
    from mlflow.genai import scorer

    made = types.ModuleType("deployed_scorers")

    def exact(outputs: str, expectations: dict[str, str]) -> bool:
        return outputs == expectations["advice"]

    def polite(inputs: dict[str, object], outputs: str) -> Feedback:
        return Feedback(value="no" if "!" in outputs else "yes", rationale="It does not shout.")

    def broken(outputs: str) -> bool:
        raise RuntimeError("no judge today")

    def vague(outputs: str) -> str:
        return "rather good"

    for name, value in {"exact": exact, "polite": polite, "broken": broken, "vague": vague}.items():
        setattr(made, name, scorer(value))
    made.plain = len  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deployed_scorers", made)
    return "deployed_scorers"


def test_a_scorers_verdict_is_the_score(module: str) -> None:
    exact = open_scorer(f"{module}:exact", {})
    assert [exact(text, ITEM).score for text in ("Rest it.", "Run.")] == [1.0, 0.0]
    polite = open_scorer(f"{module}:polite", {})("Rest it.", ITEM)
    assert (polite.score, polite.detail) == (1.0, "It does not shout.")


def test_a_scorer_that_fails_or_gives_no_number_is_an_error_and_no_zero(module: str) -> None:
    for name, told in {"broken": "no judge today", "vague": "rather good"}.items():
        result = open_scorer(f"{module}:{name}", {})("Rest it.", ITEM)
        assert (result.score, result.error_type) == (None, "mlflow_scorer")
        assert told in str(result.detail)


def test_one_of_mlflows_own_is_known_by_its_name() -> None:
    """RegexMatch asks no model."""
    found = open_scorer("RegexMatch", {"pattern": "rest"})
    assert isinstance(found("please rest", ITEM).score, float)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("Corectness", {}, "no scorer 'Corectness': it is package.module:name, or one of"),
        ("deployed_scorers:plain", {}, "is no scorer"),
        ("deployed_scorers:exact", {"model": "x"}, "is made already"),
        ("not_installed_here:exact", {}, "cannot be imported"),
        ("RegexMatch", {"colour": "red"}, "RegexMatch does not take these arguments"),
    ],
)
def test_a_scorer_that_is_not_there_is_told(
    module: str, name: str, arguments: JsonObject, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        open_scorer(name, arguments)


def test_a_scorer_is_a_grader_of_the_workload(tmp_path: Path, module: str) -> None:
    (tmp_path / "flywheel.yaml").write_text(
        "name: triage\nalias: triage\nbase_model: m\nlabels: {name: urgency}\n"
        f"graders: {{g: {{type: x-mlflow, scorer: '{module}:exact'}},"
        " h: {type: x-mlflow, scorer: Corectness}}\n"
        "gate: {suite: s.jsonl, target: {grader: g}}\n"
    )
    workload = Workload.load(tmp_path / "flywheel.yaml")
    grader = build_graders({"g": workload.graders["g"]}, models_of=workload)["g"]
    assert grader.grade("Rest it.", ITEM).score == 1.0
    with pytest.raises(ConfigError, match="h.scorer: no scorer 'Corectness'"):
        build_graders(workload.graders, models_of=workload)
