"""Spool -> lake. Command: `flywheel capture drain`."""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.steps import Place, drain_spool
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

drain = retried(drain_spool, "drain spool")


@flow(name="capture")
def capture(place: Place) -> None:
    """Moves everything the gateway captured so far into the lake, exactly once."""
    report = drain(place)
    publish(place, "capture", stories.of_drain(report))
