import asyncio
import json
import os
import random
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import OpenAI

from flywheel.capture import drain, read_status
from flywheel.lake import Lake
from flywheel.records import Interaction
from tests.serve.gateway.harness import BASE, release
from tests.serve.gateway.process import GatewayProcess
from tests.serve.gateway.upstream import ScriptedServer, answering

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]
WINDOW_S = 0.02
SCHEDULING_S = 1.0
"""Two busy cores: a thread that is due may wait this long for its turn."""
GENERATE = ["--generate-admin-token"]


def flywheel(gateway: GatewayProcess, *arguments: str) -> dict[str, Any]:
    command = [*gateway.command[:3], *arguments, "--home", str(gateway.home), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_gateway_on_the_command_line_serves_captures_switches_and_drains(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    home = tmp_path / "home"
    with GatewayProcess(home, upstream.url, options=GENERATE) as gateway:
        assert (home / "admin-token").stat().st_mode & 0o777 == 0o600
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none")
        assert client.chat.completions.create(model="triage", messages=HELLO).model == BASE
        lake = Lake(str(home / "lake"))
        lake.append_release(release(1, "triage-abc"))
        gateway.admin("/admin/releases", release(1, "triage-abc").model_dump_json().encode())
        assert client.chat.completions.create(model="triage", messages=HELLO).model == "triage-abc"
        status = flywheel(gateway, "capture", "status")
        assert [writer["is_alive"] for writer in status["writers"]] == [True]
        report = flywheel(gateway, "capture", "drain")
        assert (report["interactions"], report["unsealed_writers"]) == (2, 0)
        assert gateway.end(signal.SIGTERM) == 0
    with GatewayProcess(home, upstream.url) as gateway:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none")
        assert client.chat.completions.create(model="triage", messages=HELLO).model == "triage-abc"


def test_sigterm_lets_requests_finish_and_flushes_the_spool(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    upstream.script = answering("one two three four five", delay_s=0.2)
    home = tmp_path / "home"
    answers: list[str] = []
    with GatewayProcess(home, upstream.url, options=GENERATE) as gateway:
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="triage", messages=HELLO, stream=True)
        parts = iter(stream)
        answers.append(next(parts).choices[0].delta.content or "")
        gateway.process.send_signal(signal.SIGTERM)
        answers += [part.choices[0].delta.content or "" for part in parts]
        assert gateway.process.wait(30) == 0
    assert "".join(answers) == "one two three four five "
    assert read_status(home / "spool").writers == ()
    lake = Lake(str(home / "lake"))
    assert drain(home / "spool", lake).interactions == 1
    assert lake.fetch(Interaction, "SELECT * FROM interactions")[0].status == "ok"


def test_without_a_token_it_does_not_start_and_says_what_to_do(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path, "http://127.0.0.1:9")
    result = subprocess.run(gateway.command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "the admin token is empty" in result.stderr
    assert "--generate-admin-token" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_port_is_one_line(tmp_path: Path, upstream: ScriptedServer) -> None:
    gateway = GatewayProcess(
        tmp_path, upstream.url, options=[*GENERATE, "--port", str(upstream.port)]
    )
    result = subprocess.run(gateway.command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{upstream.port}" in result.stderr
    assert "Traceback" not in result.stderr


async def load(url: str, answered: dict[str, float]) -> None:
    """Calls in a loop until the gateway is gone; notes when each answer was there, whole."""
    async with aiohttp.ClientSession() as session:

        async def ask() -> None:
            body = {"model": "triage", "messages": HELLO}
            while True:
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                        await reply.read()
                except aiohttp.ClientError:
                    return
                assert reply.status == 200
                answered[reply.headers["x-flywheel-interaction-id"]] = time.monotonic()

        await asyncio.gather(*[ask() for _ in range(8)])


@pytest.mark.parametrize("round_", range(3))
def test_a_gateway_killed_under_load_loses_at_most_the_window(
    tmp_path: Path, upstream: ScriptedServer, round_: int
) -> None:
    home = tmp_path / "home"
    answered: dict[str, float] = {}
    with GatewayProcess(home, upstream.url, options=GENERATE) as gateway:
        thread = threading.Thread(target=lambda: asyncio.run(load(gateway.url, answered)))
        thread.start()
        time.sleep(random.Random(round_).uniform(0.5, 1.5))
        os.kill(gateway.process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        thread.join()
        gateway.process.wait(10)
    lake = Lake(str(home / "lake"))
    report = drain(home / "spool", lake)
    rows = lake.fetch(Interaction, "SELECT * FROM interactions")
    kept = {row.interaction_id for row in rows}
    assert len(kept) == len(rows) == report.interactions, "nothing is doubled"
    lost = [killed_at - at for identity, at in answered.items() if identity not in kept]
    assert len(answered) > 10
    assert all(age < WINDOW_S + SCHEDULING_S for age in lost), sorted(lost)[-3:]


def test_spans_sent_to_the_gateway_are_in_the_lake_once(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """An exporter that got no answer sends again: the same span is the same row."""
    text = [{"role": "user", "parts": [{"type": "text", "content": "My knee hurts."}]}]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "Rest it."}]}]
    values = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.input.messages": json.dumps(text),
        "gen_ai.output.messages": json.dumps(answer),
    }
    span = {
        "traceId": "0123456789abcdef0123456789abcdef",
        "spanId": "0123456789abcdef",
        "name": "chat gpt-4o-mini",
        "startTimeUnixNano": "1767323045000000000",
        "endTimeUnixNano": "1767323046000000000",
        "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in values.items()],
    }
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    home = tmp_path / "home"
    with GatewayProcess(home, upstream.url, options=GENERATE) as gateway:
        for _ in range(2):
            request = urllib.request.Request(
                f"{gateway.url}/v1/traces", data=body, headers={"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert (reply.status, json.loads(reply.read())) == (200, {})
        flywheel(gateway, "capture", "drain")
    [row] = Lake(str(home / "lake")).fetch(Interaction, "SELECT * FROM interactions")
    assert row.response is not None
    assert (row.workload, row.response.text, row.duration_ms) == ("triage", "Rest it.", 1000)


def test_log_records_wait_on_disk_for_their_span_whoever_answers(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """One gateway takes them, is killed, and the next one takes the span."""
    ids = {"traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef"}
    body = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "Knee."}}]}}
    log = {**ids, "eventName": "gen_ai.user.message", "body": body}
    span = {
        **ids,
        "startTimeUnixNano": "1767323045000000000",
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "small"}},
        ],
    }
    sent = {
        "logs": {"resourceLogs": [{"scopeLogs": [{"logRecords": [log]}]}]},
        "traces": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]},
    }
    home = tmp_path / "home"
    for signal_, document in sent.items():
        with GatewayProcess(home, upstream.url, options=GENERATE) as gateway:
            request = urllib.request.Request(
                f"{gateway.url}/v1/{signal_}",
                data=json.dumps(document).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert (reply.status, json.loads(reply.read())) == (200, {})
            page = urllib.request.urlopen(f"{gateway.url}/metrics", timeout=20).read().decode()
            kind = "logs" if signal_ == "logs" else "spans"
            assert f'flywheel_gateway_otlp_total{{signal="{kind}",outcome="accepted"}} 1' in page
            gateway.end(signal.SIGKILL)
    shown = read_status(home / "spool")
    assert (shown.waiting_spans, shown.waiting_log_records) == (1, 1)
