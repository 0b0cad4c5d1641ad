"""Keys, limits and budgets as one door, seen by the real openai client."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from aiohttp import web

from flywheel.errors import KeyRefusedError, LimitReachedError, RateLimitedError
from flywheel.prices import Price, PriceTable, TokenUsage
from flywheel.records import CaptureCounters
from flywheel.serve.gateway.admission import Admission, refusal
from flywheel.serve.gateway.keys import create_key, revoke_key
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.usage import usage_in
from flywheel.workload import Workload
from tests.loopback import LoopbackServer

USAGE = TokenUsage(1000, 100)
PRICES = PriceTable({"triage-*": Price(input=100, output=1000)})  # 0.2 USD for USAGE
MODEL = "triage-0123456789ab"


def workload(budget: float | None) -> Workload:
    return Workload.model_validate(
        {
            "name": "triage",
            "alias": "triage",
            "base_model": "base",
            "labels": {"name": "urgency"},
            "graders": {"g": {"type": "string_check"}},
            "gate": {"suite": "s.jsonl", "target": {"grader": "g"}},
            "gateway": {"daily_budget_usd": budget},
        }
    )


class Door(SimpleNamespace):
    admission: Admission
    metrics: Metrics
    keys_file: Path


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    metrics, keys_file = Metrics(), tmp_path / "gateway-keys.json"
    admission = Admission.open(
        keys_file=keys_file,
        spend_dir=tmp_path / "gateway",
        prices=PRICES,
        workloads=[workload(0.5)],
        metrics=metrics,
    )
    yield Door(admission=admission, metrics=metrics, keys_file=keys_file)
    admission.close()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Door]:
    """A door with one key, `door.token`, of three requests and 6,000 tokens a minute."""
    metrics, keys_file = Metrics(), tmp_path / "gateway-keys.json"
    made = create_key(
        keys_file,
        name="ward-7",
        workloads=["triage"],
        requests_per_minute=3,
        tokens_per_minute=6000,
    )
    admission = Admission.open(
        keys_file=keys_file,
        spend_dir=tmp_path / "gateway",
        prices=PRICES,
        workloads=[workload(None)],
        metrics=metrics,
    )
    yield Door(admission=admission, metrics=metrics, keys_file=keys_file, token=made.token)
    admission.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_an_open_gateway_lets_anybody_in_and_counts_the_cost(door: Door) -> None:
    """1,000 x 100 + 100 x 1,000 millionths are 0.2 USD."""
    assert not door.admission.needs_key
    grant = door.admission.admit({}, "triage")
    assert grant.key is None and grant.headers == {}
    assert door.admission.settle(grant, USAGE, MODEL) == pytest.approx(0.2)
    assert door.admission.settle(grant, USAGE, MODEL) is None  # settled once
    assert door.metrics.cost_usd["triage", MODEL] == pytest.approx(0.2)
    assert door.metrics.tokens["triage", MODEL, "input"] == 1000


def test_a_budget_ends_the_day_for_an_open_gateway_too(door: Door) -> None:
    for _ in range(3):
        door.admission.settle(door.admission.admit({}, "triage"), USAGE, MODEL)
    with pytest.raises(LimitReachedError, match="daily budget of triage is spent: 0.6000 of 0.5"):
        door.admission.admit({}, "triage")
    assert door.metrics.refusals["triage", "budget"] == 1
    door.admission.admit({}, "billing")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "missing"),
        ({"Authorization": "Basic x"}, "missing"),
        ({"Authorization": "Bearer"}, "missing"),
        ({"Authorization": "Bearer wrong"}, "unknown"),
    ],
)
def test_without_a_key_a_closed_gateway_refuses(
    closed: Door, headers: dict[str, str], reason: str
) -> None:
    with pytest.raises(KeyRefusedError) as caught:
        closed.admission.admit(headers, "triage")
    assert caught.value.status == 401 and caught.value.reason == reason
    assert closed.metrics.refusals["", f"key_{reason}"] == 1


def test_a_key_is_for_its_workloads_until_it_is_revoked(closed: Door) -> None:
    assert closed.admission.needs_key
    assert closed.admission.authenticate(bearer(closed.token)) is not None
    with pytest.raises(KeyRefusedError, match="'ward-7' is not for billing") as caught:
        closed.admission.admit(bearer(closed.token), "billing")
    assert caught.value.status == 403
    revoke_key(closed.keys_file, "ward-7")
    closed.admission._keys._looked = float("-inf")  # a quarter of a second later
    with pytest.raises(KeyRefusedError, match="was revoked"):
        closed.admission.admit({"Authorization": f"bearer  {closed.token}"}, "triage")


def test_a_stream_that_hides_its_usage_is_limited_by_an_estimate(closed: Door) -> None:
    grant = closed.admission.admit(bearer(closed.token), "triage")
    assert grant.headers["x-ratelimit-remaining-requests"] == "2"
    assert closed.admission.settle(grant, None, MODEL, estimated_tokens=7000) is None
    with pytest.raises(RateLimitedError, match="6000 tokens a minute") as caught:
        closed.admission.admit(bearer(closed.token), "triage")
    assert caught.value.headers["x-ratelimit-remaining-tokens"] == "0"
    assert closed.metrics.unknown_cost["triage", MODEL] == 1


def test_an_unknown_cost_under_a_budget_is_warned_of_once(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        door.admission.settle(door.admission.admit({}, "triage"), USAGE, "unpriced")
    assert caplog.text.count("has no price") == 1


def test_budgets_and_prices_are_replaced_without_a_restart(door: Door) -> None:
    door.admission.settle(door.admission.admit({}, "triage"), USAGE, MODEL)
    door.admission.reload([workload(0.1)], PriceTable({}))
    with pytest.raises(LimitReachedError):
        door.admission.admit({}, "triage")


def test_the_metrics_page_shows_all_of_it(closed: Door) -> None:
    grant = closed.admission.admit(bearer(closed.token), "triage")
    closed.admission.settle(grant, TokenUsage(10, 2, 4), MODEL)
    grant = closed.admission.admit(bearer(closed.token), "triage")
    closed.admission.settle(grant, USAGE, 'odd"name')
    with pytest.raises(KeyRefusedError):
        closed.admission.admit({}, "triage")
    closed.admission.reload([workload(5.0)], PRICES)
    page = closed.metrics.render([], CaptureCounters(), is_ready=True)
    label = f'workload="triage",model="{MODEL}"'
    for line in (
        f'flywheel_gateway_tokens_total{{{label},kind="cached"}} 4',
        f"flywheel_gateway_cost_usd_total{{{label}}} 0.003",
        'flywheel_gateway_unknown_cost_total{workload="triage",model="odd\\"name"} 1',
        'flywheel_gateway_refusals_total{workload="",reason="key_missing"} 1',
        'flywheel_gateway_daily_budget_usd{workload="triage"} 5.0',
        'flywheel_gateway_spent_today_usd{workload="triage"} 0.003',
        'flywheel_gateway_unknown_cost_today{workload="triage"} 1',
    ):
        assert line in page.splitlines()


class Shop(LoopbackServer):
    """The wiring a gateway needs, over a model that answers at once."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self.door, self.calls = door, 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _chat(self, request: web.Request) -> web.Response:
        self.calls += 1
        admission = self.door.admission
        try:
            grant = admission.admit(request.headers, "triage")
        except (KeyRefusedError, LimitReachedError) as error:
            return refusal(error, {"x-flywheel-interaction-id": "i"})
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        message = {"role": "assistant", "content": "fine"}
        reply = web.json_response(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": MODEL,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": usage,
            },
            headers=grant.headers,
        )
        assert isinstance(reply.body, bytes)
        admission.settle(grant, usage_in(reply.body, False), MODEL)
        return reply


