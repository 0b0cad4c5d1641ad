"""The whole loop: spool -> lake -> labels -> snapshot -> adapter -> decision -> release.

Input: a place. Output: <home>/runs/nights/<night>.json, and a run in the Prefect UI that ends as
Released, Held or Failed. Running a failed night again redoes only what is missing: every stage
finds what it did before.
Command: `flywheel run nightly`, which is `python -m flywheel_flows.nightly`.
"""

import argparse
import logging
import sys
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flywheel.cli import stories
from flywheel.cli.night import night
from flywheel.cli.steps import Place, settle, tidy_lake
from flywheel_flows.artifacts import HELD, publish
from flywheel_flows.capture import capture
from flywheel_flows.dataset import dataset
from flywheel_flows.gate import gate
from flywheel_flows.label import label
from flywheel_flows.promote import promote
from flywheel_flows.retry import retried
from flywheel_flows.train import train

tidy = retried(settle, "settle")
compact = retried(tidy_lake, "tidy lake")


@flow(name="nightly")
def nightly(place: Place, night_id: str | None = None) -> State[object]:
    """One night of a workload: learns from the day, and releases what is proven better.

    Args:
        place: the workload file and the deployment's folder.
        night_id: names the report; made when absent.
    """
    with night(place, night_id) as tonight:
        capture(place)
        label(place)
        built = dataset(place, return_state=True)
        if built.name == HELD:
            tonight.held = built.message
        else:
            tonight.snapshot_id = str(built.result())
            tonight.adapter = train(place, tonight.snapshot_id)
            tonight.decision_id = gate(place, tonight.adapter)
            promote(place, tonight.decision_id)
        tidy(place)
        compact(place)
    publish(place, "nightly", stories.of_night(place, tonight.report))
    return Completed(name=tonight.report.outcome.title(), message=tonight.report.reason)


def main() -> int:
    """Runs one night here; 0 when it was released or held, 1 when it failed."""
    parser = argparse.ArgumentParser(prog="python -m flywheel_flows.nightly", description=__doc__)
    parser.add_argument("--workload", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--night", help="names the report; made when absent")
    arguments = parser.parse_args()
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("  %(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("flywheel").addHandler(terminal)
    logging.getLogger("flywheel").setLevel(logging.INFO)
    place = Place(workload=arguments.workload, home=arguments.home)
    state = nightly(place, arguments.night, return_state=True)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
