import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from flywheel.errors import ConfigError, EpochConflictError
from flywheel.records import Release
from flywheel.serve.gateway import create_admin_app
from flywheel.serve.gateway.routing import RouteTable
from tests.serve.gateway.harness import (
    BASE,
    TOKEN,
    Ledger,
    RunningGateway,
    eventually,
    release,
    workload,
)
from tests.serve.gateway.upstream import ScriptedServer, answering

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


def admin(
    gateway: RunningGateway, path: str, body: Release | bytes | None = None, token: str = TOKEN
) -> tuple[int, dict[str, Any]]:
    data = body.model_dump_json().encode() if isinstance(body, Release) else body
    request = urllib.request.Request(f"{gateway.admin_url}{path}", data=data)
    request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def served(gateway: RunningGateway) -> str:
    reply = gateway.openai.chat.completions.create(model="triage", messages=HELLO)
    return reply.model


def test_a_release_switches_the_alias_at_once(gateway: RunningGateway) -> None:
    started = time.perf_counter()
    status, body = admin(gateway, "/admin/releases", release(1, "triage-abc"))
    assert time.perf_counter() - started < 1
    assert (status, body["switched"], body["epoch"]) == (200, True, 1)
    assert served(gateway) == "triage-abc"
    status, body = admin(gateway, "/admin/releases")
    assert body["data"] == [release(1, "triage-abc").model_dump(mode="json")]
    assert body["routes"][0]["model"] == "triage-abc"


def test_the_same_release_twice_is_harmless_and_an_older_one_is_refused(
    gateway: RunningGateway,
) -> None:
    admin(gateway, "/admin/releases", release(5, "triage-abc"))
    status, body = admin(gateway, "/admin/releases", release(5, "triage-abc"))
    assert (status, body["switched"]) == (200, False)
    for late in (release(5, "triage-xyz"), release(4, "triage-abc")):
        status, body = admin(gateway, "/admin/releases", late)
        assert (status, body["error"]["code"]) == (409, "epoch_conflict")
    assert served(gateway) == "triage-abc"


def test_a_release_to_the_base_is_the_baseline_again(gateway: RunningGateway) -> None:
    admin(gateway, "/admin/releases", release(1, "triage-abc"))
    admin(gateway, "/admin/releases", release(2, BASE))
    reply = gateway.openai.chat.completions.with_raw_response.create(model="triage", messages=HELLO)
    assert reply.headers["x-flywheel-adapter"] == "none"
    assert reply.headers["x-flywheel-arm"] == "baseline"


def test_a_release_of_a_workload_that_is_not_served_or_no_release_is_refused(
    gateway: RunningGateway,
) -> None:
    status, body = admin(gateway, "/admin/releases", release(1, "x", workload="coding"))
    assert (status, body["error"]["code"]) == (404, "workload_not_found")
    status, body = admin(gateway, "/admin/releases", b'{"epoch":1}')
    assert (status, body["error"]["code"]) == (422, "invalid_release")


@pytest.mark.parametrize("token", ["", "wrong", "ä"])
def test_the_admin_port_lets_only_the_token_in(gateway: RunningGateway, token: str) -> None:
    for path in ("/admin/releases", "/admin/spool", "/nowhere"):
        status, body = admin(gateway, path, token=token)
        assert (status, body["error"]["code"]) == (401, "unauthorized")
    assert served(gateway) == BASE


def test_the_public_port_has_no_administration(gateway: RunningGateway) -> None:
    request = urllib.request.Request(f"{gateway.url}/admin/releases", data=b"{}")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(request)


def test_an_empty_admin_token_is_refused(gateway: RunningGateway) -> None:
    with pytest.raises(ConfigError, match="the admin token is empty"):
        create_admin_app(gateway.gateway, "")


