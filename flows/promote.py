"""Decision -> release, or Held. Command: `flywheel promote`."""

from prefect import flow
from prefect.client.schemas.objects import State

from flywheel.cli import stories
from flywheel.cli.steps import Held, Place, release
from flywheel_flows.artifacts import held, publish
from flywheel_flows.retry import retried

flip = retried(release, "release")


@flow(name="promote")
def promote(place: Place, decision_id: str) -> str | State[object]:
    """Releases what the decision passed; a FAIL or an INCONCLUSIVE ends as Held.

    Returns:
        Served name of what users get now.
    """
    outcome = flip(place, decision_id)
    publish(place, "promote", stories.of_release(outcome))
    return held(outcome) if isinstance(outcome, Held) else outcome.model
