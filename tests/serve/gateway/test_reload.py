"""A provider is swapped while requests flow; a bad file changes nothing."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from flywheel.workload import Workload
from tests.serve.gateway.harness import TOKEN, RunningGateway, eventually, release, workload
from tests.serve.gateway.process import GatewayProcess
from tests.serve.gateway.upstream import ScriptedServer, answering

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


@pytest.fixture
def other() -> Iterator[ScriptedServer]:
    server = ScriptedServer(answering("Swapped.")).start()
    yield server
    server.stop()


def at(server: ScriptedServer) -> Workload:
    return workload(
        gateway={
            "providers": {"elsewhere": {"base_url": f"{server.url}/v1"}},
            "routes": {"triage": {"targets": [{"provider": "elsewhere", "model": "large"}]}},
        },
    )


class Files:
    """What a reload reads."""

    def __init__(self, *workloads: Workload) -> None:
        self.workloads = list(workloads)

    def __call__(self) -> list[Workload]:
        return self.workloads


def post(url: str) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, data=b"", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def ask(gateway: RunningGateway) -> str:
    reply = gateway.openai.chat.completions.create(model="triage", messages=HELLO)
    return str(reply.choices[0].message.content)


def test_a_provider_is_swapped_without_a_restart_and_without_a_failed_request(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    files = Files(at(upstream))
    stop = threading.Event()
    answers: list[str] = []
    with RunningGateway(tmp_path, [upstream.url], workloads=files(), load=files) as gateway:

        def ask_on() -> None:
            while not stop.is_set():
                answers.append(ask(gateway))

        thread = threading.Thread(target=ask_on)
        thread.start()
        eventually(lambda: len(answers) > 10)
        files.workloads = [at(other)]
        assert post(f"{gateway.admin_url}/admin/reload") == (
            200,
            {"reloaded": True, "aliases": ["triage"]},
        )
        before = len(answers)
        eventually(lambda: len(answers) > before + 10)
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
    assert set(answers) == {"Rest it.", "Swapped."}
    assert set(answers[before + 2 :]) == {"Swapped."}


def test_a_reload_keeps_the_champion(tmp_path: Path, upstream: ScriptedServer) -> None:
    """Guards the worst of all mistakes: a reload that falls back to the base model."""
    files = Files(workload())
    with RunningGateway(tmp_path, [upstream.url], workloads=files(), load=files) as gateway:
        gateway.ledger.latest["triage"] = release(3, "triage-abc")
        eventually(lambda: gateway.gateway.routes.find("triage").epoch == 3)
        gateway.ledger.latest.clear()
        files.workloads = [
            workload(gateway={"routes": {"second": {}}}),
        ]
        assert post(f"{gateway.admin_url}/admin/reload")[0] == 200
        ask(gateway)
        gateway.openai.chat.completions.create(model="second", messages=HELLO)
        assert [seen.body["model"] for seen in upstream.seen] == ["triage-abc"] * 2
        assert gateway.gateway.workloads == tuple(files.workloads), "live spans go by them"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ([workload("other")], "restart the gateway"),
        ([workload(), workload()], "a name and an alias of its own"),
        (
            [workload(gateway={"providers": {"p": {"base_url": "http://x", "api_key_env": "NO"}}})],
            "the environment has no NO",
        ),
    ],
)
def test_what_cannot_be_taken_over_changes_nothing(
    tmp_path: Path, upstream: ScriptedServer, changed: list[Workload], says: str
) -> None:
    files = Files(workload())
    with RunningGateway(tmp_path, [upstream.url], workloads=files(), load=files) as gateway:
        files.workloads = changed
        status, body = post(f"{gateway.admin_url}/admin/reload")
        assert (status, says in body["error"]["message"]) == (422, True)
        assert gateway.gateway.workloads == (workload(),)
        assert ask(gateway) == "Rest it."
        assert gateway.gateway.metrics.reloads == 0


def test_sighup_reloads_and_a_broken_file_is_refused_whole(
    tmp_path: Path, upstream: ScriptedServer, other: ScriptedServer
) -> None:
    options = ["--generate-admin-token"]
    with GatewayProcess(tmp_path / "home", upstream.url, options=options) as gateway:
        file = gateway.home / "flywheel.yaml"
        client = OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)

        def answer() -> str | None:
            reply = client.chat.completions.create(model="triage", messages=HELLO)
            return reply.choices[0].message.content

        file.write_text("name: triage\nalias: [", encoding="utf-8")
        os.kill(gateway.process.pid, signal.SIGHUP)
        eventually(lambda: "the old one stays" in gateway.log.read_text())
        assert answer() == "Rest it."
        file.write_text(at(other).model_dump_json(exclude_none=True), encoding="utf-8")
        os.kill(gateway.process.pid, signal.SIGHUP)
        eventually(lambda: answer() == "Swapped.")
        [provider, engine] = gateway.admin("/admin/providers")["data"]
        assert (provider["name"], provider["circuit"]) == ("elsewhere", "closed")
        assert engine["name"] == "engine"
