"""One of several racing writers, in a process of its own: `python -m tests.lake.writer …`."""

import sys
import time
from pathlib import Path

from flywheel.errors import EpochConflictError
from flywheel.lake import Lake
from flywheel.records import Release, utcnow
from flywheel.testing import make_interaction


def append(lake: Lake, name: str, batches: int) -> None:
    """Appends batches of two: one id of its own and one every writer appends."""
    written = 0
    for batch in range(batches):
        identities = (f"{name}-{batch}", f"shared-{batch}")
        records = [make_interaction(interaction_id=identity) for identity in identities]
        written += lake.append(records).written
    sys.stdout.write(str(written))


def release(lake: Lake, name: str, epochs: int) -> None:
    """Tries for every epoch, and says which it won."""
    won = []
    for epoch in range(1, epochs + 1):
        try:
            lake.append_release(make_release(epoch, actor=name))
            won.append(epoch)
        except EpochConflictError:
            continue
    sys.stdout.write(" ".join(map(str, won)))


def compact(lake: Lake, _: str, times: int) -> None:
    """Compacts again and again, and vacuums what may go."""
    for _round in range(times):
        lake.compact()
        lake.vacuum()


def make_release(epoch: int, *, actor: str = "dr-a", workload: str = "triage") -> Release:
    """A release of an epoch."""
    return Release(
        workload=workload,
        epoch=epoch,
        alias="triage",
        model=f"triage-{epoch}",
        adapter=f"triage-{epoch}",
        previous=f"triage-{epoch - 1}",
        action="promote",
        decision_id="d",
        actor=actor,
        reason="better",
        created_at=utcnow(),
    )


if __name__ == "__main__":
    action, root, barrier, who, number = sys.argv[1:]
    # Importing takes longer than the race: every writer starts when the file appears.
    opened = Lake(root)
    opened.versions()
    Path(barrier, who).touch()
    while not Path(barrier, "go").exists():
        time.sleep(0.001)
    {"append": append, "release": release, "compact": compact}[action](opened, who, int(number))
