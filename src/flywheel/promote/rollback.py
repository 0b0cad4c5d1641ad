"""Back to the model before, in well under a second, and forward again.

    residency ▸ COMMIT ▸ push ▸ confirm

The model before is still resident, so that a roll-back loads nothing, generates nothing and does
not open MLflow. Call `mirror` afterwards; until then its aliases are behind, and decide nothing.
"""

from flywheel.errors import PromotionError
from flywheel.promote.fleet import Fleet
from flywheel.promote.ledger import next_epoch, roll_forward_target, rollback_target, serving
from flywheel.promote.residency import ensure_resident
from flywheel.promote.rollout import announce, commit
from flywheel.promote.steps import OnStep, Step, log, timed
from flywheel.records import Decision, Release, utcnow

PASS_SQL = "select * from decisions where workload = ? and decision_id = ? and verdict = 'PASS'"


async def rollback(
    fleet: Fleet,
    *,
    actor: str,
    reason: str = "",
    to_base: bool = False,
    on_step: OnStep | None = None,
) -> Release:
    """Gives users the model they had before the present one; again goes further back.

    Raises:
        PromotionError: there is nothing to roll back to.
        EpochConflictError: somebody else moved the alias meanwhile.
        UpstreamUnavailableError: no replica answers. The alias is where it was.
    """
    history = fleet.history()
    target = rollback_target(history, fleet.workload.base_model, to_base=to_base)
    base = fleet.workload.base_model
    release = Release(
        workload=fleet.workload.name,
        epoch=next_epoch(history),
        alias=fleet.workload.alias,
        model=target,
        adapter=None if target == base else target,
        previous=serving(history, base),
        action="rollback",
        decision_id=None,
        actor=actor,
        reason=reason,
        created_at=utcnow(),
    )
    return await _move(fleet, release, on_step)


async def roll_forward(
    fleet: Fleet,
    *,
    actor: str,
    reason: str = "",
    to: str | None = None,
    on_step: OnStep | None = None,
) -> Release:
    """Gives users the model a roll-back took away, or another that served before and had a PASS.

    Args:
        fleet: where.
        actor: who asks, for the ledger.
        reason: why.
        to: served name; what the last roll-back left when absent.
        on_step: told of each step.

    Raises:
        PromotionError: there is nothing to roll forward to, or no PASS stands behind it.
        EpochConflictError: somebody else moved the alias meanwhile.
        UpstreamUnavailableError: no replica answers. The alias is where it was.
    """
    history = fleet.history()
    promoted = roll_forward_target(history, to=to)
    if not fleet.lake.fetch(Decision, PASS_SQL, (promoted.workload, promoted.decision_id)):
        raise PromotionError(
            f"{promoted.model} was released, but the lake has no PASS {promoted.decision_id} for "
            f"it: run `flywheel gate --candidate {promoted.model}`, then `flywheel promote`."
        )
    release = promoted.model_copy(
        update={
            "epoch": next_epoch(history),
            "alias": fleet.workload.alias,
            "previous": history[-1].model,
            "action": "roll_forward",
            "actor": actor,
            "reason": reason,
            "created_at": utcnow(),
        }
    )
    return await _move(fleet, release, on_step)


async def _move(fleet: Fleet, release: Release, on_step: OnStep | None) -> Release:
    with timed("load", on_step):
        down = await ensure_resident(fleet, release.model)
    for warning in down:
        log.warning("%s", warning)
        if on_step is not None:
            on_step(Step(name="load", seconds=0.0, warning=warning))
    with timed("commit", on_step):
        release = commit(fleet.lake, release)
    await announce(fleet, release, on_step)
    return release
