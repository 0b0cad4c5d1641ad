import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.judge_endpoint import chance, grade_of
from flywheel.errors import (
    ConfigError,
    JudgeBudgetError,
    JudgeNotQualifiedError,
    UpstreamUnavailableError,
)
from flywheel.label.judging import ReplyCache, Selection, judge_captured
from flywheel.label.judging.spending import open_spending
from flywheel.prices import PriceTable
from flywheel.records import JudgeRun, Message
from flywheel.testing import make_interaction
from tests.label.judging.conftest import GRADES, Office, Server, allowed, endpoint

Serve = Callable[..., Server]


def expected(count: int) -> dict[str, str]:
    return {f"base-{n:05}": grade_of(f"item-{n:05}", GRADES) for n in range(count)}


def given(office: Office) -> dict[str, str]:
    rows = office.sql("select interaction_id, label from labels where name = 'helpful'")
    return {row["interaction_id"]: row["label"] for row in rows}


async def test_every_answer_gets_the_grade_the_judge_gave_and_is_asked_once(
    office: Office, serve: Serve
) -> None:
    server = serve(latency_s=0.02)
    office.answers(40)
    workload = office.declare(server)
    report = await office.judge(workload)
    assert (report.state, report.judged, report.failed) == ("valid", 40, 0)
    assert given(office) == expected(40)
    assert (await office.judge(workload)).state == "nothing"
    stats = server.stats()
    assert (stats["completions"], stats["paid_twice"]) == (40, 0)


async def test_a_row_says_what_it_cost_and_with_which_probability_it_was_drawn(
    office: Office, serve: Serve
) -> None:
    """Prices of 1 and 2 USD a million: tokens in x 1e-6 + 10 x 2e-6."""
    office.answers(8)
    report = await office.judge(office.declare(serve()), limit=2)
    rows = office.sql(
        "select cost_usd, input_tokens, output_tokens, inclusion_prob from assessments"
    )
    assert len(rows) == 2
    for row in rows:
        assert row["output_tokens"] == 10
        assert row["cost_usd"] == pytest.approx(row["input_tokens"] * 1e-6 + 20e-6)
        assert row["inclusion_prob"] == 0.25
    assert report.cost_usd == pytest.approx(sum(row["cost_usd"] for row in rows))
    assert report.tokens == sum(row["input_tokens"] + 10 for row in rows)


async def test_a_cost_nobody_knows_is_null_and_not_nothing(office: Office, serve: Serve) -> None:
    office.answers(2)
    async with office.desk(office.declare(serve())) as desk:
        unpriced = type(desk)(**{**vars(desk), "prices": PriceTable({})})
        report = await judge_captured(unpriced, permission=allowed)
    assert report.cost_usd is None
    assert office.sql("select cost_usd from assessments") == [{"cost_usd": None}] * 2


async def test_a_sample_is_the_same_whenever_it_is_drawn_and_part_of_a_larger_one(
    office: Office, serve: Serve
) -> None:
    office.answers(60)
    workload = office.declare(serve())
    first = await office.judge(workload, sample=0.3, seed=5)
    assert 5 < first.judged < 35
    assert (await office.judge(workload, sample=0.3, seed=5)).state == "nothing"
    second = await office.judge(workload, sample=0.5, seed=5)
    assert second.judged_before == first.judged
    probabilities = office.sql(
        "select inclusion_prob, count(*) as n from assessments group by all order by 1"
    )
    assert probabilities == [
        {"inclusion_prob": 0.3, "n": first.judged},
        {"inclusion_prob": 0.5, "n": second.judged},
    ]


