from deltalake import DeltaTable

from flywheel.promote import Fleet, Step, promote, repair, rollback, status
from tests.loopback import AdminPort, Replica
from tests.promote.conftest import BASE, MakeAdapter, MakeDecision

Replicas = tuple[Replica, Replica]


async def test_before_the_first_release_the_base_serves_and_all_is_well(fleet: Fleet) -> None:
    report = await status(fleet, new_labels=3)
    assert (report.epoch, report.champion, report.previous) == (0, BASE, None)
    assert (report.new_labels, report.labels_needed) == (3, 12)
    assert [replica.resident for replica in report.replicas] == [(BASE,), (BASE,)]
    assert report.gateway.spool == {"accepted": 3, "spooled": 3, "pending": 0, "dropped": {}}
    assert report.problems == ()


async def test_after_a_promotion_it_says_what_serves_and_since_when(
    fleet: Fleet, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    first, newest = adapter(1), adapter(2)
    decide(first)
    release = await promote(fleet, adapter=first.name, actor="me")
    report = await status(fleet)
    assert (report.epoch, report.champion, report.previous) == (1, first.name, BASE)
    assert report.since == release.created_at
    assert report.candidate == newest.name
    assert (report.gateway.epoch, report.gateway.model) == (1, first.name)
    assert report.problems == ()


async def test_everything_down_is_a_report_of_problems_and_not_an_error(
    fleet: Fleet, replicas: Replicas, gateway: AdminPort, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    await promote(fleet, adapter=candidate.name, actor="me")
    for server in (*replicas, gateway):
        server.stop()
    written_later = {"flywheel.schemaVersion": "99"}
    table = DeltaTable(f"{fleet.lake.root}/releases")
    table.alter.set_table_properties(written_later, raise_if_not_exists=False)
    report = await status(fleet)
    assert not report.gateway.is_up
    assert not any(replica.is_up for replica in report.replicas)
    assert len(report.problems) == 4
    assert "schema version 99" in report.problems[0]


async def test_a_replica_that_was_restarted_and_a_gateway_that_missed_a_push_are_repaired(
    fleet: Fleet,
    replicas: Replicas,
    gateway: AdminPort,
    adapter: MakeAdapter,
    decide: MakeDecision,
) -> None:
    for number in (1, 2):
        candidate = adapter(number)
        decide(candidate)
        await promote(fleet, adapter=candidate.name, actor="me")
    release = await rollback(fleet, actor="me")
    replicas[1].adapters.clear()
    gateway.served.clear()
    report = await status(fleet)
    assert report.replicas[1].missing == tuple(sorted([release.model, release.previous]))
    assert len(report.problems) == 2

    steps: list[Step] = []
    await repair(fleet, on_step=steps.append)
    assert not [step.warning for step in steps if step.warning]
    assert (await status(fleet)).problems == ()
    assert fleet.tracker.aliases("triage")["champion"] == release.model
    assert fleet.history()[-1] == release


async def test_what_cannot_be_repaired_now_is_a_warning(
    fleet: Fleet, replicas: Replicas, adapter: MakeAdapter, decide: MakeDecision
) -> None:
    candidate = adapter(1)
    decide(candidate)
    await promote(fleet, adapter=candidate.name, actor="me")
    replicas[0].stop()
    steps: list[Step] = []
    await repair(fleet, on_step=steps.append)
    assert [step.name for step in steps if step.warning] == [f"load {candidate.name}"]
