import asyncio
import time

import pytest

from flywheel.errors import EpochConflictError, PromotionError, UpstreamUnavailableError
from flywheel.promote import Fleet, mirror, promote, roll_forward, rollback
from flywheel.records import Release
from tests.loopback import AdminPort, Replica
from tests.promote.conftest import BASE, MakeAdapter, MakeDecision

Replicas = tuple[Replica, Replica]


@pytest.fixture
async def two(fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision) -> tuple[str, str]:
    """Two adapters promoted one after the other."""
    names = []
    for number in (1, 2):
        candidate = adapter(number)
        decide(candidate)
        await promote(fleet, adapter=candidate.name, actor="me")
        names.append(candidate.name)
    return names[0], names[1]


async def test_a_rollback_takes_well_under_a_second_and_reaches_the_gateway(
    fleet: Fleet, gateway: AdminPort, two: tuple[str, str]
) -> None:
    started = time.perf_counter()
    release = await rollback(fleet, actor="anna", reason="worse on Mondays")
    assert time.perf_counter() - started < 1
    assert (release.action, release.model, release.previous) == ("rollback", *two)
    assert release.decision_id is None
    assert gateway.served["triage"] == release == fleet.lake.current_release("triage")


async def test_rolling_back_again_goes_to_base_and_then_there_is_nothing_left(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    await rollback(fleet, actor="anna")
    release = await rollback(fleet, actor="anna")
    assert (release.model, release.adapter) == (BASE, None)
    with pytest.raises(PromotionError, match="nothing to roll back to"):
        await rollback(fleet, actor="anna")


async def test_rolling_back_to_base_skips_the_adapters_between(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    release = await rollback(fleet, actor="anna", to_base=True)
    assert (release.model, release.adapter, release.previous) == (BASE, None, two[1])


async def test_roll_forward_returns_to_what_the_rollback_left_with_its_old_pass(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    promoted = fleet.lake.current_release("triage")
    assert promoted is not None
    await rollback(fleet, actor="anna")
    release = await roll_forward(fleet, actor="anna")
    assert (release.action, release.epoch, release.model) == ("roll_forward", 4, two[1])
    assert release.decision_id == promoted.decision_id


async def test_roll_forward_to_a_named_model_that_served_before(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    await rollback(fleet, actor="anna", to_base=True)
    release = await roll_forward(fleet, actor="anna", to=two[0])
    assert release.model == two[0]
    assert release.previous == BASE


async def test_roll_forward_without_a_pass_in_the_lake_is_refused(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    forged = fleet.history()[-1].model_copy(
        update={"epoch": 3, "model": "triage-forged", "decision_id": "no such decision"}
    )
    fleet.lake.append_release(forged)
    await rollback(fleet, actor="anna")
    with pytest.raises(PromotionError, match="no PASS no such decision"):
        await roll_forward(fleet, actor="anna")


async def test_a_target_that_is_not_resident_is_loaded_and_verified_first(
    fleet: Fleet, replicas: Replicas, two: tuple[str, str]
) -> None:
    for replica in replicas:
        replica.adapters.clear()
    await rollback(fleet, actor="anna")
    assert all(two[0] in replica.adapters for replica in replicas)
    assert replicas[0].loads[-1] == two[0]


async def test_one_replica_that_is_down_does_not_hold_up_a_rollback(
    fleet: Fleet, replicas: Replicas, two: tuple[str, str]
) -> None:
    replicas[0].stop()
    release = await rollback(fleet, actor="anna")
    assert release.model == two[0]


async def test_a_rollback_with_no_replica_up_moves_nothing(
    fleet: Fleet, replicas: Replicas, two: tuple[str, str]
) -> None:
    for replica in replicas:
        replica.stop()
    with pytest.raises(UpstreamUnavailableError):
        await rollback(fleet, actor="anna")
    assert fleet.serving() == two[1]


async def test_of_two_different_moves_at_once_one_wins_and_the_other_is_told(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    outcomes = await asyncio.gather(
        rollback(fleet, actor="anna"),
        rollback(fleet, actor="ben", to_base=True),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {Release, EpochConflictError}
    assert len(fleet.history()) == 3


async def test_mlflow_is_behind_after_a_rollback_until_mirrored(
    fleet: Fleet, two: tuple[str, str]
) -> None:
    await rollback(fleet, actor="anna")
    assert fleet.tracker.aliases("triage") == {"champion": two[1], "previous": two[0]}
    mirror(fleet)
    assert fleet.tracker.aliases("triage") == {"champion": two[0], "previous": two[1]}
    await rollback(fleet, actor="anna")
    mirror(fleet)
    assert fleet.tracker.aliases("triage") == {"previous": two[0]}
