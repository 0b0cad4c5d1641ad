"""Two real worker processes behind one port: both answer, both follow, one is killed."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flywheel.capture import drain
from flywheel.errors import ConfigError
from flywheel.lake import Lake
from flywheel.records import Interaction
from flywheel.serve.gateway.listen import Address, listen, reserve
from tests.serve.gateway.harness import eventually, release, workload
from tests.serve.gateway.process import GatewayProcess
from tests.serve.gateway.raw import request, send
from tests.serve.gateway.upstream import ScriptedServer, answering

BODY = {"model": "triage", "messages": [{"role": "user", "content": "My knee hurts."}]}
WORKERS = ["--workers", "2", "--generate-admin-token"]


@pytest.fixture
def gateway(tmp_path: Path, upstream: ScriptedServer) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "home", upstream.url, options=WORKERS) as running:
        yield running


class Load:
    """Clients in a thread, some with a new connection for each request."""

    def __init__(self, url: str) -> None:
        self._url, self._stop = f"{url}/v1/chat/completions", threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.answered: dict[str, float] = {}
        """When each answer came, by its interaction id."""
        self.models: list[tuple[float, str]] = []
        """When each request left, and who answered."""
        self.failed = 0
        """Connections that broke."""
        self.refused = 0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession() as kept,
            aiohttp.ClientSession(connector=connector) as fresh,
        ):
            await asyncio.gather(*(self._client(session) for session in [kept, fresh] * 4))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            left = time.monotonic()
            try:
                async with session.post(self._url, json=BODY) as reply:
                    answer = await reply.json()
                    self.refused += reply.status != 200
            except aiohttp.ClientError:
                self.failed += 1
                await asyncio.sleep(0.005)
                continue
            self.answered[reply.headers["x-flywheel-interaction-id"]] = time.monotonic()
            self.models.append((left, answer.get("model")))


def page(url: str, token: str = "") -> str:
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return str(reply.read().decode())


def workers_of(gateway: GatewayProcess) -> dict[int, int]:
    """The processes, by worker; read off what the kernel knows."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(gateway.process.pid)], capture_output=True, text=True
    )
    return dict(enumerate(sorted(map(int, found.stdout.split()))))


def requests_of(gateway: GatewayProcess) -> dict[str, int]:
    """Requests answered, by worker: the public port is asked until each has shown its page."""
    seen: dict[str, int] = {}
    series = re.compile(r'requests_total\{.*code="200",worker="(\d)"\} (\d+)')
    for _ in range(200):
        if found := series.search(page(gateway.url)):
            seen[found[1]] = int(found[2])
        if len(seen) == 2:
            break
    return seen


def captured(gateway: GatewayProcess) -> list[str]:
    lake = Lake(str(gateway.home / "lake"))
    drain(gateway.home / "spool", lake)
    found = lake.fetch(Interaction, "SELECT * FROM interactions")
    return [one.interaction_id for one in found]


def test_both_answer_and_every_answer_is_captured_once(gateway: GatewayProcess) -> None:
    with Load(gateway.url) as load:
        eventually(lambda: len(load.answered) > 200)
    assert (load.failed, load.refused) == (0, 0)
    by_worker = requests_of(gateway)
    assert sorted(by_worker) == ["0", "1"] and all(by_worker.values())
    assert sum(by_worker.values()) == len(load.answered)
    token = (gateway.home / "admin-token").read_text()
    summed = page(gateway.admin_url, token)
    assert f'code="200"}} {len(load.answered)}\n' in summed
    assert 'flywheel_gateway_worker_up{worker="1"} 1' in summed
    spool = gateway.admin("/admin/spool/flush", b"")
    assert (spool["accepted"], spool["is_writable"], spool["behind"]) == (
        len(load.answered),
        True,
        [],
    )
    assert Counter(captured(gateway)) == Counter(dict.fromkeys(load.answered, 1))
    assert gateway.end(signal.SIGTERM) == 0


def test_a_flip_reaches_both_within_a_second_and_fails_nobody(gateway: GatewayProcess) -> None:
    new = release(1, "triage-abc")
    with Load(gateway.url) as load:
        eventually(lambda: len(load.answered) > 50)
        asked = time.monotonic()
        reply = gateway.admin("/admin/releases", new.model_dump_json().encode())
        switched = time.monotonic()
        assert (reply["switched"], reply["model"], reply["behind"]) == (True, "triage-abc", [])
        before = len(load.answered)
        eventually(lambda: len(load.answered) > before + 100)
    assert switched - asked < 1
    assert (load.failed, load.refused) == (0, 0)
    late = {model for left, model in load.models if left > switched}
    early = {model for left, model in load.models if left < asked}
    assert (late, "base-model" in early) == ({"triage-abc"}, True)
    shown = gateway.admin("/admin/releases")
    assert [one["epoch"] for one in shown["data"]] == [1]
    assert [route["model"] for route in shown["routes"]] == ["triage-abc"]
    old = release(1, "triage-other").model_dump_json().encode()
    with pytest.raises(urllib.error.HTTPError, match="409"):
        gateway.admin("/admin/releases", old)


@pytest.mark.parametrize(
    ("body", "header", "status"),
    [
        (b"garbage", b"Content-Encoding: gzip", 400),
        (b"x" * (2 << 20), b"X-Other: 1", 413),
        (b"[" * 100_000, b"X-Other: 1", 422),
    ],
    ids=["packed", "large", "deep"],
)
def test_a_bad_body_at_the_admin_port_is_refused_by_reason(
    gateway: GatewayProcess, body: bytes, header: bytes, status: int
) -> None:
    """Regression: the first two were 500 and aiohttp's own page."""
    token = (gateway.home / "admin-token").read_text().strip()
    headers = [b"Authorization: Bearer " + token.encode(), header]
    reply = send(gateway.admin_url, request(body, "/admin/releases", headers=headers))
    assert reply.status == status
    assert json.loads(reply.body)["error"]["type"] == "invalid_request_error"


