"""Candidate and champion -> decision. Command: `flywheel gate`."""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.steps import Place, judge, stage_candidate
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

stage = retried(stage_candidate, "stage candidate")
decide = retried(judge, "judge")


@flow(name="gate")
def gate(place: Place, adapter: str = "latest") -> str:
    """Stages a candidate beside the champion and has both answer the frozen suite.

    Returns:
        The decision's id.
    """
    candidate = stage(place, adapter)
    decision_id = decide(place, candidate)
    publish(place, "gate", stories.of_decision(place, decision_id))
    return decision_id
