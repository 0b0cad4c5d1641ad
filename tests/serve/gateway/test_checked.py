"""Verify and repair, fast and slow thinking: what the client gets, and what is kept."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from flywheel.records import Interaction
from flywheel.workload import Workload
from tests.serve.gateway.harness import RunningGateway, eventually, workload
from tests.serve.gateway.upstream import (
    Script,
    ScriptedServer,
    answering,
    completion,
    hanging,
    replying,
)

DRAW: Any = [{"role": "user", "content": "Draw how we handle a sore throat."}]
CIRCLE = "flowchart TD\nA --> B\nB --> A"
LINE = "flowchart TD\nA --> B"
FLOWCHART = Path(__file__).parents[3] / "examples" / "flowchart" / "flywheel.yaml"


def saying(*answers: str, logprob: float | None = None) -> Script:
    """One answer after the other; the last again and again."""
    left = list(answers)

    async def script(server: ScriptedServer, request: web.Request, body: Any) -> web.StreamResponse:
        reply = completion(left.pop(0) if len(left) > 1 else left[0], body["model"])
        if body.get("logprobs") and logprob is not None:
            tokens = [{"token": "x", "logprob": logprob, "bytes": None, "top_logprobs": []}] * 2
            reply["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
        return web.json_response(reply)

    return script


@pytest.fixture
def large() -> Iterator[ScriptedServer]:
    server = ScriptedServer(saying('{"urgency": "urgent"}')).start()
    yield server
    server.stop()


@pytest.fixture
def flowchart(tmp_path: Path, upstream: ScriptedServer) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path, [upstream.url], workloads=[Workload.load(FLOWCHART)]) as running:
        yield running


def cascading(large: ScriptedServer, **checks: object) -> Workload:
    schema = {"type": "object", "required": ["urgency"]}
    return workload(
        gateway={
            "providers": {"large": {"base_url": f"{large.url}/v1", "retries": 0}},
            "routes": {
                "triage": {
                    "cascade": {
                        "escalate_to": {"provider": "large", "model": "large-1"},
                        **(checks or {"json_schema": schema}),
                    }
                }
            },
        }
    )


def draw(gateway: RunningGateway, **options: Any) -> str:
    reply = gateway.openai.chat.completions.create(model="flowchart", messages=DRAW, **options)
    return str(reply.choices[0].message.content)


def ask(gateway: RunningGateway, **options: Any) -> Any:
    return gateway.openai.chat.completions.create(model="triage", messages=DRAW, **options)


def chains(rows: Sequence[Interaction]) -> list[tuple[str, bool]]:
    tags: Any = [row.tags["chain"] for row in rows]
    return [(tag["role"], tag["sent"]) for tag in tags]


def test_a_flowchart_with_a_cycle_goes_back_with_the_reason_and_never_leaves(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = saying(CIRCLE, LINE)
    assert draw(flowchart) == LINE
    told = upstream.seen[1].body["messages"]
    assert told[1] == {"role": "assistant", "content": CIRCLE}
    assert "it runs in a circle: " in told[2]["content"]
    rows = flowchart.interactions()
    assert chains(rows) == [("first", False), ("repair", True)]
    assert len({row.conversation_id for row in rows}) == 1


def test_the_failed_and_the_repaired_answer_are_a_pair_with_the_first_prompt(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = saying(CIRCLE, LINE)
    draw(flowchart)
    flowchart.drain()
    [pair] = flowchart.lake.query(
        "SELECT name, chosen ->> '$.content' AS chosen, rejected ->> '$.content' AS rejected, "
        "json_array_length(messages) AS turns, label_source FROM pairs"
    ).to_pylist()
    assert pair == {
        "name": "repaired",
        "chosen": LINE,
        "rejected": CIRCLE,
        "turns": 1,
        "label_source": "code",
    }
    [assessment] = flowchart.assessments()
    assert assessment.source_id == "gateway:repair:HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "circle" in (assessment.rationale or "")


def test_an_answer_that_is_right_at_once_costs_no_second_call(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = saying(LINE)
    assert draw(flowchart) == LINE
    assert len(upstream.seen) == 1
    assert chains(flowchart.interactions()) == [("first", True)]
    assert flowchart.assessments() == []


def test_after_so_many_attempts_the_last_answer_is_sent_and_no_pair_is_made(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = saying(CIRCLE)
    assert draw(flowchart) == CIRCLE
    rows = flowchart.interactions()
    assert chains(rows) == [("first", False), ("repair", False), ("repair", True)]
    assert all(isinstance(row.tags["chain"], dict) for row in rows)
    assert flowchart.assessments() == []


def test_a_repair_that_fails_upstream_leaves_the_first_answer(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    first = saying(CIRCLE)

    async def once(server: ScriptedServer, request: web.Request, body: Any) -> web.StreamResponse:
        if len(server.seen) == 1:
            return await first(server, request, body)
        return web.json_response({"error": {"message": "no"}}, status=500)

    upstream.script = once
    assert draw(flowchart) == CIRCLE
    assert [row.status for row in flowchart.interactions()] == ["ok", "error"]


def test_a_client_that_wants_a_stream_gets_the_checked_answer_as_one(
    flowchart: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = saying(CIRCLE, LINE)
    stream = flowchart.openai.chat.completions.create(
        model="flowchart", messages=DRAW, stream=True, stream_options={"include_usage": True}
    )
    parts = list(stream)
    text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
    assert text == LINE
    assert parts[-1].usage is not None
    assert parts[-1].usage.completion_tokens == 2
    assert parts[-2].choices[0].finish_reason == "stop"
    assert "stream" not in upstream.seen[0].body


def test_a_small_answer_that_passes_stays_small(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = saying('{"urgency": "routine"}')
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        reply = ask(gateway)
        assert chains(gateway.interactions()) == [("first", True)]
    assert reply.choices[0].message.content == '{"urgency": "routine"}'
    assert not large.seen


def test_a_small_answer_that_fails_is_escalated_and_both_are_kept_as_a_pair(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = saying("I would see a doctor.")
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        raw = gateway.openai.chat.completions.with_raw_response.create(
            model="triage", messages=DRAW
        )
        rows = gateway.interactions()
        [pair] = gateway.lake.query("SELECT name, chosen, rejected FROM pairs").to_pylist()
    assert raw.parse().choices[0].message.content == '{"urgency": "urgent"}'
    assert raw.headers["x-flywheel-provider"] == "large"
    assert raw.headers["x-flywheel-interaction-id"] == rows[1].interaction_id
    assert chains(rows) == [("first", False), ("escalation", True)]
    assert [row.response_model for row in rows] == ["base-model", "large-1"]
    assert large.seen[0].body["messages"] == DRAW
    assert pair["name"] == "escalated"
    assert "urgent" in json.dumps(pair["chosen"])


@pytest.mark.parametrize(("logprob", "calls"), [(-0.1, 0), (-1.5, 1), (None, 1)])
def test_a_model_in_doubt_is_escalated_and_the_client_sees_no_logprobs(
    tmp_path: Path,
    upstream: ScriptedServer,
    large: ScriptedServer,
    logprob: float | None,
    calls: int,
) -> None:
    """None: a server that tells no log-probabilities cannot be trusted to be sure."""
    upstream.script = saying("Rest it.", logprob=logprob)
    doubting = cascading(large, min_mean_logprob=-0.5)
    with RunningGateway(tmp_path, [upstream.url], workloads=[doubting]) as gateway:
        reply = ask(gateway)
    assert len(large.seen) == calls
    assert upstream.seen[0].body["logprobs"] is True
    assert reply.choices[0].logprobs is None


def test_when_the_large_model_cannot_the_small_ones_answer_is_sent(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = saying("I would see a doctor.")
    large.script = replying(b'{"error": {"message": "quota"}}', status=429)
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        assert ask(gateway).choices[0].message.content == "I would see a doctor."
        rows = gateway.interactions()
    assert chains(rows) == [("first", True), ("escalation", False)]
    assert [row.status for row in rows] == ["ok", "error"]


def test_when_the_small_model_cannot_the_large_one_answers(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.stop()
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        assert ask(gateway).choices[0].message.content == '{"urgency": "urgent"}'
        assert chains(gateway.interactions()) == [("first", False), ("escalation", True)]


def test_an_error_of_the_callers_is_not_escalated(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = replying(b'{"error": {"message": "too long"}}', status=400)
    with (
        RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway,
        pytest.raises(openai.BadRequestError, match="too long"),
    ):
        ask(gateway)
    assert not large.seen


def test_a_tool_call_is_not_checked(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    reply = completion("", "base-model")
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    reply["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    upstream.script = replying(json.dumps(reply).encode())
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        stream = ask(gateway, stream=True)
        deltas = [part.choices[0].delta for part in stream]
    assert deltas[0].tool_calls[0].function.name == "look"
    assert not large.seen


def test_a_client_that_goes_away_meanwhile_is_cancelled_and_what_was_answered_is_kept(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = saying("I would see a doctor.")
    large.script = hanging()
    with RunningGateway(tmp_path, [upstream.url], workloads=[cascading(large)]) as gateway:
        hasty = gateway.openai.with_options(timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            hasty.chat.completions.create(model="triage", messages=DRAW)
        eventually(lambda: large.gone == 1)
        eventually(lambda: len(gateway.interactions()) == 2)
        rows = gateway.interactions()
    assert sorted(row.status for row in rows) == ["cancelled", "ok"]


def test_with_capture_off_nothing_is_kept_and_answers_are_checked_all_the_same(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    off = Workload.load(FLOWCHART)
    off = off.model_copy(update={"capture": off.capture.model_copy(update={"enabled": False})})
    upstream.script = saying(CIRCLE, LINE)
    with RunningGateway(tmp_path, [upstream.url], workloads=[off]) as gateway:
        assert draw(gateway) == LINE
        assert gateway.interactions() == []
        assert gateway.assessments() == []


def test_a_route_may_name_only_graders_there_are() -> None:
    with pytest.raises(ValueError, match="no grader 'nope'"):
        workload(gateway={"routes": {"triage": {"repair": {"graders": ["nope"]}}}})


def test_an_unchecked_route_streams_as_it_comes(
    tmp_path: Path, upstream: ScriptedServer, large: ScriptedServer
) -> None:
    upstream.script = answering("as it comes", delay_s=0.01)
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        parts = list(ask(gateway, stream=True))
    assert len(parts) > 3