def test_one_that_hangs_is_named_within_a_second(gateway: GatewayProcess) -> None:
    new = release(1, "triage-abc").model_dump_json().encode()
    hung = workers_of(gateway)[1]
    os.kill(hung, signal.SIGSTOP)
    try:
        asked = time.monotonic()
        reply = gateway.admin("/admin/releases", new)
        assert time.monotonic() - asked < 2
        assert (reply["switched"], reply["workers"], reply["behind"]) == (True, 2, [1])
        assert gateway.admin("/admin/spool")["is_writable"] is False
        assert "workers that do not follow yet: [1]" in gateway.log.read_text()
    finally:
        os.kill(hung, signal.SIGCONT)
    eventually(lambda: gateway.admin("/admin/releases", new)["behind"] == [])
    assert gateway.admin("/admin/releases")["routes"][0]["epoch"] == 1


def test_one_that_is_killed_under_load_comes_back_and_loses_no_more_than_the_window(
    gateway: GatewayProcess,
) -> None:
    victim = workers_of(gateway)[1]
    with Load(gateway.url) as load:
        eventually(lambda: len(load.answered) > 100)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: "was killed by SIGKILL" in gateway.log.read_text())
        eventually(lambda: len(workers_of(gateway)) == 2)
        eventually(lambda: len(requests_of(gateway)) == 2)
        before = len(load.answered)
        eventually(lambda: len(load.answered) > before + 100)
    assert load.refused == 0
    assert load.failed <= 8 * 3  # what was on its way, not a time without answers
    rows = Counter(captured(gateway))
    assert set(rows.values()) == {1}
    lost = set(load.answered) - set(rows)
    # The window is 20 ms; a busy machine fsyncs late, and the answer must cross it too.
    assert all(killed - 0.25 < load.answered[one] <= killed + 0.05 for one in lost)
    summed = page(gateway.admin_url, (gateway.home / "admin-token").read_text())
    assert "flywheel_gateway_worker_restarts_total 1" in summed


def test_sighup_and_a_reload_reach_all_and_those_who_come_later(
    gateway: GatewayProcess, upstream: ScriptedServer
) -> None:
    file = gateway.home / "flywheel.yaml"

    def serve_also(alias: str) -> None:
        changed = workload(gateway={"routes": {alias: {}}})
        file.write_text(changed.model_dump_json(exclude_none=True), encoding="utf-8")

    def answers() -> set[str]:
        """Every answer to the question which models there are, over new connections."""
        found = set()
        for _ in range(24):
            with urllib.request.urlopen(f"{gateway.url}/v1/models", timeout=20) as reply:
                found.add(reply.read().decode())
        return found

    def is_known(alias: str) -> bool:
        return all(f'"{alias}"' in answer for answer in answers())

    serve_also("second")
    os.kill(gateway.process.pid, signal.SIGHUP)
    eventually(lambda: is_known("second"))
    serve_also("third")
    reply: dict[str, Any] = gateway.admin("/admin/reload", b"")
    assert (reply["aliases"], reply["behind"]) == (["third", "triage"], [])
    assert is_known("third")
    file.write_text("name: triage\nalias: [", encoding="utf-8")
    os.kill(gateway.process.pid, signal.SIGHUP)
    eventually(lambda: "the old one stays" in gateway.log.read_text())
    os.kill(workers_of(gateway)[0], signal.SIGKILL)  # its successor cannot read the file
    eventually(lambda: "was killed by SIGKILL" in gateway.log.read_text())
    assert gateway.admin("/admin/releases")["behind"] == []
    assert is_known("third")


def test_sigterm_lets_both_finish_what_they_have(
    gateway: GatewayProcess, upstream: ScriptedServer
) -> None:
    upstream.script = answering("Rest it.", delay_s=0.4)
    url, body = f"{gateway.url}/v1/chat/completions", json.dumps(BODY).encode()

    def ask(_: int) -> int:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return int(reply.status)

    with ThreadPoolExecutor(12) as pool:
        asked = pool.map(ask, range(12))
        eventually(lambda: len(upstream.seen) == 12)
        assert gateway.end(signal.SIGTERM) == 0
        assert list(asked) == [200] * 12
    assert len(captured(gateway)) == 12


def test_workers_end_when_their_parent_is_killed(gateway: GatewayProcess) -> None:
    pids = workers_of(gateway).values()
    assert len(pids) == 2
    gateway.process.kill()
    gateway.process.wait(20)

    def is_gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    eventually(lambda: all(map(is_gone, pids)))


def test_a_worker_that_cannot_start_ends_them_all_and_says_why(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    process = GatewayProcess(tmp_path / "home", upstream.url, options=WORKERS)
    (process.home / "gateway-keys.json").write_text("{", encoding="utf-8")
    ended = subprocess.run(process.command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "gateway-keys.json" in ended.stderr
    assert "a worker ended before it answered" in ended.stderr


def test_a_second_gateway_does_not_take_half_of_the_port() -> None:
    held = reserve(Address("127.0.0.1", 0))
    port = held.getsockname()[1]
    with held, listen(Address("127.0.0.1", port), is_shared=True) as one:
        with listen(Address("127.0.0.1", port), is_shared=True) as other:
            assert one.getsockname() == other.getsockname()
        with pytest.raises(ConfigError, match="take another port"):
            reserve(Address("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
