"""What an answer waits for: nothing, or the disk, as its workload says."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flywheel.capture import Spool
from tests.capture.tiny_disk import fill
from tests.serve.gateway.harness import RunningGateway, workload
from tests.serve.gateway.upstream import ScriptedServer, answering, streaming

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]
SLOW_S = 0.3
EVENTS = [b'data: {"choices":[]}\n\n', b"data: [DONE]\n\n"]


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fsync of a segment takes its time."""
    fdatasync = os.fdatasync

    def slowly(descriptor: int) -> None:
        time.sleep(SLOW_S)
        fdatasync(descriptor)

    monkeypatch.setattr("flywheel.capture.writer.os.fdatasync", slowly)


@pytest.fixture
def both(tmp_path: Path, upstream: ScriptedServer) -> Iterator[RunningGateway]:
    """One gateway, two workloads."""
    workloads = [
        workload("careful", capture={"durability": "before_response"}),
        workload("quick", capture={"durability": "group"}),
    ]
    with RunningGateway(tmp_path, [upstream.url], workloads=workloads) as running:
        yield running


async def test_a_whole_answer_leaves_after_the_fsync_where_its_workload_says_so(
    both: RunningGateway, slow_disk: None
) -> None:
    async with aiohttp.ClientSession() as session:
        for name, waits in (("quick", False), ("careful", True)):
            started = time.monotonic()
            await ask(session, both, name)
            assert (time.monotonic() - started >= SLOW_S) is waits
        assert both.spool.counters.spooled == 2


async def test_a_stream_flows_at_once_and_only_its_done_line_waits(
    both: RunningGateway, upstream: ScriptedServer, slow_disk: None
) -> None:
    upstream.script = streaming(EVENTS, pause_s=0.01)
    body = {"model": "careful", "messages": HELLO, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{both.url}/v1/chat/completions", json=body) as reply,
    ):
        first = await reply.content.readany()
        assert first == EVENTS[0]
        assert both.spool.counters.spooled == 0, "nothing is written before the answer is whole"
        started = time.monotonic()
        assert await reply.content.readany() == EVENTS[1]
        assert time.monotonic() - started > SLOW_S / 2
        assert both.spool.counters.spooled == 1


async def test_a_stream_without_a_done_line_waits_at_its_end(
    both: RunningGateway, upstream: ScriptedServer, slow_disk: None
) -> None:
    upstream.script = streaming(EVENTS[:1])
    body = {"model": "careful", "messages": HELLO, "stream": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{both.url}/v1/chat/completions", json=body) as reply,
    ):
        await reply.read()
        assert both.spool.counters.spooled == 1


async def test_an_error_answer_waits_too(tmp_path: Path, slow_disk: None) -> None:
    careful = workload(capture={"durability": "before_response"})
    with RunningGateway(tmp_path, ["http://127.0.0.1:9"], workloads=[careful]) as gateway:
        async with aiohttp.ClientSession() as session:
            assert (await ask(session, gateway, "triage"))[0] == 503
        assert gateway.spool.counters.spooled == 1


async def test_feedback_is_accepted_after_the_fsync_too(
    both: RunningGateway, slow_disk: None
) -> None:
    """Nobody says whose it is: the most careful workload decides."""
    async with aiohttp.ClientSession() as session:
        for named, waits in (("quick", False), ("careful", True), (None, True)):
            body = {"interaction_id": "i", "name": "urgency", "value": 1, "workload": named}
            started = time.monotonic()
            async with session.post(f"{both.url}/v1/feedback", json=body) as reply:
                assert reply.status == 202
            assert (time.monotonic() - started >= SLOW_S) is waits


async def test_a_disk_that_refuses_delays_the_answer_by_a_bounded_time(
    tiny_disk: Path, upstream: ScriptedServer
) -> None:
    upstream.script = answering("Rest it. " * 1000)
    spool = Spool(tiny_disk / "spool", durable_timeout_s=0.3)
    careful = workload(capture={"durability": "before_response"})
    with RunningGateway(tiny_disk, [upstream.url], workloads=[careful], spool=spool) as gateway:
        ballast = fill(tiny_disk)
        async with aiohttp.ClientSession() as session:
            started = time.monotonic()
            status, content = await ask(session, gateway, "triage")
            assert (status, content[:8]) == (200, "Rest it.")
            assert 0.2 < time.monotonic() - started < 5
            async with session.get(f"{gateway.url}/metrics") as page:
                assert "flywheel_capture_late_total 1\n" in await page.text()
        ballast.unlink()
        assert spool.seal()
        assert (spool.counters.late, spool.counters.spooled) == (1, 1)


async def ask(
    session: aiohttp.ClientSession, gateway: RunningGateway, name: str
) -> tuple[int, str]:
    body = {"model": name, "messages": HELLO}
    async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as reply:
        found = json.loads(await reply.read())
        choices = found.get("choices")
        return reply.status, choices[0]["message"]["content"] if choices else ""
