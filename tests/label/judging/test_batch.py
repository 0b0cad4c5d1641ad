"""The batch API, played by a server that follows OpenAI's reference, asked by the real client."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchmarks.judge_endpoint import chance, grade_of
from flywheel.errors import JudgeBudgetError, JudgeError
from flywheel.label.judging import JudgeRunReport, batch_captured
from flywheel.records import Message
from flywheel.testing import make_interaction
from tests.label.judging.conftest import GRADES, Office, Server, allowed
from tests.loopback import LoopbackServer

Serve = Callable[..., Server]


async def overnight(
    office: Office, server: Server, run: Mapping[str, object] | None = None
) -> JudgeRunReport:
    async with office.desk(office.declare(server, run=run)) as desk:
        return await batch_captured(desk, permission=allowed, poll_s=0.02)


def given(office: Office) -> dict[str, str]:
    rows = office.sql("select interaction_id, label from labels where name = 'helpful'")
    return {row["interaction_id"]: row["label"] for row in rows}


def expected(count: int) -> dict[str, str]:
    return {f"base-{n:05}": grade_of(f"item-{n:05}", GRADES) for n in range(count)}


async def test_a_batch_gives_the_same_verdicts_at_half_the_price(
    office: Office, serve: Serve
) -> None:
    """Prices of 1 and 2 USD a million, halved; its files are deleted when all is kept."""
    server = serve()
    office.answers(30)
    report = await overnight(office, server)
    assert (report.state, report.judged, report.calls) == ("valid", 30, 30)
    assert given(office) == expected(30)
    rows = office.sql("select cost_usd, input_tokens from assessments")
    for row in rows:
        assert row["cost_usd"] == pytest.approx((row["input_tokens"] + 20) * 0.5e-6)
    assert report.cost_usd == pytest.approx(sum(row["cost_usd"] for row in rows))
    stats = server.stats()
    assert (stats["batches"], stats["files"], stats["asked"]) == (["completed"], 0, 0)


async def test_garbage_is_repaired_in_the_next_batch(office: Office, serve: Serve) -> None:
    server = serve(garbage=0.2, stubborn=0.1)
    office.answers(40)
    stubborn = {f"base-{n:05}" for n in range(40) if chance("stubborn", f"item-{n:05}") < 0.1}
    report = await overnight(office, server, {"max_error_share": 0.5})
    assert report.failed == len(stubborn) > 0
    assert given(office) == {
        key: label for key, label in expected(40).items() if key not in stubborn
    }
    stats = server.stats()
    assert (len(stats["batches"]), stats["paid_twice"]) == (2, 0)


async def test_what_an_expired_batch_left_is_asked_in_another(office: Office, serve: Serve) -> None:
    server = serve(expires_after=12)
    office.answers(30)
    report = await overnight(office, server)
    assert (report.state, report.judged, report.failed) == ("valid", 30, 0)
    assert given(office) == expected(30)
    stats = server.stats()
    assert stats["batches"] == ["expired", "completed"]
    assert (stats["completions"], stats["paid_twice"]) == (30, 0)


async def test_an_item_that_fails_in_every_batch_and_one_that_is_refused_are_error_rows(
    office: Office, serve: Serve
) -> None:
    server = serve()
    office.answers(10)
    bad = [
        make_interaction(interaction_id=word, response=Message(role="assistant", content=word))
        for word in ("POISON", "FORBIDDEN")
    ]
    office.lake.append(bad)
    report = await overnight(office, server, {"max_error_share": 0.5})
    assert (report.judged, report.failed) == (12, 2)
    errors = office.sql(
        "select interaction_id, error_type, rationale from assessments "
        "where status = 'error' order by 1"
    )
    assert [(row["interaction_id"], row["error_type"]) for row in errors] == [
        ("FORBIDDEN", "judge_refused"),
        ("POISON", "judge_unavailable"),
    ]
    assert errors[0]["rationale"] == "content policy"
    assert len(server.stats()["batches"]) == 3
    assert given(office) == expected(10)


async def test_a_budget_bounds_what_is_put_into_a_batch(office: Office, serve: Serve) -> None:
    server = serve()
    office.answers(60)
    with pytest.raises(JudgeBudgetError) as caught:
        await overnight(office, server, {"budget_tokens": 20_000})
    (entry,) = office.sql("select * from judge_runs where state = 'valid'")
    assert 15_000 < entry["tokens"] <= 20_000
    assert len(given(office)) == server.stats()["completions"] == 60 - caught.value.left


async def test_a_batch_the_server_refuses_ends_the_run_with_its_reasons(
    office: Office, serve: Serve
) -> None:
    server = serve()
    office.answers(2)
    workload = office.declare(server)
    text = office.workload_file.read_text(encoding="utf-8").replace("judge-1", "no-such-model")
    office.workload_file.write_text(text, encoding="utf-8")
    async with office.desk(type(workload).load(office.workload_file)) as desk:
        with pytest.raises(JudgeError, match="line 1: The provided model 'no-such-model'"):
            await batch_captured(desk, permission=allowed, poll_s=0.02)
    assert given(office) == {}


class NoBatches(LoopbackServer):
    """A server of chat completions only."""

    def app(self):  # type: ignore[no-untyped-def]
        from aiohttp import web

        return web.Application()


async def test_a_server_without_a_batch_api_is_told(office: Office) -> None:
    office.answers(1)
    server = NoBatches().start()
    try:
        with pytest.raises(JudgeError, match=r"\(404\).*asked without --batch"):
            await overnight(office, Server(server.url))
    finally:
        server.stop()


WORKER = """
import asyncio, sys
from pathlib import Path
from flywheel.label.judging import batch_captured, batch_server
from flywheel.lake import Lake
from flywheel.workload import Workload
from tests.label.judging.conftest import Office, allowed
folder = Path(sys.argv[1])
office = Office(folder, Lake(str(folder / "home" / "lake")))
create = batch_server.OpenAIBatches.create
async def create_and_die(self, lines, sha):
    batch = await create(self, lines, sha)
    if sys.argv[2] == "before":
        import os; os.kill(os.getpid(), 9)
    return batch
