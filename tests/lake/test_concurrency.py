"""Several real processes at once: nothing lost, nothing doubled, one winner an epoch."""

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from flywheel.errors import EpochConflictError
from flywheel.lake import Lake
from tests.lake.writer import make_release

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300)
"""Three interpreters that start on a busy machine need their time."""


def race(lake: Lake, folder: Path, *writers: tuple[str, int]) -> list[str]:
    """Starts the writers at the same moment, and returns what each said."""
    barrier = folder / "barrier"
    barrier.mkdir()
    with ExitStack() as stack:
        processes = [
            stack.enter_context(_writer(action, lake.root, barrier, f"writer{index}", number))
            for index, (action, number) in enumerate(writers)
        ]
        for process in processes:
            stack.callback(process.kill)
        while len(list(barrier.iterdir())) < len(writers):
            assert all(process.poll() is None for process in processes), "a writer did not start"
            time.sleep(0.01)
        (barrier / "go").touch()
        said = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(writers)
    return said


def _writer(action: str, root: str, barrier: Path, name: str, number: int) -> subprocess.Popen[str]:
    module = [sys.executable, "-m", "tests.lake.writer"]
    return subprocess.Popen(
        [*module, action, root, str(barrier), name, str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_racing_appends_lose_nothing_and_double_nothing(lake: Lake, tmp_path: Path) -> None:
    """3 writers x 8 batches of one own and one shared id: 24 own + 8 shared = 32 rows.

    The table does not exist when they start, so creating it is raced too.
    """
    said = race(lake, tmp_path, *[("append", 8)] * 3)
    assert sum(map(int, said)) == 32
    found = lake.query("SELECT count(*) n, count(DISTINCT interaction_id) ids FROM interactions")
    assert found.to_pylist() == [{"n": 32, "ids": 32}]


def test_racing_releases_have_exactly_one_winner_an_epoch(lake: Lake, tmp_path: Path) -> None:
    said = race(lake, tmp_path, *[("release", 6)] * 3)
    won = sorted(int(epoch) for line in said for epoch in line.split())
    assert won == list(range(1, 7))
    ledger = lake.releases("triage")
    assert [release.epoch for release in ledger] == won
    winners = {int(e): f"writer{i}" for i, line in enumerate(said) for e in line.split()}
    assert {release.epoch: release.actor for release in ledger} == winners


def test_compaction_and_vacuum_beside_appends_lose_nothing(lake: Lake, tmp_path: Path) -> None:
    said = race(lake, tmp_path, ("append", 8), ("append", 8), ("compact", 4))
    assert int(said[0]) + int(said[1]) == 24
    found = lake.query("SELECT count(*) n, count(DISTINCT interaction_id) ids FROM interactions")
    assert found.to_pylist() == [{"n": 24, "ids": 24}]


def test_the_ledger_moves_one_epoch_at_a_time(lake: Lake) -> None:
    assert lake.current_release("triage") is None
    first, second = make_release(1), make_release(2)
    assert lake.append_release(first) == 1
    for epoch in (1, 3):
        with pytest.raises(EpochConflictError, match=f"at epoch 1, not {epoch - 1}"):
            lake.append_release(make_release(epoch))
    assert lake.append_release(second) == 2
    assert lake.current_release("triage") == second
    assert lake.releases("triage") == [first, second]


def test_workloads_have_ledgers_of_their_own(lake: Lake) -> None:
    lake.append_release(make_release(1))
    other = make_release(1, workload="coding")
    lake.append_release(other)
    assert lake.current_release("coding") == other


def test_a_release_cannot_be_appended_past_the_compare_and_swap(lake: Lake) -> None:
    with pytest.raises(TypeError, match="use append_release"):
        lake.append([make_release(7)])
    assert lake.current_release("triage") is None
