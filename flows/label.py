"""Captured interactions -> grades. Command: `flywheel label grade`."""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.steps import Place, grade_captured
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

grade = retried(grade_captured, "grade")


@flow(name="label")
def label(place: Place) -> None:
    """Runs the workload's code graders over what has no grade yet."""
    report = grade(place)
    publish(place, "label", stories.of_grades(report))
