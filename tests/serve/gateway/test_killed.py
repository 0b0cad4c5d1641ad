"""A gateway under load killed with SIGKILL at random moments, again and again, on one spool.

`before_response`: whoever has an answer finds its call in the lake, once. `group`: so does whoever
has had it for longer than the window. The counters add up after every kill.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest

from flywheel.capture import drain, read_status
from flywheel.lake import Lake
from tests.serve.gateway.upstream import ScriptedServer, answering

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]
MODES = ("before_response", "group", "before_response,group")
WINDOW_S = 0.02
SCHEDULING_S = 0.5
"""Busy cores: a thread or a process that is due may wait this long for its turn."""
CONNECTIONS = 8


@dataclass
class Answer:
    """An answer that arrived whole, and how long before the kill."""

    model: str
    at: float
    age_s: float = 0.0


@dataclass
class Tally:
    """What clients saw, over all kills."""

    answers: dict[str, Answer] = field(default_factory=dict)
    kills: int = 0

    def lost(self, kept: set[str], model: str) -> list[float]:
        """Ages at the kill of answers that are nowhere."""
        return [
            answer.age_s
            for identity, answer in self.answers.items()
            if identity not in kept and answer.model == model
        ]


class Mortals:
    """Starts gateways; ends with the process that starts them."""

    def __init__(self, spool: Path, upstream: str) -> None:
        command = [sys.executable, "-m", "tests.serve.gateway.mortal", str(spool), upstream]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:  # still there only where the test failed
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.communicate(timeout=20)

    def start(self, durabilities: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{durabilities}\n")
        self._process.stdin.flush()
        pid, url = self._process.stdout.readline().split()
        self.pid = int(pid)
        return url

    def kill(self) -> float:
        """Kills it, waits until it is gone with its locks, and returns the moment before."""
        now = time.monotonic()
        with suppress(ProcessLookupError):
            while True:
                os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.001)
        self.pid = 0
        return now


async def load(url: str, models: list[str], answers: dict[str, Answer]) -> None:
    """Whole and streamed calls in turn until the gateway is gone; notes every whole answer."""
    async with aiohttp.ClientSession() as session:

        async def ask(number: int) -> None:
            while True:
                model, is_streamed = models[number % len(models)], number // 2 % 2 == 1
                body = {"model": model, "messages": HELLO, "stream": is_streamed}
                try:
                    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
                        identity = reply.headers["x-flywheel-interaction-id"]
                        async for _ in whole(reply, is_streamed=is_streamed):
                            answers[identity] = Answer(model, time.monotonic())
                except aiohttp.ClientError:
                    return
                assert reply.status == 200
                number += 1

        await asyncio.gather(*[ask(number) for number in range(CONNECTIONS)])


async def whole(reply: aiohttp.ClientResponse, *, is_streamed: bool) -> AsyncIterator[None]:
    """Yields when the answer is whole, as a client sees it: a stream at its [DONE]."""
    if not is_streamed:
        json.loads(await reply.read())
        yield
        return
    data = b""
    while b"data: [DONE]" not in data:
        more = await reply.content.readany()
        if not more:
            raise aiohttp.ClientPayloadError("cut off")
        data += more
    yield
    await reply.read()


def kill_once(mortals: Mortals, durabilities: str, seconds: float, tally: Tally) -> None:
    url = mortals.start(durabilities)
    answers: dict[str, Answer] = {}
    models = [name.replace("_", "-") for name in durabilities.split(",")]
    thread = threading.Thread(target=lambda: asyncio.run(load(url, models, answers)))
    thread.start()
    time.sleep(seconds)
    killed_at = mortals.kill()
    thread.join()
    for answer in answers.values():
        answer.age_s = killed_at - answer.at
    tally.answers |= answers
    tally.kills += 1


def kill_often(folder: Path, upstream: ScriptedServer, *, kills: int, seed: int) -> str:
    """Kills, and after each drains at once or with the next gateway up; checks all of it."""
    upstream.script = answering("Rest it, and keep it cool.")
    spool, lake, chance = folder / "spool", Lake(str(folder / "lake")), random.Random(seed)
    tally = Tally()
    with Mortals(spool, upstream.url) as mortals:
        for number in range(kills):
            seconds = chance.uniform(0.05, 0.4)
            kill_once(mortals, MODES[number % len(MODES)], seconds, tally)
            if chance.random() < 0.7 or number == kills - 1:
                assert read_status(spool).totals.adds_up
                drain(spool, lake)
                assert read_status(spool).totals.adds_up
    rows = lake.query("SELECT interaction_id FROM interactions").column(0).to_pylist()
    kept, totals = set(rows), read_status(spool).totals
    assert len(kept) == len(rows) == totals.committed, "nothing is doubled"
    assert (totals.waiting, totals.duplicates) == (0, 0)
    assert tally.lost(kept, "before-response") == []
    lost = sorted(tally.lost(kept, "group"))
    assert all(age < WINDOW_S + SCHEDULING_S for age in lost), lost[-5:]
    by_model = [
        sum(a.model == m for a in tally.answers.values()) for m in ("before-response", "group")
    ]
    assert min(by_model) > kills
    return (
        f"{tally.kills} kills; before_response: {by_model[0]} answered, 0 lost; "
        f"group: {by_model[1]} answered, {len(lost)} lost, "
        f"the oldest answered {max(lost, default=0) * 1000:.0f} ms before the kill; "
        f"{totals.quarantined} torn records in quarantine"
    )


def test_of_20_kills_none_costs_an_answered_call_but_in_the_window(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    told = kill_often(tmp_path, upstream, kills=20, seed=20)  # asserts, after every drain
    assert told.startswith("20 kills; ")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_of_200_kills_none_costs_an_answered_call_but_in_the_window(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """`pytest -m slow -s` prints what docs/capture.md quotes."""
    told = kill_often(tmp_path, upstream, kills=200, seed=200)
    assert told.startswith("200 kills; ")
    sys.stdout.write(f"\n{told}\n")