async def test_garbage_is_repaired_once_and_then_an_error_row_never_a_zero(
    office: Office, serve: Serve
) -> None:
    server = serve(garbage=0.2, stubborn=0.2)
    office.answers(40)
    stubborn = {f"base-{n:05}" for n in range(40) if chance("stubborn", f"item-{n:05}") < 0.2}
    assert 2 < len(stubborn) < 20
    workload = office.declare(server, run={"max_error_share": 0.9})
    report = await office.judge(workload)
    assert report.failed == len(stubborn)
    errors = office.sql(
        "select interaction_id, value, label, error_type from assessments where status = 'error'"
    )
    assert {row["interaction_id"] for row in errors} == stubborn
    assert {(row["value"], row["label"], row["error_type"]) for row in errors} == {
        (None, None, "judge_garbage")
    }
    assert given(office) == {
        key: label for key, label in expected(40).items() if key not in stubborn
    }
    assert server.stats()["paid_twice"] == 0


async def test_one_poisonous_item_is_one_error_row(office: Office, serve: Serve) -> None:
    office.answers(30)
    poison = make_interaction(
        interaction_id="poison", response=Message(role="assistant", content="POISON")
    )
    office.lake.append([poison])
    run = {"deadline_s": 2, "max_error_share": 0.1}
    report = await office.judge(office.declare(serve(latency_s=0.02), run=run))
    assert (report.state, report.judged, report.failed) == ("valid", 31, 1)
    errors = office.sql("select interaction_id, error_type from assessments where status = 'error'")
    assert errors == [{"interaction_id": "poison", "error_type": "judge_unavailable"}]


async def test_an_invalid_run_labels_nothing_until_its_errors_are_made_good(
    office: Office,
) -> None:
    office.answers(30)
    with endpoint(stubborn=0.3) as ill:
        workload = office.declare(ill)
        report = await office.judge(workload)
    assert report.state == "invalid"
    assert "more than judges.helpful.run.max_error_share 5.0%" in report.reason
    assert given(office) == {}
    assert office.sql("select count(*) as n from assessments where status = 'submitted'") != [
        {"n": 0}
    ]
    with endpoint(port=int(ill.url.rsplit(":", 1)[1])) as well:
        again = await office.judge(workload)
        assert well.stats()["completions"] == report.failed
    assert (again.state, again.judged, again.judge_run_id) == (
        "valid",
        report.failed,
        report.judge_run_id,
    )
    assert given(office) == expected(30)


async def test_the_entries_of_the_ledger_tell_what_became_of_a_run(
    office: Office, serve: Serve
) -> None:
    office.answers(5)
    await office.judge(office.declare(serve()))
    entries = office.lake.fetch(JudgeRun, "select * from judge_runs order by created_at")
    assert [(one.state, one.tasks, one.errors) for one in entries] == [
        ("open", 0, 0),
        ("valid", 5, 0),
    ]


async def test_every_model_of_a_panel_is_asked_and_counts_as_a_rater(
    office: Office, serve: Serve
) -> None:
    server = serve()
    office.answers(6)
    report = await office.judge(office.declare(server, models=3))
    assert report.judged == 6
    assert server.stats()["completions"] == 18
    raters = office.sql("select count(distinct source_id) as n from assessments group by all")
    assert raters == [{"n": 3}]


async def test_pairs_are_answers_of_different_models_to_the_same_question(
    office: Office, serve: Serve
) -> None:
    """Three questions by base; of two of them another model's answer, once the same one."""
    server = serve()
    office.answers(3)
    office.answers(1, model="tuned")
    same = make_interaction(
        interaction_id="tuned-same",
        messages=(Message(role="user", content="question 1"),),
        response=Message(role="assistant", content="item-00001 by base"),
        response_model="tuned",
    )
    office.lake.append([same])
    workload = office.declare(server)
    report = await office.judge(workload, "better")
    assert (report.eligible, report.judged) == (1, 1)
    pairs = office.sql("select distinct pair_ids from assessments")
    assert [json.loads(row["pair_ids"]) for row in pairs] == [["base-00000", "tuned-00000"]]
    assert server.stats()["completions"] == 2
    assert (await office.judge(workload, "better")).state == "nothing"


