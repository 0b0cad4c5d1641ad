"""What idempotence, validation and one schema cost: the lake beside a bare deltalake write.

`bare` is `write_deltalake(mode="append")` of ready-made Arrow rows: no records, no look for
duplicates, no safety beside other writers. `lake` is `Lake.append` of as many records; `again`
appends the same ones once more, which must add nothing. Each round runs the three one after the
other on tables of equal size, so that a noisy machine disturbs all alike; the table shows medians.

Command: `make bench NAME=lake_append`. Output: two tables, and benchmarks/results/lake_append.json.
It takes about a minute on two cores.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deltalake import write_deltalake
from rich.console import Console
from rich.table import Table

from flywheel.lake import Lake
from flywheel.lake.rows import to_arrow
from flywheel.lake.tables import TABLES
from flywheel.records import Interaction, Message, Release, new_id
from flywheel.testing import make_interaction

RESULTS = Path(__file__).parent / "results" / "lake_append.json"
BATCHES = {1: 30, 100: 20, 1_000: 12, 10_000: 5}
"""Rows a commit, and rounds."""
WRITERS, COMMITS = 4, 20
PROMPT = "Since this morning my knee hurts when I climb stairs, and it is warm to the touch. " * 20
"""With the answer about the 2.4 KB a captured call has."""
SPEC = TABLES["interactions"]


@dataclass(frozen=True)
class Line:
    """One line of the result: milliseconds, medians over the rounds."""

    rows: int
    bare_ms: float
    lake_ms: float
    again_ms: float

    @property
    def ratio(self) -> float:
        """How many times as long as the bare write the lake takes."""
        return self.lake_ms / self.bare_ms


def interactions(count: int) -> list[Interaction]:
    """New calls of a realistic size."""
    template = make_interaction(
        messages=(Message(role="user", content=PROMPT),),
        response=Message(role="assistant", content='{"urgency": "urgent"}' * 20),
    )
    return [template.model_copy(update={"interaction_id": new_id()}) for _ in range(count)]


def milliseconds(action: Callable[[], object]) -> float:
    """How long it took, once."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1_000


def side_by_side(folder: Path, rows: int, rounds: int) -> Line:
    """Appends batches of this size to a bare table and to a lake, in turns."""
    lake, bare = Lake(str(folder / f"lake-{rows}")), folder / f"bare-{rows}"

    def write_bare(records: list[Interaction]) -> None:
        write_deltalake(bare, arrow[id(records)], mode="append", partition_by=partition_by)

    partition_by = list(SPEC.partition_by)
    warm_up = interactions(1)
    arrow = {id(warm_up): to_arrow(SPEC, warm_up)}
    write_bare(warm_up)
    lake.append(warm_up)
    times: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        batch = interactions(rows)
        arrow = {id(batch): to_arrow(SPEC, batch)}
        times.append(
            (
                milliseconds(lambda batch=batch: write_bare(batch)),  # type: ignore[misc]
                milliseconds(lambda batch=batch: lake.append(batch)),  # type: ignore[misc]
                milliseconds(lambda batch=batch: lake.append(batch)),  # type: ignore[misc]
            )
        )
    bare_ms, lake_ms, again_ms = (statistics.median(column) for column in zip(*times, strict=True))
    found = lake.query("SELECT count(*) n FROM interactions").column("n")[0].as_py()
    assert found == 1 + rows * rounds, "an append was lost or doubled"
    return Line(rows, bare_ms, lake_ms, again_ms)


def release(epoch: int) -> Release:
    """The release of an epoch."""
    return Release(
        workload="triage",
        epoch=epoch,
        alias="triage",
        model=f"triage-{epoch}",
        adapter=None,
        previous="base",
        action="promote",
        decision_id=None,
        actor="benchmark",
        reason="measured",
        created_at=datetime.now(UTC),
    )


def flip_ms(folder: Path, flips: int = 20) -> float:
    """The median of a compare-and-swap on the release ledger, and the read that follows it."""
    lake = Lake(str(folder / "ledger"))
    lake.append_release(release(1))

    def flip(epoch: int) -> None:
        lake.append_release(release(epoch))
        current = lake.current_release("triage")
        assert current is not None
        assert current.epoch == epoch

    return statistics.median(
        milliseconds(lambda epoch=epoch: flip(epoch))  # type: ignore[misc]
        for epoch in range(2, 2 + flips)
    )


def write_many(root: str) -> None:
    """One of several writers: what `python lake_append.py ROOT` runs."""
    lake = Lake(root)
    for _ in range(COMMITS):
        lake.append(interactions(10))


def contended(folder: Path) -> tuple[int, float]:
    """Rows found after several processes wrote at once, and the commits a second they made."""
    lake = Lake(str(folder / "contended"))
    command = [sys.executable, __file__, lake.root]
    writers = [subprocess.Popen(command) for _ in range(WRITERS)]
    assert all(writer.wait() == 0 for writer in writers)
    rows = lake.query("SELECT count(DISTINCT interaction_id) n FROM interactions")
    commits = [commit.committed_at for commit in lake.history("interactions")]
    return rows.column("n")[0].as_py(), (len(commits) - 1) / (
        commits[0] - commits[-1]
    ).total_seconds()


def main() -> None:
    """Measures, prints, and leaves the numbers."""
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [side_by_side(folder, rows, rounds) for rows, rounds in BATCHES.items()]
        flip = flip_ms(folder)
        rows, commits_per_second = contended(folder)
    table = Table("rows a commit", "bare ms", "lake ms", "lake / bare", "again ms", "lake rows/s")
    for line in lines:
        cells = (f"{line.bare_ms:.1f}", f"{line.lake_ms:.1f}", f"{line.ratio:.2f}")
        rate = f"{line.rows / line.lake_ms * 1_000:,.0f}"
        table.add_row(f"{line.rows:,}", *cells, f"{line.again_ms:.1f}", rate)
    console.print(table)
    other = Table("what else", "measured")
    other.add_row("release: compare-and-swap, then read", f"{flip:.1f} ms")
    other.add_row(
        f"{WRITERS} processes x {COMMITS} commits: rows of {WRITERS * COMMITS * 10}", f"{rows}"
    )
    other.add_row("commits a second, all together", f"{commits_per_second:.1f}")
    console.print(other)
    result = {
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
        "deltalake": version("deltalake"),
        "load_average": os.getloadavg()[0],
        "batches": [{**asdict(line), "ratio": line.ratio} for line in lines],
        "release_ms": flip,
        "contended": {
            "writers": WRITERS,
            "rows_written": WRITERS * COMMITS * 10,
            "rows_found": rows,
            "commits_per_second": commits_per_second,
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {RESULTS}", soft_wrap=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_many(sys.argv[1])
    else:
        main()
