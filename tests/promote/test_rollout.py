import asyncio
from pathlib import Path

import pytest

from flywheel.errors import (
    AdapterError,
    EpochConflictError,
    PromotionError,
    UpstreamUnavailableError,
)
from flywheel.promote import Fleet, Step, promote, rollback, stage
from flywheel.records import Release
from tests.loopback import AdminPort, Replica
from tests.promote.conftest import BASE, MakeAdapter, MakeDecision

Replicas = tuple[Replica, Replica]


async def test_staging_loads_on_every_replica_and_moves_no_alias(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter
) -> None:
    candidate = adapter(1)
    await stage(candidate, fleet.servers)
    assert all(candidate.name in replica.adapters for replica in replicas)
    assert fleet.serving() == BASE


async def test_a_passed_candidate_is_loaded_verified_committed_and_announced(
    fleet: Fleet,
    replicas: Replicas,
    gateway: AdminPort,
    adapter: MakeAdapter,
    decide: MakeDecision,
) -> None:
    candidate = adapter(1)
    decision = decide(candidate)
    steps: list[Step] = []
    release = await promote(fleet, adapter=candidate.name, actor="me", on_step=steps.append)
    assert release == fleet.lake.current_release("triage")
    assert (release.epoch, release.model, release.previous) == (1, candidate.name, BASE)
    assert release.decision_id == decision.decision_id
    assert gateway.served["triage"] == release
    assert all(candidate.name in replica.adapters for replica in replicas)
    assert [step.name for step in steps] == [
        *("decision", "load", "verify", "commit", "push", "confirm", "mirror", "unload")
    ]
    assert not [step.warning for step in steps if step.warning]
    assert fleet.tracker.aliases("triage") == {"champion": candidate.name}


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", None])
async def test_nothing_but_a_pass_promotes(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision, verdict: str | None
) -> None:
    candidate = adapter(1)
    if verdict:
        decide(candidate, verdict)
    with pytest.raises(PromotionError, match=verdict or "never judged"):
        await promote(fleet, adapter=candidate.name, actor="me")
    assert fleet.lake.releases("triage") == []


async def test_a_pass_against_a_former_champion_does_not_promote(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    first, second = adapter(1), adapter(2)
    decide(first)
    decide(second)
    await promote(fleet, adapter=first.name, actor="me")
    with pytest.raises(PromotionError, match=f"not passed {second.name} against {first.name}"):
        await promote(fleet, adapter=second.name, actor="me")
    assert fleet.serving() == first.name


async def test_a_later_fail_takes_an_earlier_pass_back(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    decide(candidate, "FAIL")
    with pytest.raises(PromotionError, match="the gate said FAIL"):
        await promote(fleet, adapter=candidate.name, actor="me")


async def test_promoting_again_changes_nothing(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    once = await promote(fleet, adapter=candidate.name, actor="me")
    assert await promote(fleet, adapter=candidate.name, actor="somebody else") == once
    assert fleet.lake.releases("triage") == [once]
    assert replicas[0].loads == [candidate.name]


async def test_a_rolled_back_adapter_is_not_promoted_again_by_a_repeated_night(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    await promote(fleet, adapter=candidate.name, actor="nightly")
    await rollback(fleet, actor="anna", reason="too terse")
    with pytest.raises(PromotionError, match=r"rolled back by anna at epoch 2 \(too terse\)"):
        await promote(fleet, adapter=candidate.name, actor="nightly")


@pytest.mark.parametrize("down", [0, 1])
async def test_an_engine_that_is_down_leaves_the_alias_where_it_was_and_a_repeat_completes(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision, down: int
) -> None:
    candidate = adapter(1)
    decide(candidate)
    replicas[down].stop()
    with pytest.raises(UpstreamUnavailableError, match=replicas[down].url):
        await promote(fleet, adapter=candidate.name, actor="me")
    assert fleet.serving() == BASE
    replicas[down].start()
    release = await promote(fleet, adapter=candidate.name, actor="me")
    assert fleet.serving() == release.model == candidate.name


async def test_a_replica_that_answers_nothing_stops_the_promotion(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    replicas[1].answer = lambda model, messages: " \n"
    with pytest.raises(PromotionError, match=f"{replicas[1].url} answered nothing"):
        await promote(fleet, adapter=candidate.name, actor="me")
    assert fleet.serving() == BASE


async def test_a_replica_that_answers_as_another_model_stops_the_promotion(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    replicas[0].answers_as = BASE
    with pytest.raises(PromotionError, match=f"answered as {BASE}"):
        await promote(fleet, adapter=candidate.name, actor="me")
    assert fleet.serving() == BASE


async def test_a_gateway_that_is_down_is_a_warning_and_not_a_lost_promotion(
    fleet: Fleet, gateway: AdminPort, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    gateway.stop()
    steps: list[Step] = []
    release = await promote(fleet, adapter=candidate.name, actor="me", on_step=steps.append)
    assert fleet.lake.current_release("triage") == release
    assert {step.name for step in steps if step.warning} == {"push", "confirm"}


async def test_a_corrupted_adapter_never_reaches_a_replica(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    weights = Path(candidate.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AdapterError, match="truncated"):
        await promote(fleet, adapter=candidate.name, actor="me")
    assert replicas[0].adapters == {}


async def test_an_unknown_adapter_is_named_with_those_there_are(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    known = adapter(1)
    ghost = known.model_copy(update={"name": "triage-ffffffffffff"})
    decide(ghost)
    with pytest.raises(PromotionError, match=f"no adapter 'triage-ffff.*{known.name}"):
        await promote(fleet, adapter=ghost.name, actor="me")


async def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    first, second = adapter(1), adapter(2)
    decide(first)
    decide(second)
    outcomes = await asyncio.gather(
        promote(fleet, adapter=first.name, actor="a"),
        promote(fleet, adapter=second.name, actor="b"),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes} == {Release, EpochConflictError}
    assert len(fleet.lake.releases("triage")) == 1


async def test_the_same_promotion_twice_at_once_is_one_release(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    one, two = await asyncio.gather(
        promote(fleet, adapter=candidate.name, actor="a"),
        promote(fleet, adapter=candidate.name, actor="b"),
    )
    assert one == two
    assert fleet.lake.releases("triage") == [one]


async def test_champion_previous_and_candidate_stay_resident_and_older_ones_go(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    names = []
    for number in (1, 2, 3):
        candidate = adapter(number)
        decide(candidate)
        await promote(fleet, adapter=candidate.name, actor="me")
        names.append(candidate.name)
    replicas[0].adapters["billing-aaaaaaaaaaaa"] = "another workload's"
    newest = adapter(4)
    await stage(newest, fleet.servers)
    await promote(fleet, adapter=names[2], actor="me")
    assert set(replicas[0].adapters) == {*names[1:], newest.name, "billing-aaaaaaaaaaaa"}
    assert set(replicas[1].adapters) == {*names[1:], newest.name}


async def test_an_unload_that_hangs_holds_nothing_up_for_long(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    for number in (1, 2):
        older = adapter(number)
        decide(older)
        await promote(fleet, adapter=older.name, actor="me")
    candidate = adapter(3)
    decide(candidate)
    replicas[0].unload_hangs = True
    steps: list[Step] = []
    await promote(fleet, adapter=candidate.name, actor="me", on_step=steps.append)
    assert fleet.serving() == candidate.name
    assert steps[-1].name == "unload"
    assert steps[-1].seconds < 10
