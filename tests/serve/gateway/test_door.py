"""Keys, budgets and costs, through a whole gateway and into the lake."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from flywheel.serve.gateway.keys import create_key
from tests.serve.gateway.harness import BASE, RunningGateway, eventually, workload
from tests.serve.gateway.upstream import ScriptedServer

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "gateway-keys.json"


@pytest.fixture
def door(tmp_path: Path, keys: Path, upstream: ScriptedServer) -> Iterator[RunningGateway]:
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"{BASE}: {{input: 1000, output: 2000}}\n")  # 3 in, 2 out: 0.007 USD
    both = [workload(gateway={"daily_budget_usd": 0.01}), workload("coding")]
    with RunningGateway(
        tmp_path,
        [upstream.url],
        workloads=both,
        keys_file=keys,
        spend_dir=tmp_path / "gateway",
        prices_file=prices,
    ) as running:
        yield running


def make_key(door: RunningGateway, keys: Path, name: str, **options: Any) -> str:
    """A key the running gateway knows of: it looks at the file four times a second."""
    token = create_key(keys, name=name, **options).token
    admission = door.gateway.admission
    assert admission is not None
    eventually(lambda: admission.needs_key)
    return token


def client(gateway: RunningGateway, token: str) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=token, max_retries=0)


def ask(asking: OpenAI, model: str = "triage", **options: Any) -> Any:
    return asking.chat.completions.create(model=model, messages=HELLO, **options)


def test_what_a_call_cost_is_in_the_lake_and_a_spent_budget_refuses_the_next(
    door: RunningGateway,
) -> None:
    ask(door.openai)
    ask(door.openai)
    with pytest.raises(openai.RateLimitError, match="budget") as caught:
        ask(door.openai)
    assert caught.value.type == "insufficient_quota"
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert ask(door.openai, "coding").choices, "another workload has its own budget"
    costs = {row.workload: row.cost_usd for row in door.interactions()}
    assert costs == {"triage": pytest.approx(0.007), "coding": pytest.approx(0.007)}


def test_a_stream_that_reports_no_usage_has_no_cost_rather_than_none_at_all(
    door: RunningGateway,
) -> None:
    list(ask(door.openai, stream=True))
    [row] = door.interactions()
    assert (row.cost_usd, row.input_tokens) == (None, None)


def test_only_keys_open_the_door_and_each_only_its_workloads(
    door: RunningGateway, keys: Path, upstream: ScriptedServer
) -> None:
    token = make_key(door, keys, "ward-7", workloads=["triage"])
    with pytest.raises(openai.AuthenticationError, match="not known here"):
        ask(client(door, "guessed"))
    with pytest.raises(openai.PermissionDeniedError, match="not for coding"):
        ask(client(door, token), "coding")
    assert not upstream.seen
    assert ask(client(door, token)).choices
    assert "authorization" not in upstream.seen[0].headers


def test_a_gateway_key_is_asked_for_feedback_and_models_too(
    door: RunningGateway, keys: Path
) -> None:
    token = make_key(door, keys, "ward-7", workloads=["triage"])
    body: Any = {"interaction_id": "i", "name": "urgency", "value": 1}
    with pytest.raises(openai.AuthenticationError):
        client(door, "guessed").post("/feedback", body=body, cast_to=object)
    with pytest.raises(openai.AuthenticationError):
        client(door, "guessed").models.list()
    client(door, token).post("/feedback", body=body, cast_to=object)
    assert [model.id for model in client(door, token).models.list()] == ["coding", "triage"]
    assert len(door.assessments()) == 1


def test_a_key_that_asks_too_often_is_told_when_to_come_back(
    door: RunningGateway, keys: Path
) -> None:
    token = make_key(door, keys, "eager", workloads=["*"], requests_per_minute=1)
    reply = client(door, token).chat.completions.with_raw_response.create(
        model="coding", messages=HELLO
    )
    assert reply.headers["x-ratelimit-limit-requests"] == "1"
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client(door, token), "coding")
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_stream_that_hides_its_tokens_is_limited_all_the_same(
    door: RunningGateway, keys: Path
) -> None:
    token = make_key(door, keys, "quiet", workloads=["*"], tokens_per_minute=10)
    list(ask(client(door, token), "coding", stream=True))
    with pytest.raises(openai.RateLimitError):
        ask(client(door, token), "coding")