async def test_the_same_question_under_way_twice_is_paid_once(office: Office, serve: Serve) -> None:
    server = serve(latency_s=0.1)
    twins = [
        make_interaction(
            interaction_id=f"twin-{n}", response=Message(role="assistant", content="item-1")
        )
        for n in range(12)
    ]
    office.lake.append(twins)
    report = await office.judge(office.declare(server))
    assert (report.judged, report.calls) == (12, 1)
    assert server.stats()["completions"] == 1
    costs = office.sql("select count(*) as n from assessments where cost_usd > 0")
    assert costs == [{"n": 1}]


@pytest.mark.parametrize("budget", [{"budget_usd": 0}, {"budget_tokens": 0}])
async def test_a_budget_of_zero_is_refused_before_the_first_call(
    office: Office, serve: Serve, budget: dict[str, object]
) -> None:
    server = serve()
    office.answers(3)
    with pytest.raises(JudgeBudgetError, match="nothing spent of 0 .*, 3 items not judged"):
        await office.judge(office.declare(server, run=budget))
    assert server.stats()["asked"] == 0
    assert office.sql("select * from judge_runs") == []


async def test_a_budget_is_never_exceeded_with_64_under_way_and_what_was_judged_counts(
    office: Office, serve: Serve
) -> None:
    server = serve(latency_s=0.05)
    office.answers(90)
    run: dict[str, object] = {"max_concurrency": 64, "budget_tokens": 20_000}
    workload = office.declare(server, run=run)
    with pytest.raises(JudgeBudgetError, match="tokens spent of 20000 tokens") as caught:
        await office.judge(workload)
    (entry,) = office.sql("select * from judge_runs where state = 'valid'")
    assert entry["tokens"] <= 20_000
    assert entry["tokens"] > 15_000
    billed = server.stats()["completions"]
    assert len(given(office)) == billed == 90 - caught.value.left
    richer = office.declare(server, run={"budget_tokens": 200_000})
    await office.judge(richer)
    assert given(office) == expected(90)
    assert server.stats()["paid_twice"] == 0


async def test_a_budget_in_money_needs_prices(office: Office, serve: Serve) -> None:
    server = serve()
    office.answers(1)
    async with office.desk(office.declare(server, run={"budget_usd": 1})) as desk:
        unpriced = type(desk)(**{**vars(desk), "prices": PriceTable({})})
        with pytest.raises(ConfigError, match="judge-1 has no price.*FLYWHEEL_PRICES"):
            await judge_captured(unpriced, permission=allowed)
    assert server.stats()["asked"] == 0


async def test_a_judge_that_has_not_qualified_is_not_asked(office: Office, serve: Serve) -> None:
    def refused(*_: object, **__: object) -> None:
        raise JudgeNotQualifiedError("helpful", "it never was")

    server = serve()
    office.answers(1)
    async with office.desk(office.declare(server)) as desk:
        with pytest.raises(JudgeNotQualifiedError, match="flywheel judge qualify helpful"):
            await judge_captured(desk, permission=refused)
    assert server.stats()["asked"] == 0