batch_server.OpenAIBatches.create = create_and_die
async def work():
    async with office.desk(Workload.load(office.workload_file)) as desk:
        await batch_captured(desk, permission=allowed, poll_s=60)
asyncio.run(work())
"""


@pytest.mark.parametrize("moment", ["before", pytest.param("after", marks=pytest.mark.slow)])
async def test_a_killed_run_finds_its_batch_again(
    office: Office, serve: Serve, moment: str
) -> None:
    """Killed before the batch's id was written down, and while it waited for the batch."""
    server = serve()
    office.answers(20)
    office.declare(server)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([f"{root}/src", root])}
    command = [sys.executable, "-c", WORKER, str(office.folder), moment]
    with subprocess.Popen(command, env=environment) as process:
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.1)
            if moment == "after" and "in_progress" in server.stats()["batches"]:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    report = await overnight(office, server)
    assert (report.state, report.judged, report.calls) == ("valid", 20, 20)
    assert given(office) == expected(20)
    stats = server.stats()
    assert (stats["batches"], stats["paid_twice"]) == (["completed"], 0)
    (account,) = office.sql("select tokens from judge_runs where state = 'valid'")
    assert account["tokens"] == report.tokens


def test_a_request_line_is_what_the_reference_asks_for(office: Office, serve: Serve) -> None:
    from flywheel.graders.judge import JudgeCall
    from flywheel.label.judging.batch_lines import read_line, request_line

    call = JudgeCall(
        key="k" * 64,
        task_id="t",
        judge="j",
        provider="p",
        model="m",
        messages=(Message(role="user", content="hm"),),
        response_schema={"type": "object"},
        temperature=0,
        max_tokens=16,
    )
    line = json.loads(request_line(call))
    assert {key: line[key] for key in ("custom_id", "method", "url")} == {
        "custom_id": "k" * 64,
        "method": "POST",
        "url": "/v1/chat/completions",
    }
    assert line["body"]["response_format"]["json_schema"]["strict"] is True
    assert read_line(b"not json", "url") == (None, None)
    assert read_line(b'{"custom_id": "a", "response": null, "error": {}}', "url") == ("a", None)
