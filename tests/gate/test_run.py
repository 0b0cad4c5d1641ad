"""A gate run whole: real lake, real MLflow, a scripted model."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from flywheel.errors import ConfigError, GateError, UpstreamUnavailableError
from flywheel.gate import run_gate
from flywheel.gate.run import refuse_own_homework
from flywheel.lake import Lake
from flywheel.records import Decision, JsonObject, Message
from flywheel.testing import ScriptedChatModel
from flywheel.tracking import Tracker
from flywheel.workload import Workload
from tests.gate.conftest import URGENCIES, WORKLOAD


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def tracker(tracking_uri: str) -> Tracker:
    return Tracker(tracking_uri)


def answer(model: str, messages: Sequence[Message]) -> str:
    """`good` is right, `base` writes no JSON, `cautious` says emergency to all."""
    truth = URGENCIES[int(messages[-1].text.split()[-1]) % 3]
    if model == "base":
        return "I would see a doctor."
    return json.dumps({"urgency": truth if model == "good" else "emergency"})


async def gate(
    lake: Lake,
    tracker: Tracker,
    workload: Workload,
    chat: ScriptedChatModel,
    candidate: str = "good",
    champion: str = "base",
) -> Decision:
    return await run_gate(lake, tracker, workload, chat, candidate=candidate, champion=champion)


async def test_a_better_candidate_passes_and_leaves_its_evidence(
    lake: Lake, tracker: Tracker, workload: Workload
) -> None:
    decision = await gate(lake, tracker, workload, ScriptedChatModel(answer))
    assert decision.verdict == "PASS"
    names = [one.name for one in decision.comparisons]
    assert names == ["accuracy", "valid_json", "emergency_recall", "never_again"]
    assert lake.fetch(Decision, "select * from decisions") == [decision]
    answers = lake.query(
        "select role, model, count(*) as n, avg(cast(scores ->> 'correct' as double)) as right "
        "from evaluations group by all order by role"
    ).to_pylist()
    assert answers == [
        {"role": "candidate", "model": "good", "n": 30, "right": 1.0},
        {"role": "champion", "model": "base", "n": 30, "right": 0.0},
    ]


async def test_mlflow_has_the_numbers_the_items_and_the_pictures(
    lake: Lake, tracker: Tracker, workload: Workload, tracking_uri: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    decision = await gate(lake, tracker, workload, ScriptedChatModel(answer))
    assert decision.run_id is not None
    client = MlflowClient(tracking_uri)
    run = client.get_run(decision.run_id)
    assert run.info.run_name == "gate good"
    assert run.info.status == "FINISHED"
    assert run.data.tags["decision"] == "PASS"
    assert run.data.tags["decision_id"] == decision.decision_id
    assert run.data.metrics["candidate.accuracy"] == 1
    assert run.data.metrics["champion.accuracy"] == 0
    assert run.data.metrics["difference.accuracy_low"] == pytest.approx(
        decision.comparisons[0].difference.low
    )
    assert run.data.metrics["items.emergency_recall"] == 10
    artifacts = {found.path for found in client.list_artifacts(decision.run_id)}
    assert artifacts == {
        "agreement.png",
        "comparisons.json",
        "decision.json",
        "intervals.png",
        "items.json",
    }
    path = client.download_artifacts(decision.run_id, "items.json", str(tmp_path))
    table = json.loads(Path(path).read_text(encoding="utf-8"))
    assert len(table["data"]) == 30
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert first["champion_output"] == "I would see a doctor."
    assert (first["champion.correct"], first["candidate.correct"]) == (0, 1)


async def test_asking_again_returns_the_decision_there_is(
    lake: Lake, tracker: Tracker, workload: Workload
) -> None:
    """Otherwise anybody could ask until chance says PASS."""
    first = await gate(lake, tracker, workload, ScriptedChatModel(answer))
    chat = ScriptedChatModel(lambda model, messages: "something else now")
    assert await gate(lake, tracker, workload, chat) == first
    assert chat.calls == []


async def test_other_rules_are_another_decision(
    lake: Lake, tracker: Tracker, workload: Workload, workload_file: Path
) -> None:
    first = await gate(lake, tracker, workload, ScriptedChatModel(answer))
    workload_file.write_text(WORKLOAD.replace("margin: 0.1", "margin: 0.2"), encoding="utf-8")
    second = await gate(lake, tracker, Workload.load(workload_file), ScriptedChatModel(answer))
    assert first.decision_id != second.decision_id


async def test_answers_there_are_are_not_asked_for_again_when_mlflow_was_down(
    lake: Lake, tracker: Tracker, workload: Workload
) -> None:
    with pytest.raises(UpstreamUnavailableError):
        await gate(lake, Tracker("http://127.0.0.1:9"), workload, ScriptedChatModel(answer))
    assert lake.fetch(Decision, "select * from decisions") == []
    chat = ScriptedChatModel(answer)
    decision = await gate(lake, tracker, workload, chat)
    assert decision.verdict == "PASS"
    assert chat.calls == []


async def test_a_worse_candidate_fails(lake: Lake, tracker: Tracker, workload: Workload) -> None:
    """`cautious` gets every emergency right and all else wrong; emergencies do not save it."""
    decision = await gate(
        lake, tracker, workload, ScriptedChatModel(answer), candidate="cautious", champion="good"
    )
    verdicts = {one.name: one.verdict for one in decision.comparisons}
    assert decision.verdict == "FAIL"
    assert verdicts["accuracy"] == "FAIL"
    assert verdicts["emergency_recall"] != "FAIL"
    assert verdicts["never_again"] == "FAIL"


async def test_the_champion_may_not_be_gated_against_itself(
    lake: Lake, tracker: Tracker, workload: Workload
) -> None:
    with pytest.raises(GateError, match="'good' is what serves now"):
        await gate(lake, tracker, workload, ScriptedChatModel(answer), champion="good")


async def test_a_guardrail_without_items_is_told_before_anything_is_asked(
    lake: Lake, tracker: Tracker, workload_file: Path
) -> None:
    workload_file.write_text(WORKLOAD.replace("urgency: emergency", "urgency: mild"), "utf-8")
    chat = ScriptedChatModel(answer)
    with pytest.raises(GateError, match="emergency_recall"):
        await gate(lake, tracker, Workload.load(workload_file), chat)
    assert chat.calls == []


async def test_a_suite_that_is_missing_is_told(
    lake: Lake, tracker: Tracker, workload: Workload
) -> None:
    workload.suite_path.unlink()
    with pytest.raises(ConfigError, match=r"holdout\.jsonl"):
        await gate(lake, tracker, workload, ScriptedChatModel(answer))


FORMAT: JsonObject = {"type": "x-json_schema", "schema": {"type": "object"}}


def taught_by(workload: Workload, **graders: JsonObject) -> Workload:
    labels = workload.labels.model_copy(update={"graders": tuple(graders)})
    return workload.model_copy(
        update={"labels": labels, "graders": {**workload.graders, **graders}}
    )


def test_a_grader_that_made_the_labels_may_not_gate_them(workload: Workload) -> None:
    """`urgency` is the label's name, so a code grader of that name teaches it."""
    target = workload.gate.target.model_copy(update={"grader": "urgency"})
    gate = workload.gate.model_copy(update={"target": target})
    marked = taught_by(workload, urgency=FORMAT).model_copy(update={"gate": gate})
    with pytest.raises(GateError, match="urgency made the labels 'urgency'"):
        refuse_own_homework(marked)


def test_the_same_grader_under_another_name_may_not_gate_either(workload: Workload) -> None:
    with pytest.raises(GateError, match="valid_json made the labels"):
        refuse_own_homework(taught_by(workload, urgency=workload.graders["valid_json"]))


def test_a_grader_that_only_watches_may_gate(workload: Workload) -> None:
    """Its assessments are not under the label's name, so that nothing learns from them."""
    refuse_own_homework(taught_by(workload, valid_json=workload.graders["valid_json"]))
    refuse_own_homework(taught_by(workload, urgency=FORMAT))
