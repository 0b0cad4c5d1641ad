from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.gateway.harness import RunningGateway
from tests.serve.gateway.upstream import ScriptedServer

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    server = ScriptedServer().start()
    yield server
    server.stop()


def ask(gateway: RunningGateway) -> None:
    gateway.openai.chat.completions.create(model="triage", messages=HELLO)


def test_replicas_take_turns(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    with RunningGateway(tmp_path, [upstream.url, other.url]) as gateway:
        for _ in range(10):
            ask(gateway)
    assert (len(upstream.seen), len(other.seen)) == (5, 5)


def test_a_replica_that_is_down_costs_no_request(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    with RunningGateway(tmp_path, [upstream.url, other.url]) as gateway:
        ask(gateway)
        ask(gateway)
        other.stop()
        for _ in range(10):
            ask(gateway)
        assert len(upstream.seen) == 11
        assert gateway.gateway.metrics.upstream_retries == 5
        other.start()
        for _ in range(4):
            ask(gateway)
        assert {row.status for row in gateway.interactions()} == {"ok"}
    assert len(other.seen) == 3


def test_a_model_server_that_was_restarted_costs_no_request(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """Kept-alive connections are dead then; the first request to notice takes a new one."""
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        ask(gateway)
        upstream.stop()
        upstream.start()
        ask(gateway)
    assert len(upstream.seen) == 2


def test_with_no_model_server_a_call_is_503_in_openais_shape_and_captured(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    upstream.stop()
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(gateway)
        [row] = gateway.interactions()
    assert caught.value.status_code == 503
    assert caught.value.code == "upstream_unavailable"
    assert caught.value.type == "upstream_error"
    assert caught.value.response.headers["x-flywheel-interaction-id"] == row.interaction_id
    assert (row.status, row.error_type, row.response) == ("error", "upstream_unavailable", None)
    assert [message.text for message in row.messages] == ["My knee hurts."]