def test_a_request_in_flight_finishes_on_the_adapter_it_began_with(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    admin(gateway, "/admin/releases", release(1, "triage-old"))
    upstream.script = answering("a b c d e", delay_s=0.05)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    admin(gateway, "/admin/releases", release(2, "triage-new"))
    assert {part.model for part in stream} == {"triage-old"}
    assert served(gateway) == "triage-new"
    assert [row.adapter for row in gateway.interactions()] == ["triage-old", "triage-new"]


def test_no_request_fails_while_the_alias_moves_to_and_fro(gateway: RunningGateway) -> None:
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(served(gateway))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for epoch in range(1, 21):
        model = "triage-a" if epoch % 2 else "triage-b"
        assert admin(gateway, "/admin/releases", release(epoch, model))[0] == 200
        assert served(gateway) == model
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {BASE, "triage-a", "triage-b"}
    assert gateway.gateway.metrics.requests["triage", "champion", 200] >= 20
    counters = gateway.spool.counters
    assert counters.accepted == len(answers) + 20
    assert counters.dropped == {}


def test_a_gateway_that_starts_serves_the_current_release(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    ledger = Ledger()
    ledger.latest["triage"] = release(7, "triage-abc")
    with RunningGateway(tmp_path, [upstream.url], ledger=ledger) as gateway:
        assert served(gateway) == "triage-abc"


def test_a_flip_the_gateway_was_not_told_of_is_found_in_the_ledger(
    gateway: RunningGateway,
) -> None:
    gateway.ledger.latest["triage"] = release(1, "triage-abc")
    eventually(lambda: served(gateway) == "triage-abc")


def test_what_the_ledger_says_late_does_not_undo_what_the_admin_port_said(
    gateway: RunningGateway,
) -> None:
    gateway.ledger.latest["triage"] = release(1, "triage-old")
    eventually(lambda: served(gateway) == "triage-old")
    admin(gateway, "/admin/releases", release(2, "triage-new"))
    reads = gateway.ledger.reads
    eventually(lambda: gateway.ledger.reads > reads + 2)
    assert served(gateway) == "triage-new"


def test_until_the_champion_is_known_nothing_worse_answers(
    tmp_path: Path, upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    ledger.failure = OSError("the lake is away")
    with RunningGateway(tmp_path, [upstream.url], ledger=ledger) as gateway:
        eventually(lambda: ledger.reads > 1)
        with pytest.raises(openai.InternalServerError) as caught:
            served(gateway)
        assert caught.value.status_code == 503
        assert caught.value.code == "not_ready"
        assert ready(gateway) == (503, False)
        assert "the release of triage cannot be read: the lake is away" in caplog.text
        ledger.latest["triage"] = release(3, "triage-abc")
        ledger.failure = None
        eventually(lambda: ready(gateway) == (200, True))
        assert served(gateway) == "triage-abc"
        ledger.failure = OSError("away again")
        reads = ledger.reads
        eventually(lambda: ledger.reads > reads + 1)
        assert served(gateway) == "triage-abc", "what is known is kept"
    assert gateway.gateway.metrics.release_poll_failures > 1


def ready(gateway: RunningGateway) -> tuple[int, bool]:
    try:
        with urllib.request.urlopen(f"{gateway.url}/readyz") as reply:
            return reply.status, json.loads(reply.read())["ready"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["ready"]


def test_the_spool_can_be_looked_at_and_flushed(gateway: RunningGateway) -> None:
    served(gateway)
    status, body = admin(gateway, "/admin/spool/flush", b"")
    assert (status, body["accepted"], body["spooled"], body["pending"]) == (200, 1, 1, 0)
    assert len(list(gateway.spool_dir.glob("*.seg"))) == 1
    assert admin(gateway, "/admin/spool") == (200, body)
    assert body["is_writable"] is True


def test_workloads_that_share_an_alias_are_refused() -> None:
    with pytest.raises(ConfigError, match="every workload needs a name and an alias of its own"):
        RouteTable([workload("a", alias="same"), workload("b", alias="same")])


def test_of_two_epochs_only_the_later_is_applied() -> None:
    routes = RouteTable([workload()])
    assert routes.apply(release(2, "two"))
    with pytest.raises(EpochConflictError):
        routes.apply(release(1, "one"))
    assert routes.find("triage").model == "two"
