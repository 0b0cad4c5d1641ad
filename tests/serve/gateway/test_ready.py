"""GET /readyz: only who can answer with the right model and keep what was said gets requests."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from flywheel.capture import Spool
from tests.capture.tiny_disk import fill
from tests.serve.gateway.harness import Ledger, RunningGateway, eventually
from tests.serve.gateway.raw import request, send
from tests.serve.gateway.upstream import ScriptedServer

ASKING = b'{"model":"triage","messages":[{"role":"user","content":"My knee hurts."}]}'


def look(gateway: RunningGateway) -> tuple[int, dict[str, bool]]:
    try:
        with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=5) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def is_ready(gateway: RunningGateway) -> bool:
    status, said = look(gateway)
    assert status == (200 if said["ready"] else 503)
    return said["ready"]


def is_writable(gateway: RunningGateway) -> bool:
    status, said = look(gateway)
    assert said["releases_loaded"] and not said["stopping"]
    assert (status == 200) == said["spool_writable"] == said["ready"]
    return said["spool_writable"]


def test_a_gateway_is_ready_once_its_releases_are_loaded_and_until_it_is_told_to_stop(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    ledger = Ledger()
    ledger.failure = OSError("the lake is away")
    with RunningGateway(tmp_path, [upstream.url], ledger=ledger) as gateway:
        assert look(gateway) == (
            503,
            {"ready": False, "releases_loaded": False, "spool_writable": True, "stopping": False},
        )
        ledger.failure = None
        eventually(lambda: is_ready(gateway))
        ledger.failure = OSError("away again")
        reads = ledger.reads
        eventually(lambda: ledger.reads > reads + 1)
        assert is_ready(gateway), "what it knows is good enough"
        gateway.gateway.is_stopping = True
        status, said = look(gateway)
        assert (status, said["stopping"]) == (503, True)


def test_a_read_only_folder_is_noticed_with_no_call_to_tell_of_it(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    spool_dir = tmp_path / "spool"
    chattr = shutil.which("chattr") or "chattr"
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        assert is_ready(gateway)
        frozen = subprocess.run([chattr, "+i", spool_dir], capture_output=True, check=False)
        if frozen.returncode:
            pytest.skip("this user or file system cannot make a folder immutable")
        try:
            eventually(lambda: not is_writable(gateway))
            assert send(gateway.url, request(ASKING)).status == 200, "it answers all the same"
        finally:
            subprocess.run([chattr, "-i", spool_dir], check=True)
        eventually(lambda: is_writable(gateway))
        eventually(lambda: gateway.spool.counters.spooled == 1)
        assert len(gateway.interactions()) == 1


def test_a_full_disk_is_noticed_with_no_call_to_tell_of_it(
    tmp_path: Path, tiny_disk: Path, upstream: ScriptedServer
) -> None:
    spool = Spool(tiny_disk / "spool", default_workload="triage")
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        assert is_ready(gateway)
        ballast = fill(tiny_disk)
        eventually(lambda: not is_writable(gateway))
        assert send(gateway.url, request(ASKING)).status == 200
        ballast.unlink()
        eventually(lambda: is_writable(gateway))
        eventually(lambda: spool.counters.spooled == 1)
        assert spool.counters.dropped == {}


def test_a_spool_at_its_cap_is_not_ready_until_it_is_drained(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=2000, default_workload="triage")
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        assert is_ready(gateway)
        while not spool.counters.dropped:
            assert send(gateway.url, request(ASKING)).status == 200
        assert not is_writable(gateway)
        kept = spool.counters.accepted - spool.counters.dropped["spool_full"]
        assert len(gateway.interactions()) == kept
        eventually(lambda: is_writable(gateway))


def test_a_spool_that_is_full_when_the_gateway_starts_is_not_ready(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    """Regression: it was ready until it had lost a call."""
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        send(gateway.url, request(ASKING))
    spool = Spool(tmp_path / "spool", max_bytes=500, default_workload="triage")
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        assert not is_writable(gateway)
        assert len(gateway.interactions()) == 1
        eventually(lambda: is_writable(gateway))
        assert spool.counters.dropped == {}
