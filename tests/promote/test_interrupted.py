"""A promotion that ends anywhere, and the same call again."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from flywheel.promote import Fleet, Step, promote
from tests.loopback import TOKEN, AdminPort, Replica
from tests.promote.conftest import BASE, MakeAdapter, MakeDecision

STEPS = ("decision", "load", "verify", "commit", "push", "confirm", "mirror", "unload")
BEFORE_COMMIT = STEPS[:3]

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from flywheel.lake import Lake
from flywheel.promote import Fleet, HttpGatewayAdmin, HttpModelServer, promote
from flywheel.tracking import Tracker
from flywheel.workload import Workload

workload, lake, tracking, store, gateway, token, adapter, last, *servers = sys.argv[1:]

def die(step):
    if step.name == last:
        os.kill(os.getpid(), signal.SIGKILL)

fleet = Fleet(
    Workload.load(Path(workload)), Lake(lake), tuple(map(HttpModelServer, servers)),
    HttpGatewayAdmin(gateway, token=token), Tracker(tracking), Path(store),
)
asyncio.run(promote(fleet, adapter=adapter, actor="child", on_step=die))
"""


class Killed(BaseException):
    """Not an Exception, so that nothing between here and the test can handle it."""


@pytest.mark.parametrize("last", STEPS)
async def test_a_promotion_that_ended_after_any_step_is_completed_by_the_same_call(
    fleet: Fleet,
    replicas: tuple[Replica, Replica],
    gateway: AdminPort,
    adapter: MakeAdapter,
    decide: MakeDecision,
    last: str,
) -> None:
    candidate = adapter(1)
    decide(candidate)

    def die(step: Step) -> None:
        if step.name == last:
            raise Killed

    with pytest.raises(Killed):
        await promote(fleet, adapter=candidate.name, actor="first", on_step=die)
    assert fleet.serving() == (BASE if last in BEFORE_COMMIT else candidate.name)

    release = await promote(fleet, adapter=candidate.name, actor="second")
    assert fleet.lake.releases("triage") == [release]
    assert release.actor == ("second" if last in BEFORE_COMMIT else "first")
    assert gateway.served["triage"] == release
    assert fleet.tracker.aliases("triage") == {"champion": candidate.name}
    assert all(replica.loads == [candidate.name] for replica in replicas)


@pytest.mark.parametrize("last", ["verify", "commit"])
async def test_a_process_killed_on_either_side_of_the_commit_leaves_nothing_half_done(
    fleet: Fleet,
    gateway: AdminPort,
    adapter: MakeAdapter,
    decide: MakeDecision,
    workload_file: Path,
    last: str,
) -> None:
    candidate = adapter(1)
    decide(candidate)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(workload_file), fleet.lake.root, fleet.tracker.uri),
        *(str(fleet.store), fleet.gateway.url, TOKEN, candidate.name, last),
        *(server.url for server in fleet.servers),
        env=os.environ,
    )
    assert await child.wait() == -signal.SIGKILL
    assert fleet.serving() == (BASE if last == "verify" else candidate.name)
    assert gateway.served == {}
    release = await promote(fleet, adapter=candidate.name, actor="second")
    assert fleet.lake.releases("triage") == [release]
    assert gateway.served["triage"] == release
