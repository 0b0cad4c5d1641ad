"""`flywheel judge run` and `flywheel judge cache`, as a person types them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from flywheel.cli import app
from flywheel.cli.judging import find_judge
from flywheel.errors import ConfigError, JudgeBudgetError, JudgeError, JudgeNotQualifiedError
from flywheel.lake import Lake
from tests.label.judging.conftest import Office, Server, endpoint, qualified

Flywheel = Callable[..., Result]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with endpoint() as started:
        yield started


@pytest.fixture
def office(tmp_path: Path, server: Server) -> Office:
    (tmp_path / "home").mkdir()
    office = Office(tmp_path, Lake(str(tmp_path / "home" / "lake")))
    office.answers(6)
    office.lake.append([qualified(find_judge(office.declare(server), "helpful"))])
    return office


@pytest.fixture
def flywheel(office: Office) -> Flywheel:
    def call(*arguments: str) -> Result:
        workload = ["--workload", str(office.workload_file)] if arguments[1] == "run" else []
        options = ["--home", str(office.home), *workload]
        return CliRunner().invoke(app, ["judge", *arguments[1:], *options], catch_exceptions=True)

    return call


def test_a_run_tells_what_it_did_and_the_next_one_that_nothing_is_left(flywheel: Flywheel) -> None:
    first = flywheel("judge", "run", "helpful", "--json")
    assert first.exit_code == 0, first.output
    report = json.loads(first.stdout)
    assert (report["state"], report["judged"], report["cost_usd"]) == ("valid", 6, None)
    second = json.loads(flywheel("judge", "run", "helpful", "--json").stdout)
    assert (second["state"], second["judged_before"]) == ("nothing", 6)


def test_a_dry_run_counts_calls_and_asks_nothing(
    flywheel: Flywheel, office: Office, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = office.folder / "prices.yaml"
    prices.write_text("judge-*: {input: 1, output: 2}\n".replace("judge-*", '"judge-*"'))
    monkeypatch.setenv("FLYWHEEL_PRICES", str(prices))
    asked = server.stats()["asked"]
    found = json.loads(flywheel("judge", "run", "helpful", "--dry-run", "--json").stdout)
    assert (found["selected"], found["calls"]) == (6, 6)
    assert found["worst_tokens"] > 6 * 64
    half = flywheel("judge", "run", "helpful", "--dry-run", "--batch", "--json")
    assert json.loads(half.stdout)["worst_usd"] == pytest.approx(found["worst_usd"] / 2)
    assert server.stats()["asked"] == asked
    assert office.sql("select * from judge_runs") == []


def test_an_unknown_judge_is_told_with_those_there_are(flywheel: Flywheel) -> None:
    result = flywheel("judge", "run", "helpfull")
    assert isinstance(result.exception, ConfigError)
    assert "no judge 'helpfull'; there are: helpful, better" in str(result.exception)


def test_a_judge_that_gates_labels_nothing(flywheel: Flywheel, office: Office) -> None:
    text = office.workload_file.read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    data["judges"]["helpful"]["purpose"] = "gate"
    data["judges"]["helpful"]["allow_label_and_gate"] = True
    office.workload_file.write_text(yaml.safe_dump(data), encoding="utf-8")
    for options in ((), ("--dry-run",)):
        result = flywheel("judge", "run", "helpful", *options)
        assert isinstance(result.exception, JudgeError)
        assert "judges.helpful.purpose" in str(result.exception)
    assert office.sql("select * from assessments") == []


def test_an_expired_judge_labels_nothing(
    flywheel: Flywheel, office: Office, server: Server
) -> None:
    workload = office.declare(server)
    office.lake.append([qualified(find_judge(workload, "better"), days=-1)])
    result = flywheel("judge", "run", "better")
    assert isinstance(result.exception, JudgeNotQualifiedError)
    assert "expired" in str(result.exception)
    assert "`flywheel judge qualify better --gold gold.jsonl`" in str(result.exception)
    assert office.sql("select * from assessments") == []


def test_a_budget_of_zero_is_refused_with_what_to_change(
    flywheel: Flywheel, office: Office, server: Server
) -> None:
    office.declare(server, run={"budget_usd": 0})
    result = flywheel("judge", "run", "helpful")
    assert isinstance(result.exception, JudgeBudgetError)
    assert "raise judges.*.run.budget_usd" in str(result.exception)


def test_the_cache_shows_its_size_and_forgets(flywheel: Flywheel) -> None:
    flywheel("judge", "run", "helpful", "--json")
    assert json.loads(flywheel("judge", "cache", "--json").stdout)["replies"] == 6
    one = flywheel("judge", "cache", "--erase-interaction", "base-00003", "--json")
    assert json.loads(one.stdout)["replies"] == 5
    assert "1 replies forgotten" in one.stderr
    assert json.loads(flywheel("judge", "cache", "--clear", "--json").stdout)["replies"] == 0
