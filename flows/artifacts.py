"""What a run leaves for people in the Prefect UI. Nothing reads it back."""

import logging

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flywheel.cli.steps import Held, Place
from flywheel.cli.stories import Story

log = logging.getLogger("flywheel.flows")

HELD = "Held"
RELEASED = "Released"


def publish(place: Place, stage: str, story: Story) -> None:
    """Leaves a story as a table and a page, under `<workload>-<stage>`."""
    log.info("%s: %s", stage, story.title)
    _, workload = place.load()
    key = f"{workload.name}-{stage}"
    create_table_artifact([dict(row) for row in story.rows], key=key, description=story.title)
    create_markdown_artifact(story.markdown, key=f"{key}-page", description=story.title)


def held(outcome: Held) -> State[object]:
    """A run that ended well and early: green in the UI, named Held, with the reason."""
    return Completed(name=HELD, message=outcome.reason)
