import json

import pytest
from deltalake import DeltaTable
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from flywheel.cli.night import NightReport, night
from flywheel.cli.steps import Place
from flywheel.errors import NightRunningError
from flywheel.lake import Lake
from flywheel.records import Decision
from flywheel_flows.nightly import nightly
from tests.flows.conftest import Teach
from tests.loopback import AdminPort, Replica

# The first test of the session pays for Prefect's server and for importing torch.
pytestmark = pytest.mark.timeout(900)


def turn(place: Place) -> tuple[State[State[object]], NightReport]:
    """One night, and the newest report."""
    state = nightly(place, return_state=True)
    return state, reports(place)[-1]


def reports(place: Place) -> list[NightReport]:
    assert place.home is not None
    folder = place.home / "runs" / "nights"
    return [NightReport.read(path) for path in sorted(folder.glob("*.json"))]


def artifacts() -> dict[str, str]:
    """Newest artifact of each key: a page's Markdown, or a table as JSON."""
    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/latest/filter", json={}).json()
    return {one["key"]: str(one["data"]) for one in found}


def training_runs(place: Place) -> int:
    from mlflow import MlflowClient

    settings, _ = place.load()
    client = MlflowClient(settings.tracking_uri, registry_uri=settings.tracking_uri)
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.stage = 'train'")
    return len(runs)


def test_a_night_with_too_few_labels_is_held_and_says_so(place: Place, teach: Teach) -> None:
    teach(3)
    state, report = turn(place)
    assert (state.name, state.is_completed()) == ("Held", True)
    assert "3 new labels since the last night, 6 are needed" in str(state.message)
    assert (report.outcome, report.snapshot_id, report.adapter) == ("held", None, None)
    assert report.reason == state.message
    pages = artifacts()
    assert "3 new labels" in pages["triage-nightly-page"]
    assert "3 new labels" in pages["triage-dataset-page"]


@pytest.mark.usefixtures("reuse_training")
def test_a_night_that_failed_at_promotion_is_finished_by_the_next_without_training_again(
    place: Place, lake: Lake, replica: Replica, gateway: AdminPort, teach: Teach
) -> None:
    teach(8)
    knows = replica.answer

    def down_at_promotion(model: str, messages: list[dict[str, str]]) -> str:
        if messages[-1]["content"] == "Are you there?":
            raise ConnectionError("the engine fell over")
        return knows(model, messages)

    replica.answer = down_at_promotion
    state, failed = turn(place)
    assert state.is_failed()
    assert failed.outcome == "failed"
    assert "is not available" in failed.reason
    assert failed.verdict == "PASS"
    assert lake.current_release("triage") is None
    assert gateway.served == {}

    replica.answer = knows
    questions = replica.questions
    state, report = turn(place)
    assert (state.name, report.outcome) == ("Released", "released")
    assert (report.snapshot_id, report.adapter) == (failed.snapshot_id, failed.adapter)
    assert report.decision_id == failed.decision_id
    assert training_runs(place) == 1
    assert replica.questions - questions == 1, "only the verification asks: the gate had decided"
    release = lake.current_release("triage")
    assert release is not None
    assert (release.model, release.epoch, release.actor) == (report.adapter, 1, "nightly")
    assert gateway.served["triage"] == release
    pages = artifacts()
    assert "**PASS**" in pages["triage-gate-page"]
    assert str(report.adapter) in pages["triage-nightly"]
    assert {"triage-capture", "triage-label", "triage-train-page"} <= set(pages)

    state, third = turn(place)
    assert (state.name, third.outcome) == ("Held", "held")
    assert "0 new labels" in third.reason
    assert third.champion == report.adapter


@pytest.mark.usefixtures("reuse_training")
def test_a_candidate_that_is_no_better_is_held_and_nothing_moves(
    place: Place, lake: Lake, replica: Replica, teach: Teach
) -> None:
    teach(8)
    replica.answer = lambda model, messages: "no idea"
    state, report = turn(place)
    assert (state.name, report.outcome) == ("Held", "held")
    assert report.verdict in ("FAIL", "INCONCLUSIVE")
    assert report.reason.startswith(f"the gate said {report.verdict} to {report.adapter}")
    assert lake.releases("triage") == []
    decisions = lake.fetch(Decision, "select * from decisions")
    assert [decision.decision_id for decision in decisions] == [report.decision_id]


def test_two_nights_of_one_workload_do_not_overlap(place: Place) -> None:
    with night(place):
        state = nightly(place, return_state=True)
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, NightRunningError)
    assert "going on already" in str(error)


def test_a_night_whose_lake_is_of_a_newer_flywheel_fails_and_still_leaves_a_report(
    place: Place, lake: Lake, teach: Teach
) -> None:
    teach(1)
    newer = {"flywheel.schemaVersion": "99"}
    table = DeltaTable(f"{lake.root}/interactions")
    table.alter.set_table_properties(newer, raise_if_not_exists=False)
    state, report = turn(place)
    assert state.is_failed()
    assert report.outcome == "failed"
    assert "schema version 99" in report.reason


def test_the_report_is_json_a_script_can_read(place: Place, teach: Teach) -> None:
    turn(place)
    assert place.home is not None
    path = next((place.home / "runs" / "nights").glob("*.json"))
    assert json.loads(path.read_text())["outcome"] == "held"
    assert path.name == f"{NightReport.read(path).night_id}.json"
