"""Captured interactions -> grades and verdicts.

Commands: `flywheel label grade`, and `flywheel judge run` for each judge with the purpose `label`.
"""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.judging import run_label_judges
from flywheel.cli.steps import Place, grade_captured
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

grade = retried(grade_captured, "grade")
ask_judges = retried(run_label_judges, "judge")


@flow(name="label")
def label(place: Place) -> None:
    """Runs the workload's code graders, then its judges, over what they have not judged yet."""
    report = grade(place)
    publish(place, "label", stories.of_grades(report))
    outcomes = ask_judges(place)
    publish(place, "judge", stories.of_judges(outcomes))
