"""Snapshot -> adapter. Command: `flywheel train`."""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.steps import Place, train_adapter
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

learn = retried(train_adapter, "train adapter")


@flow(name="train")
def train(place: Place, snapshot_id: str = "latest") -> str:
    """Trains an adapter on a snapshot and keeps it in the store, the lake and the registry.

    Returns:
        The adapter's served name.
    """
    adapter = learn(place, snapshot_id)
    publish(place, "train", stories.of_adapter(place, adapter))
    return adapter
