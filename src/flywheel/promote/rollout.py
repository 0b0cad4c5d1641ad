"""From a PASS to what users get.

    decision ▸ load on every replica ▸ verify by generation ▸ COMMIT
             ▸ push to the gateway ▸ confirm ▸ mirror in MLflow ▸ unload what nobody needs

The commit is a compare-and-swap append to the ledger. Killed before it, nothing has changed for
anybody; killed after it, the gateway learns of it by polling. Either way the same call again does
what is missing. There is no way round the decision.

It does not watch how the new model does: see `flywheel status`, and `flywheel rollback`.
"""

from flywheel.errors import EpochConflictError, LakeConflictError, PromotionError
from flywheel.lake import Lake
from flywheel.promote.fleet import Fleet
from flywheel.promote.ledger import next_epoch, serving, was_rolled_back
from flywheel.promote.mirror import mirror
from flywheel.promote.residency import retire, stage, verify
from flywheel.promote.steps import OnStep, timed
from flywheel.records import Decision, Release, utcnow

DECISIONS_SQL = (
    "select * from decisions where workload = ? and candidate = ? "
    "order by created_at desc, decision_id desc"
)


async def promote(
    fleet: Fleet, *, adapter: str, actor: str, reason: str = "", on_step: OnStep | None = None
) -> Release:
    """Releases an adapter that passed the gate against the model that serves now.

    Args:
        fleet: where.
        adapter: its served name.
        actor: who asks, for the ledger.
        reason: why; the gate's first reason when empty.
        on_step: told of each step, with its seconds and any warning.

    Returns:
        The release; the one that is there already when the adapter is serving.

    Raises:
        PromotionError: no PASS for it against what serves now, it was rolled back, or a replica
            refuses it. The alias is where it was.
        EpochConflictError: somebody else moved the alias meanwhile.
        UpstreamUnavailableError: a replica is down. The alias is where it was.
        AdapterError: its folder must not be served.
    """
    current = fleet.lake.current_release(fleet.workload.name)
    if current is None or current.model != adapter:
        current = await _flip(fleet, adapter, actor=actor, reason=reason, on_step=on_step)
    await announce(fleet, current, on_step)
    with timed("mirror", on_step, forgiving=True):
        mirror(fleet)
    with timed("unload", on_step, forgiving=True):
        await retire(fleet)
    return current


async def _flip(
    fleet: Fleet, adapter: str, *, actor: str, reason: str, on_step: OnStep | None
) -> Release:
    with timed("decision", on_step):
        history = fleet.history()
        decision = permission(fleet, history, adapter)
    with timed("load", on_step):
        await stage(fleet.stored(adapter), fleet.servers)
    with timed("verify", on_step):
        await verify(adapter, fleet.servers, fleet.workload.promotion)
    release = Release(
        workload=fleet.workload.name,
        epoch=next_epoch(history),
        alias=fleet.workload.alias,
        model=adapter,
        adapter=adapter,
        previous=serving(history, fleet.workload.base_model),
        action="promote",
        decision_id=decision.decision_id,
        actor=actor,
        reason=reason or next(iter(decision.reasons), "the gate passed it"),
        created_at=utcnow(),
    )
    with timed("commit", on_step):
        return commit(fleet.lake, release)


def permission(fleet: Fleet, history: list[Release], adapter: str) -> Decision:
    """The PASS that allows this promotion now.

    Raises:
        PromotionError: there is none, with what there is instead.
    """
    champion = serving(history, fleet.workload.base_model)
    undone = was_rolled_back(history, adapter)
    if undone is not None:
        raise PromotionError(
            f"{adapter} was rolled back by {undone.actor} at epoch {undone.epoch}"
            f"{f' ({undone.reason})' if undone.reason else ''}. "
            f"If it is to serve again: `flywheel roll-forward --to {adapter}`."
        )
    decisions = fleet.lake.fetch(Decision, DECISIONS_SQL, (fleet.workload.name, adapter))
    newest = next((found for found in decisions if found.champion == champion), None)
    if newest is None:
        others = sorted({found.champion for found in decisions})
        instead = f"it was judged against {', '.join(others)}" if others else "it was never judged"
        raise PromotionError(
            f"the gate has not passed {adapter} against {champion}, which serves now: {instead}. "
            f"Run `flywheel gate --candidate {adapter}`."
        )
    if newest.verdict != "PASS":
        raise PromotionError(
            f"the gate said {newest.verdict} to {adapter} against {champion}: "
            f"{'; '.join(newest.reasons)}. Nothing promotes it."
        )
    return newest


def commit(lake: Lake, release: Release) -> Release:
    """Appends to the ledger if nobody else did since it was read: the commit point.

    Raises:
        EpochConflictError: somebody did.
        LakeConflictError: the ledger could not be written, and this release is not in it.
    """
    try:
        lake.append_release(release)
    except (EpochConflictError, LakeConflictError):
        # A write can be reported as failed although it happened, and two of the same may race.
        found = lake.current_release(release.workload)
        same = found is not None and found.epoch == release.epoch
        if found is None or not same or found.model != release.model:
            raise
        return found
    return release


async def announce(fleet: Fleet, release: Release, on_step: OnStep | None) -> None:
    """Tells the gateway and asks it back. A gateway that is down polls the ledger when it is up."""
    with timed("push", on_step, forgiving=True):
        await fleet.gateway.push(release)
    with timed("confirm", on_step, forgiving=True):
        await _confirm(fleet, release)


async def _confirm(fleet: Fleet, release: Release) -> None:
    served = {found.workload: found for found in await fleet.gateway.releases()}
    found = served.get(release.workload)
    if found is None or found.epoch < release.epoch:
        at = f"epoch {found.epoch}" if found else "no release"
        raise PromotionError(
            f"{fleet.gateway.url} serves {release.workload} at {at}, not yet at {release.epoch}: "
            "`flywheel status` shows when it does."
        )
