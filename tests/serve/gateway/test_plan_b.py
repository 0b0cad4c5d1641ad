"""A first provider that is down, slow, busy, gone or wrong: what the client and the lake see."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from flywheel.errors import ConfigError
from flywheel.records import Interaction
from flywheel.workload import Workload
from tests.serve.gateway.harness import RunningGateway, release, workload
from tests.serve.gateway.upstream import (
    Script,
    ScriptedServer,
    answering,
    chunk,
    hanging,
    replying,
    streaming,
)

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    server = ScriptedServer(answering("Plan B.")).start()
    yield server
    server.stop()


def with_plan_b(other: ScriptedServer, **engine: object) -> Workload:
    patience = {"retries": 0, "first_byte_timeout_s": 0.3, **engine}
    return workload(
        gateway={
            "providers": {
                "engine": patience,
                "elsewhere": {"base_url": f"{other.url}/v1", "api_key_env": "ELSEWHERE_KEY"},
            },
            "routes": {
                "triage": {
                    "targets": [
                        {"provider": "engine"},
                        {"provider": "elsewhere", "model": "large"},
                    ]
                }
            },
        }
    )


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE_KEY", "sk-elsewhere")


def after(status: int, script: Script, *, times: int = 1, retry_after: str | None = None) -> Script:
    """Says `status` so many times, then goes on as `script`."""
    left = [times]
    headers = {"retry-after": retry_after} if retry_after else None

    async def first(server: ScriptedServer, request: web.Request, body: Any) -> web.StreamResponse:
        if left[0]:
            left[0] -= 1
            return web.json_response({"error": {"message": "busy"}}, status=status, headers=headers)
        return await script(server, request, body)

    return first


def ask(gateway: RunningGateway, **options: Any) -> str:
    reply = gateway.openai.chat.completions.create(model="triage", messages=HELLO, **options)
    return str(reply.choices[0].message.content)


def only(gateway: RunningGateway) -> Interaction:
    [row] = gateway.interactions()
    return row


def failed(row: Interaction) -> list[tuple[str, str]]:
    attempts: Any = row.tags.get("attempts", [])
    return [(attempt["provider"], attempt["error_type"]) for attempt in attempts]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (replying(b'{"error": {"message": "on fire"}}', status=500), "http_500"),
        (replying(b'{"error": {"message": "full"}}', status=503), "http_503"),
        (replying(b'{"error": {"message": "no such model"}}', status=404), "http_404"),
        (replying(b'{"error": {"message": "wrong key"}}', status=401), "http_401"),
        (replying(b"<html>Sign in</html>", content_type="text/html"), "not_openai"),
        (hanging(), "upstream_timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_next_provider_answers_and_the_capture_says_which_and_why(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer, script: Script, why: str
) -> None:
    upstream.script = script
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        gateway.ledger.latest["triage"] = release(1, "triage-abc")
        assert ask(gateway) == "Plan B."
        row = only(gateway)
    assert failed(row) == [("engine", why)]
    assert (row.provider, row.arm, row.adapter) == ("elsewhere", "fallback", None)
    assert (row.response_model, row.status) == ("large", "ok")


def test_a_provider_that_is_down_is_passed_over(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.stop()
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        assert ask(gateway) == "Plan B."
        assert failed(only(gateway)) == [("engine", "upstream_unavailable")]


def test_a_stream_that_never_brings_a_chunk_is_answered_by_the_next(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    """Some servers send the headers at once and then stall."""
    upstream.script = streaming([b"", chunk("late", "m")], pause_s=5)
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in stream).strip() == "Plan B."
        assert failed(only(gateway)) == [("engine", "upstream_timeout")]


def test_a_stream_that_has_begun_is_not_begun_anew_elsewhere(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = streaming([chunk("Half ", "m")], breaks=True)
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        with pytest.raises(openai.APIError):
            list(
                gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
            )
        row = only(gateway)
    assert (row.status, row.error_type) == ("error", "upstream_disconnected")
    assert not other.seen


def test_what_the_caller_did_wrong_is_not_asked_of_anybody_else(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = replying(b'{"error": {"message": "too long"}}', status=400)
    with (
        RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway,
        pytest.raises(openai.BadRequestError, match="too long"),
    ):
        ask(gateway)
    assert not other.seen


def test_when_nobody_can_the_last_ones_own_words_come_back(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = replying(b"{}", status=500)
    other.script = replying(b'{"error": {"message": "me neither", "code": "x"}}', status=501)
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        with pytest.raises(openai.InternalServerError, match="me neither") as caught:
            ask(gateway)
        row = only(gateway)
    assert caught.value.status_code == 501
    assert failed(row)[0] == ("engine", "http_500")
    assert (row.status, row.provider) == ("error", "elsewhere")


def test_a_busy_provider_is_asked_again_when_it_says_and_not_before(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = after(429, answering("At last."), retry_after="0.3")
    patient = with_plan_b(other, retries=1, first_byte_timeout_s=5)
    with RunningGateway(tmp_path, [upstream.url], workloads=[patient]) as gateway:
        started = time.monotonic()
        assert ask(gateway) == "At last."
        assert time.monotonic() - started >= 0.3
        assert failed(only(gateway)) == [("engine", "http_429")]
    assert not other.seen


def test_a_wait_that_is_too_long_goes_to_the_next_at_once(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = after(429, answering("At last."), retry_after="3600")
    patient = with_plan_b(other, retries=5)
    with RunningGateway(tmp_path, [upstream.url], workloads=[patient]) as gateway:
        assert ask(gateway) == "Plan B."
    assert len(upstream.seen) == 1


def test_a_provider_that_keeps_failing_is_left_alone_for_a_while(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.script = replying(b"{}", status=500)
    nervous = with_plan_b(other, breaker_failures=2, breaker_cooldown_s=60)
    with RunningGateway(tmp_path, [upstream.url], workloads=[nervous]) as gateway:
        for _ in range(4):
            ask(gateway)
        rows = gateway.interactions()
    assert len(upstream.seen) == 2
    assert [failed(row)[0][1] for row in rows] == ["http_500"] * 2 + ["circuit_open"] * 2


def test_with_every_circuit_open_the_first_is_asked_all_the_same(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    alone = workload(
        gateway={"providers": {"engine": {"breaker_failures": 1, "breaker_cooldown_s": 60}}}
    )
    upstream.script = after(500, answering("Back."), times=3)
    with RunningGateway(tmp_path, [upstream.url], workloads=[alone]) as gateway:
        with pytest.raises(openai.InternalServerError):
            ask(gateway)
        assert ask(gateway) == "Back."


def test_a_provider_gets_its_own_key_and_never_the_clients(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    upstream.stop()
    with RunningGateway(tmp_path, [upstream.url], workloads=[with_plan_b(other)]) as gateway:
        ask(gateway, extra_headers={"x-api-key": "the-clients", "openai-organization": "org"})
    headers = other.seen[0].headers
    assert headers["authorization"] == "Bearer sk-elsewhere"
    assert not {"x-api-key", "openai-organization"} & set(headers)


def test_weights_share_conversations_and_a_conversation_stays_where_it_began(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    shared = workload(
        gateway={
            "providers": {"elsewhere": {"base_url": f"{other.url}/v1"}},
            "routes": {
                "triage": {
                    "targets": [
                        {"provider": "engine", "weight": 3},
                        {"provider": "elsewhere", "model": "large", "weight": 1},
                    ]
                }
            },
        }
    )
    with RunningGateway(tmp_path, [upstream.url], workloads=[shared]) as gateway:
        for turn in range(2):
            for number in range(60):
                ask(gateway, extra_headers={"x-flywheel-conversation-id": f"c{number}"})
            assert len(upstream.seen) + len(other.seen) == 60 * (turn + 1)
        rows = gateway.interactions()
    assert 5 <= len(other.seen) / 2 <= 27, "a quarter of 60 is 15"
    answered: dict[str, set[str | None]] = {}
    for row in rows:
        answered.setdefault(row.conversation_id, set()).add(row.provider)
    assert all(len(providers) == 1 for providers in answered.values())
    assert {row.arm for row in rows} == {"baseline"}


def test_a_provider_whose_key_is_not_in_the_environment_is_refused_at_start(
    tmp_path: Path, other: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELSEWHERE_KEY")
    with (
        pytest.raises(ConfigError, match="the environment has no ELSEWHERE_KEY"),
        RunningGateway(tmp_path, ["http://127.0.0.1:9"], workloads=[with_plan_b(other)]),
    ):
        pass
