"""A judge on loopback answers gold items: through client, runner, lake and MLflow as in earnest."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flywheel.errors import JudgeBudgetError, JudgeError, UpstreamUnavailableError
from flywheel.judges import JudgeRunSection
from flywheel.label.judging import JudgeDesk
from flywheel.label.qualifying import GoldItem, qualify, read_gold, require_qualified
from flywheel.lake import Lake
from flywheel.records import Qualification
from flywheel.tracking import Tracker
from flywheel.workload import Workload
from tests.label.qualifying.material import GOLD, write_workload
from tests.label.qualifying.replay import ReplayEndpoint

if TYPE_CHECKING:
    from mlflow import MlflowClient

MakeDesk = Callable[..., JudgeDesk]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
FEW = {"minimum_items": 14, "swap_consistency": 0.7, "length_bias": 0.3}
"""Bars that so few items can clear."""


def mlflow_at(tracker: Tracker) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri)


def gold_of(desk: JudgeDesk) -> list[GoldItem]:
    file = "better_answer.jsonl" if desk.judge.name == "better" else "safe_advice.jsonl"
    return read_gold(GOLD / file, desk.judge)


def few(desk: JudgeDesk) -> list[GoldItem]:
    """As many as `FEW` asks for."""
    return gold_of(desk)[:16]


def written(lake: Lake) -> list[Qualification]:
    return lake.fetch(Qualification, "SELECT * FROM qualifications ORDER BY created_at")


@pytest.mark.parametrize("name", ["better", "good"])
async def test_a_judge_that_knows_the_gold_qualifies_and_leaves_its_evidence(
    workload: Workload,
    desk: MakeDesk,
    lake: Lake,
    tracker: Tracker,
    endpoint: ReplayEndpoint,
    name: str,
    tmp_path: Path,
) -> None:
    at = desk(workload, name)
    gold = gold_of(at)
    seen: list[int] = []
    report = await qualify(
        at, gold, tracker=tracker, now=NOON, on_progress=lambda done, _: seen.append(done)
    )
    found = report.qualification
    assert (found.qualified, found.reasons, found.errors) == (True, (), 0)
    assert written(lake) == [found]
    assert require_qualified(lake, workload, at.judge, now=NOON) == found
    assert seen == list(range(1, len(gold) + 1))
    calls = 2 * len(gold) if name == "better" else len(gold)
    assert len(endpoint.shown) == calls, "a pair is asked in both orders"

    client = mlflow_at(tracker)
    run = client.get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["qualified"] == "true"
    assert run.data.metrics["kappa"] == 1
    assert run.data.metrics["accuracy"] == 1
    assert run.data.metrics["input_tokens"] == 100 * calls
    assert "cost_usd" not in run.data.metrics, "without a price a cost is unknown, not 0"
    assert run.data.params["bars.kappa"] == "0.4"
    files = {artifact.path for artifact in client.list_artifacts(found.run_id)}
    assert {"confusion.png", "intervals.png", "items.json", "measures.json"} <= files
    table = json.loads(
        Path(client.download_artifacts(found.run_id, "items.json", str(tmp_path))).read_text()
    )
    assert len(table["data"]) == len(gold)
    picture = Path(client.download_artifacts(found.run_id, "confusion.png", str(tmp_path)))
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_a_judge_that_always_prefers_the_first_shown_does_not_qualify(
    tmp_path: Path, desk: MakeDesk, lake: Lake, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    endpoint.script = lambda shown: "A"
    at = desk(write_workload(tmp_path, endpoint.base_url, bars=FEW))
    report = await qualify(at, few(at), tracker=tracker, now=NOON)
    assert not report.qualification.qualified
    measures = {measure.name: measure.value for measure in report.qualification.measures}
    assert measures["swap_consistency"] == 0
    assert measures["kappa"] is not None and measures["kappa"] < 0.1
    assert written(lake) == [report.qualification], "a failure is known, too"


async def test_measurements_and_their_gold_sets_are_counted_and_less_gold_does_not_do(
    tmp_path: Path, desk: MakeDesk, lake: Lake, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    knowing, endpoint.script = endpoint.script, lambda shown: "A"
    at = desk(write_workload(tmp_path, endpoint.base_url, bars=FEW))
    await qualify(at, few(at), tracker=tracker, now=NOON)
    endpoint.script = knowing
    less = await qualify(at, few(at)[:14], tracker=tracker, now=NOON + timedelta(hours=1))
    assert "a pass on 14 gold items does not make up" in " ".join(less.qualification.reasons)
    same = await qualify(at, few(at), tracker=tracker, now=NOON + timedelta(hours=2))
    assert same.qualification.qualified
    assert (same.measurements, same.gold_sets) == (3, 2)
    metrics = mlflow_at(tracker).get_run(same.qualification.run_id).data.metrics
    assert (metrics["measurements"], metrics["gold_sets"]) == (3, 2)
    later = NOON + timedelta(hours=3)
    assert require_qualified(lake, at.workload, at.judge, now=later) == same.qualification


async def test_a_panel_is_its_majority(
    tmp_path: Path, desk: MakeDesk, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    """Two know the gold, one always says B: the panel knows the gold."""
    knows = endpoint.script
    endpoint.script = lambda shown: "B" if shown.model == "contrary" else knows(shown)
    seats = [{"provider": "hosted", "model": model} for model in ("one", "two", "contrary")]
    at = desk(write_workload(tmp_path, endpoint.base_url, panel=seats, bars=FEW))
    report = await qualify(at, few(at), tracker=tracker, now=NOON)
    assert report.qualification.qualified
    assert report.qualification.judge_model == "one + two + contrary"
    assert report.accuracy is not None and report.accuracy.mean == 1


async def test_garbage_is_counted_apart_and_too_much_of_it_disqualifies(
    tmp_path: Path, desk: MakeDesk, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    knows = endpoint.script
    at = desk(write_workload(tmp_path, endpoint.base_url, bars=FEW))
    gold = few(at)
    ill = {item.messages[-1].text for item in gold[:2]}
    endpoint.script = lambda shown: None if shown.question in ill else knows(shown)
    report = await qualify(at, gold, tracker=tracker, now=NOON)
    found = report.qualification
    assert (found.errors, found.qualified) == (2, False)
    assert found.measures[0].value == 1, "what it said was right"
    assert "it failed on 2 of 16 items (judge_garbage 2)" in found.reasons[0]


async def test_without_mlflow_nothing_is_asked_and_nothing_written(
    workload: Workload, desk: MakeDesk, lake: Lake, endpoint: ReplayEndpoint
) -> None:
    at = desk(workload)
    with pytest.raises(UpstreamUnavailableError, match="127.0.0.1:9"):
        await qualify(at, gold_of(at), tracker=Tracker("http://127.0.0.1:9"), now=NOON)
    assert endpoint.shown == []
    assert written(lake) == []


async def test_too_few_gold_items_ask_nothing(
    workload: Workload, desk: MakeDesk, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    at = desk(workload)
    with pytest.raises(JudgeError, match="Nothing was asked"):
        await qualify(at, gold_of(at)[:49], tracker=tracker, now=NOON)
    assert endpoint.shown == []


async def test_a_budget_spent_in_the_middle_writes_nothing_and_a_larger_one_goes_on(
    tmp_path: Path, desk: MakeDesk, lake: Lake, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    run = {"max_concurrency": 2, "budget_tokens": 4_000}
    poor = desk(write_workload(tmp_path, endpoint.base_url, run=run, bars=FEW))
    with pytest.raises(JudgeBudgetError, match="stopped at its budget"):
        await qualify(poor, few(poor), tracker=tracker, now=NOON)
    assert written(lake) == []
    (begun,) = mlflow_at(tracker).search_runs(["1"])
    assert begun.info.status == "FAILED"
    asked = len(endpoint.shown)
    assert 0 < asked < 32
    rich = replace(
        poor,
        judge=replace(
            poor.judge,
            section=poor.judge.section.model_copy(update={"run": JudgeRunSection()}),
        ),
    )
    report = await qualify(rich, few(rich), tracker=tracker, now=NOON)
    assert report.qualification.qualified
    assert len(endpoint.shown) == 32, "what was answered was not asked, nor paid, again"


async def test_a_budget_of_zero_asks_nothing(
    tmp_path: Path, desk: MakeDesk, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    at = desk(write_workload(tmp_path, endpoint.base_url, run={"budget_tokens": 0}))
    with pytest.raises(JudgeBudgetError):
        await qualify(at, gold_of(at), tracker=tracker, now=NOON)
    assert endpoint.shown == []


async def test_a_new_measurement_asks_anew(
    tmp_path: Path, desk: MakeDesk, lake: Lake, tracker: Tracker, endpoint: ReplayEndpoint
) -> None:
    """A hosted model changes under its name: answers of last month would qualify what is gone."""
    at = desk(write_workload(tmp_path, endpoint.base_url, bars=FEW))
    await qualify(at, few(at), tracker=tracker, now=NOON)
    endpoint.script = lambda shown: "A"
    later = NOON + timedelta(minutes=1)
    report = await qualify(at, few(at), tracker=tracker, now=later)
    assert not report.qualification.qualified
    assert [one.qualified for one in written(lake)] == [True, False]
    assert not list((at.folder / "qualifying").glob("*")), "and keeps nothing of it"
