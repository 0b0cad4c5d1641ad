"""`flywheel report`, on what a real gateway captured."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.workload import Workload
from tests.serve.gateway.harness import RunningGateway, workload
from tests.serve.gateway.upstream import ScriptedServer, answering, completion

ASK: Any = [{"role": "user", "content": "My knee hurts."}]


@pytest.fixture
def servers() -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    small, large = ScriptedServer().start(), ScriptedServer().start()
    large.script = answering('{"urgency": "urgent"}')
    yield small, large
    small.stop()
    large.stop()


def cascading(large: ScriptedServer) -> Workload:
    schema = {"type": "object", "required": ["urgency"]}
    return workload(
        gateway={
            "providers": {"large": {"base_url": f"{large.url}/v1"}},
            "routes": {
                "triage": {
                    "cascade": {
                        "escalate_to": {"provider": "large", "model": "large-1"},
                        "json_schema": schema,
                    }
                }
            },
        }
    )


def report(tmp_path: Path, declared: Workload, *, prices: Path) -> dict[str, Any]:
    file = tmp_path / "flywheel.yaml"
    file.write_text(declared.model_dump_json(exclude_none=True))  # JSON is YAML
    result = CliRunner().invoke(
        app,
        ["report", "--home", str(tmp_path), "--workload", str(file), "--json"],
        env={"FLYWHEEL_PRICES": str(prices)},
        catch_exceptions=False,
    )
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_report_says_what_stayed_small_what_it_cost_and_what_it_would_have(
    tmp_path: Path, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    """Worked by hand: each answer takes 3 tokens in and 2 out.

    Small costs 3 * 1 + 2 * 1 = 5, large 3 * 10 + 2 * 10 = 50 millionths. Four requests, one of them
    escalated: 4 * 5 + 50 = 70; all by the large model: 4 * 50 = 200.
    """
    small, large = servers
    prices = tmp_path / "prices.yaml"
    prices.write_text("base-model: {input: 1, output: 1}\nlarge-1: {input: 10, output: 10}\n")
    declared = cascading(large)

    async def script(server: ScriptedServer, request: Any, body: Any) -> Any:
        from aiohttp import web

        text = "I do not know" if len(server.seen) == 1 else '{"urgency": "routine"}'
        return web.json_response(completion(text, body["model"]))

    small.script = script
    with RunningGateway(
        tmp_path,
        [small.url],
        workloads=[declared],
        keys_file=tmp_path / "keys.json",
        spend_dir=tmp_path / "gateway",
        prices_file=prices,
    ) as gateway:
        for _ in range(4):
            gateway.openai.chat.completions.create(model="triage", messages=ASK)
        gateway.drain()
    [route] = report(tmp_path, declared, prices=prices)["routes"]
    assert (route["requests"], route["calls"], route["escalated"]) == (4, 5, 1)
    assert route["stayed_small"] == 0.75
    assert route["cost_usd"] == pytest.approx(70e-6)
    assert route["would_have_cost_usd"] == pytest.approx(200e-6)
    assert route["cost_unknown"] == 0


def test_without_prices_costs_are_unknown_and_counted(
    tmp_path: Path, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    small, large = servers
    small.script = answering('{"urgency": "routine"}')
    declared = cascading(large)
    with RunningGateway(tmp_path, [small.url], workloads=[declared]) as gateway:
        gateway.openai.chat.completions.create(model="triage", messages=ASK)
        gateway.drain()
    empty = tmp_path / "prices.yaml"
    empty.write_text("{}\n")
    [route] = report(tmp_path, declared, prices=empty)["routes"]
    assert (route["cost_usd"], route["cost_unknown"]) == (None, 1)
    assert route["would_have_cost_usd"] is None


def test_an_empty_lake_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "flywheel.yaml"
    file.write_text(workload().model_dump_json(exclude_none=True))
    result = CliRunner().invoke(app, ["report", "--home", str(tmp_path), "-w", str(file)])
    assert "flywheel capture drain" in " ".join(result.stdout.split())
