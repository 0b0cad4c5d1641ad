import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.capture import Spool, drain
from flywheel.cli import app
from flywheel.errors import PromotionError
from flywheel.promote import Fleet
from flywheel.records import JsonObject
from tests.capture.records import exchange
from tests.loopback import TOKEN, AdminPort, Replica
from tests.promote.conftest import MakeAdapter, MakeDecision

Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path,
    fleet: Fleet,
    workload_file: Path,
    gateway: AdminPort,
    replicas: tuple[Replica, Replica],
) -> Run:
    """`flywheel …` in the fleet's home; what it printed on stdout."""
    facts: JsonObject = {
        "engine_urls": [replica.url for replica in replicas],
        "gateway_admin_url": gateway.url,
        "mlflow_tracking_uri": fleet.tracker.uri,
    }
    (tmp_path / "deployment.json").write_text(json.dumps(facts), encoding="utf-8")
    (tmp_path / "admin-token").write_text(TOKEN, encoding="utf-8")

    def call(*arguments: str) -> str:
        options = ["--home", str(tmp_path), "--workload", str(workload_file)]
        result = CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_promote_rollback_and_roll_forward_move_the_alias_and_mlflow(
    run: Run, fleet: Fleet, gateway: AdminPort, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    released = json.loads(run("promote", "--actor", "anna", "--json"))
    assert (released["model"], released["actor"]) == (candidate.name, "anna")

    assert f"before: {candidate.name}" in " ".join(run("rollback", "--reason", "terse").split())
    assert fleet.history()[-1].reason == "terse"
    assert fleet.tracker.aliases("triage") == {"previous": candidate.name}

    forward = json.loads(run("roll-forward", "--json"))
    assert (forward["action"], forward["epoch"]) == ("roll_forward", 3)
    assert fleet.tracker.aliases("triage") == {"champion": candidate.name}
    assert gateway.served["triage"].epoch == 3


def test_promoting_without_a_pass_is_refused(run: Run, adapter: MakeAdapter) -> None:
    candidate = adapter(1)
    with pytest.raises(PromotionError, match="never judged"):
        run("promote", "--adapter", candidate.name)


def test_rolling_back_with_nothing_to_roll_back_to_is_refused(run: Run) -> None:
    with pytest.raises(PromotionError, match="nothing to roll back to"):
        run("rollback")


def test_status_is_readable_and_json_and_survives_everything_being_down(
    run: Run, replicas: tuple[Replica, Replica], gateway: AdminPort
) -> None:
    report = json.loads(run("status", "--json"))
    assert (report["epoch"], report["champion"], report["new_labels"]) == (0, "some/base", 0)
    assert report["problems"] == []
    for server in (*replicas, gateway):
        server.stop()
    assert "DOWN" in run("status")
    assert len(json.loads(run("status", "--json"))["problems"]) == 3


def test_status_shows_what_became_of_every_captured_call_and_that_it_adds_up(
    run: Run, tmp_path: Path, fleet: Fleet
) -> None:
    """Of five: one answered with HTML, one twice, one no UTF-8 and one not drained yet."""
    once = exchange()
    with Spool(tmp_path / "spool") as spool:
        for record in (once, once, exchange(response="<html>")):
            assert spool.append("exchange", record)
        broken = exchange().model_copy(update={"response": "\ud800"})
        assert not spool.append("exchange", broken)
    drain(tmp_path / "spool", fleet.lake)
    with Spool(tmp_path / "spool") as spool:
        assert spool.append("exchange", exchange())

    captured = json.loads(run("status", "--json"))["captured"]
    assert captured == {
        **{"accepted": 5, "spooled": 4, "pending": 0, "dropped": {"invalid": 1}, "late": 0},
        **{"drained": 3, "committed": 1, "quarantined": 1, "duplicates": 1, "waiting": 1},
        **{"difference": 0, "adds_up": True},
    }
    shown = " ".join(run("status").split())
    assert "5 accepted = 4 spooled + 0 pending + 1 dropped (invalid 1)" in shown
    assert "4 spooled = 3 drained + 1 waiting" in shown
    assert "3 drained = 1 committed + 1 quarantined + 1 duplicates" in shown


def test_status_repairs_a_replica_that_lost_the_champion(
    run: Run,
    replicas: tuple[Replica, Replica],
    adapter: MakeAdapter,
    decide: MakeDecision,
) -> None:
    candidate = adapter(1)
    decide(candidate)
    run("promote")
    replicas[0].adapters.clear()
    assert len(json.loads(run("status", "--json"))["problems"]) == 1
    assert json.loads(run("status", "--repair", "--json"))["problems"] == []
    assert candidate.name in replicas[0].adapters
