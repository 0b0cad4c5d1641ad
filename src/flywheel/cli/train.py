"""`flywheel train`: a snapshot in, an adapter out, with a bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    messages,
    print_json,
    print_table,
)
from flywheel.cli.steps import Place, open_fleet, train_adapter

if TYPE_CHECKING:
    from flywheel.records import Adapter
    from flywheel.train import TrainProgress


def train(
    snapshot: Annotated[
        str | None, typer.Argument(help="Snapshot id, or the beginning of one.")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="The workload's newest snapshot.")
    ] = False,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    json: JsonOption = False,
) -> None:
    """Train an adapter on a snapshot, and keep it. Nothing is served yet.

    It goes into the adapter store, the lake, and MLflow as the candidate.

    Interrupted, the same command resumes from the last epoch. Trained before, it shows the adapter.

    Example: flywheel train --latest --home demo
    """
    if (snapshot is None) != latest:
        raise typer.BadParameter("give either a snapshot id or --latest")
    place = Place(workload=workload, home=home)
    with _bar() as on_progress:
        name = train_adapter(place, snapshot or "latest", on_progress=on_progress)
    adapter = open_fleet(*place.load()).adapter(name)
    if json:
        print_json(adapter)
    else:
        _show(adapter)


@contextmanager
def _bar() -> "Iterator[Callable[[TrainProgress], None]]":
    """A bar a phase, with the newest loss and the speed."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        console=messages,
    )
    rows: dict[str, TaskID] = {}

    def advance(progress: "TrainProgress") -> None:
        if progress.phase not in rows:
            description = f"training, {progress.phase.upper()}"
            rows[progress.phase] = bar.add_task(description, total=progress.total_steps, loss="")
        row = rows[progress.phase]
        if progress.loss is not None:
            speed = (
                f", {progress.tokens_per_second:.0f} tokens/s" if progress.tokens_per_second else ""
            )
            bar.update(row, loss=f"loss {progress.loss:.3f}{speed}")
        bar.update(row, completed=progress.step)

    with bar:
        yield advance


def _show(adapter: "Adapter") -> None:
    rows: list[list[JsonValue]] = [
        ["base", escape(adapter.base_model)],
        ["continues", adapter.parent or "nothing: trained from the base"],
        ["snapshot", adapter.snapshot_id],
        ["rank", adapter.rank],
    ]
    rows += [[escape(name), f"{value:.4g}"] for name, value in sorted(adapter.metrics.items())]
    rows += [["folder", escape(adapter.path)], ["MLflow run", adapter.run_id]]
    print_table(f"adapter {escape(adapter.name)}", ["", ""], rows)
    messages.print(f"next: flywheel gate --candidate {escape(adapter.name)}")
