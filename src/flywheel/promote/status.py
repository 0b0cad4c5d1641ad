"""What serves, since when, and what is wrong: asked of every part, robust when parts are down."""

import asyncio

from flywheel.errors import FlywheelError
from flywheel.promote.fleet import Fleet
from flywheel.promote.mirror import mirror
from flywheel.promote.residency import stage, wanted
from flywheel.promote.rollout import announce
from flywheel.promote.servers import ModelServer
from flywheel.promote.steps import OnStep, timed
from flywheel.records import JsonObject, Record, Release, UtcDatetime


class ReplicaStatus(Record):
    """One model server."""

    url: str
    is_up: bool
    resident: tuple[str, ...] = ()
    """What answers there: the base model and the adapters loaded."""
    missing: tuple[str, ...] = ()
    """Champion or previous, where it lacks them."""
    problem: str | None = None


class GatewayStatus(Record):
    """The gateway, by its admin port."""

    url: str
    is_up: bool
    epoch: int | None = None
    """The release it serves; NULL when the base model was never replaced, or it is down."""
    model: str | None = None
    spool: JsonObject | None = None
    """Counters of what it captured, dropped and has yet to hand over."""
    problem: str | None = None


class StatusReport(Record):
    """One workload as it is served now."""

    workload: str
    alias: str
    epoch: int
    """0 before the first release."""
    champion: str
    previous: str | None = None
    since: UtcDatetime | None = None
    action: str | None = None
    """promote, rollback or roll_forward: how the champion came to serve."""
    actor: str | None = None
    candidate: str | None = None
    """The newest adapter, while it was never released."""
    new_labels: int | None = None
    """Labels since the last night that trained; NULL when the lake cannot be read."""
    labels_needed: int
    gateway: GatewayStatus
    replicas: tuple[ReplicaStatus, ...]
    tracking_uri: str
    problems: tuple[str, ...] = ()
    """One sentence each; empty when all is well."""


async def status(fleet: Fleet, *, new_labels: int | None = None) -> StatusReport:
    """Asks every part; what is down becomes a problem in the report, never an error.

    Args:
        fleet: what to ask.
        new_labels: counted by who can; it is passed through.
    """
    history, candidate, problems = _read_ledger(fleet)
    base = fleet.workload.base_model
    now = history[-1] if history else None
    needed = {base} | ({now.model, now.previous} if now else set())
    gateway, replicas = await asyncio.gather(
        _gateway_status(fleet, now),
        asyncio.gather(*(_replica_status(server, needed) for server in fleet.servers)),
    )
    problems += [found for found in (gateway.problem, *(r.problem for r in replicas)) if found]
    return StatusReport(
        workload=fleet.workload.name,
        alias=fleet.workload.alias,
        epoch=now.epoch if now else 0,
        champion=now.model if now else base,
        previous=now.previous if now else None,
        since=now.created_at if now else None,
        action=now.action if now else None,
        actor=now.actor if now else None,
        candidate=candidate,
        new_labels=new_labels,
        labels_needed=fleet.workload.labels.minimum_new,
        gateway=gateway,
        replicas=tuple(replicas),
        tracking_uri=fleet.tracker.uri,
        problems=tuple(problems),
    )


async def repair(fleet: Fleet, *, on_step: OnStep | None = None) -> None:
    """Brings replicas, gateway and MLflow back to what the ledger says. It moves no alias.

    For a replica that was restarted, a gateway that missed a push, an MLflow that was down. What
    cannot be repaired now is a warning to `on_step`.
    """
    now = fleet.lake.current_release(fleet.workload.name)
    for name in sorted(wanted(fleet) - {fleet.workload.base_model}):
        with timed(f"load {name}", on_step, forgiving=True):
            await stage(fleet.stored(name), fleet.servers)
    if now is not None:
        await announce(fleet, now, on_step)
    with timed("mirror", on_step, forgiving=True):
        mirror(fleet)


def _read_ledger(fleet: Fleet) -> tuple[list[Release], str | None, list[str]]:
    """The releases, the candidate if there is one, and what is wrong with the lake."""
    try:
        history = fleet.history()
        newest = next((adapter.name for adapter in fleet.adapters()), None)
    except FlywheelError as error:
        return [], None, [f"the lake cannot be read: {error}"]
    released = {flip.model for flip in history}
    return history, None if newest in released else newest, []


async def _replica_status(server: ModelServer, needed: set[str]) -> ReplicaStatus:
    try:
        resident = await server.models()
    except FlywheelError as error:
        return ReplicaStatus(url=server.url, is_up=False, problem=str(error))
    missing = tuple(sorted(needed - set(resident)))
    problem = f"{server.url} lacks {', '.join(missing)}" if missing else None
    return ReplicaStatus(
        url=server.url, is_up=True, resident=tuple(resident), missing=missing, problem=problem
    )


async def _gateway_status(fleet: Fleet, now: Release | None) -> GatewayStatus:
    url = fleet.gateway.url
    try:
        served = {found.workload: found for found in await fleet.gateway.releases()}
        spool = await fleet.gateway.spool()
    except FlywheelError as error:
        return GatewayStatus(url=url, is_up=False, problem=str(error))
    found = served.get(fleet.workload.name)
    epoch = found.epoch if found else None
    behind = now is not None and (epoch or 0) < now.epoch
    return GatewayStatus(
        url=url,
        is_up=True,
        epoch=epoch,
        model=found.model if found else None,
        spool=spool,
        problem=f"{url} serves epoch {epoch or 0}; the ledger is at {now.epoch}"
        if now is not None and behind
        else None,
    )