def ask(shop: Shop, token: str, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{shop.url}/v1", api_key=token, max_retries=retries)


def test_the_openai_client_understands_every_refusal(closed: Door) -> None:
    shop = Shop(closed).start()
    try:
        with ask(shop, "wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
            client.chat.completions.create(model="triage", messages=[])
        assert refused.value.code == "invalid_api_key"
        assert refused.value.response.headers["x-flywheel-interaction-id"] == "i"
        with ask(shop, closed.token) as client:
            for _ in range(3):
                client.chat.completions.create(model="triage", messages=[])
            with pytest.raises(openai.RateLimitError) as limited:
                client.chat.completions.create(model="triage", messages=[])
        assert (limited.value.type, limited.value.code) == ("requests", "rate_limit_exceeded")
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 20
        assert limited.value.response.headers["x-ratelimit-limit-requests"] == "3"
    finally:
        shop.stop()


def test_the_openai_client_does_not_knock_again_on_a_spent_budget(door: Door) -> None:
    shop = Shop(door).start()
    try:
        with ask(shop, "any", retries=5) as client:
            for _ in range(3):
                client.chat.completions.create(model="triage", messages=[])
            with pytest.raises(openai.RateLimitError, match="It resets at") as spent:
                client.chat.completions.create(model="triage", messages=[])
        assert (spent.value.type, spent.value.code) == ("insufficient_quota", "insufficient_quota")
        assert shop.calls == 4
    finally:
        shop.stop()