async def test_a_qualification_that_ends_during_a_run_stops_it_and_the_rest_stays_unjudged(
    office: Office, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def expiring(*_: object, **__: object) -> None:
        asked.append(1)
        if len(asked) > 3:
            raise JudgeNotQualifiedError("helpful", "its qualification expired")

    monkeypatch.setattr("flywheel.label.judging.run.COMMIT_ROWS", 5)
    server = serve()
    office.answers(40)
    workload = office.declare(server, run={"max_concurrency": 4})
    async with office.desk(workload) as desk:
        with pytest.raises(JudgeNotQualifiedError, match="its qualification expired"):
            await judge_captured(desk, permission=expiring)
    assert len(office.sql("select * from assessments")) == 10
    assert len(given(office)) == 10, "what was committed before counts"
    again = await office.judge(workload)
    assert (again.state, again.judged_before, again.judged) == ("valid", 10, 30)
    assert given(office) == expected(40)
    # What was under way when the run stopped is cut off, and may have been paid.
    assert server.stats()["paid_twice"] <= 4


async def test_an_endpoint_that_is_down_ends_the_run_and_not_every_item(office: Office) -> None:
    office.answers(60)
    nowhere = Server("http://127.0.0.1:9")
    workload = office.declare(nowhere, run={"deadline_s": 0.5, "max_concurrency": 16})
    with pytest.raises(UpstreamUnavailableError, match="127.0.0.1:9"):
        await office.judge(workload)
    assert given(office) == {}
    assert office.sql("select distinct state from judge_runs") == [{"state": "open"}]


async def test_a_hostile_endpoint_costs_time_and_nothing_else(office: Office, serve: Serve) -> None:
    """Slow, 120 a second, garbage for 3 %, dead for a second: the small sister of the benchmark."""
    server = serve(rate=120, burst=60, latency_s=0.1, garbage=0.03, dies_after=150, dead_s=1.0)
    office.answers(300)
    run: dict[str, object] = {"budget_usd": 1.0, "deadline_s": 60}
    report = await office.judge(office.declare(server, run=run))
    assert (report.state, report.judged, report.failed) == ("valid", 300, 0)
    assert given(office) == expected(300)
    stats = server.stats()
    assert stats["paid_twice"] == 0
    assert stats["dead_s"] > 0.9
    assert stats["completions"] == report.calls
    assert report.cost_usd is not None and report.cost_usd < 1.0


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.label.judging.conftest import Office
from flywheel.lake import Lake
from flywheel.workload import Workload
from flywheel.label.judging import run
run.COMMIT_S = 0.2
folder = Path(sys.argv[1])
office = Office(folder, Lake(str(folder / "home" / "lake")))
asyncio.run(office.judge(Workload.load(office.workload_file)))
"""


async def test_a_killed_run_goes_on_and_pays_for_nothing_twice(
    office: Office, serve: Serve
) -> None:
    """SIGKILL in the middle; only what was under way then can have been paid and lost."""
    server = serve(latency_s=0.3)
    office.answers(110)
    workload = office.declare(server, run={"max_concurrency": 8})
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([f"{root}/src", root])}
    with subprocess.Popen([sys.executable, "-c", WORKER, str(office.folder)], env=environment) as p:
        until = time.monotonic() + 60
        while server.stats()["completions"] < 40 and time.monotonic() < until:
            await asyncio.sleep(0.05)
        p.send_signal(signal.SIGKILL)
    before = server.stats()["completions"]
    assert 40 <= before < 110
    assert given(office) == {}
    (committed,) = office.sql("select count(*) as n from assessments")
    with ReplyCache(office.cache_dir) as cache:
        kept = cache.size().replies
    assert before - 8 <= kept <= before
    assert 0 < committed["n"] <= kept
    report = await office.judge(workload)
    assert report.judged == 110 - committed["n"]
    assert report.cached == kept - committed["n"]
    assert report.state == "valid"
    assert given(office) == expected(110)
    assert len(office.sql("select * from judge_runs where state = 'open'")) == 1
    stats = server.stats()
    assert stats["completions"] == before + 110 - kept


def test_what_a_killed_process_had_set_aside_stays_set_aside(tmp_path: Path) -> None:
    """10 tokens of 100 spent, 30 reserved and never settled: 60 fit, 61 do not."""
    path = tmp_path / "spending.sqlite"
    with open_spending("run", path, budget_tokens=100) as account:
        paid = account.reserve(None, 20)
        assert paid is not None
        account.settle(paid, None, 10)
        assert account.reserve(None, 30) is not None
    with open_spending("run", path, budget_tokens=100) as account:
        assert account.reserve(None, 61) is None
        assert account.reserve(None, 60) is not None


def test_a_selection_of_shards_is_a_partition(office: Office, serve: Serve) -> None:
    from flywheel.graders.judge import build_judges
    from flywheel.label.judging import draw_tasks

    office.answers(20)
    workload = office.declare(serve())
    judge = build_judges(workload)["helpful"]
    parts = [
        draw_tasks(office.lake, workload, judge, Selection(shard=n, shards=3)).task_ids
        for n in range(3)
    ]
    assert sorted(one for part in parts for one in part) == [f"base-{n:05}" for n in range(20)]
