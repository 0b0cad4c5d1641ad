"""Labels -> an immutable snapshot, or Held. Command: `flywheel dataset build`."""

from prefect import flow
from prefect.client.schemas.objects import State

from flywheel.cli import stories
from flywheel.cli.steps import Held, Place, build_snapshot
from flywheel_flows.artifacts import held, publish
from flywheel_flows.retry import retried

build = retried(build_snapshot, "build snapshot")


@flow(name="dataset")
def dataset(place: Place) -> str | State[object]:
    """Builds the snapshot of all usable labels; with too few new ones it ends as Held.

    Returns:
        The snapshot's id.
    """
    outcome = build(place)
    publish(place, "dataset", stories.of_snapshot(place, outcome))
    return held(outcome) if isinstance(outcome, Held) else outcome
