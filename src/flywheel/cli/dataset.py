"""`flywheel dataset …`: build snapshots, look at them, export them."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from flywheel.cli.common import (
    DEFAULT_WORKLOAD,
    HomeOption,
    JsonOption,
    WorkloadOption,
    console,
    load,
    messages,
    print_json,
    print_table,
)

app = typer.Typer(
    help="Immutable training data made of labels.\n\nExample: flywheel dataset build --home demo",
    no_args_is_help=True,
)
SnapshotArgument = Annotated[
    str, typer.Argument(help="The start of a snapshot's id; the newest when left out.")
]


@app.command()
def build(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    as_json: JsonOption = False,
) -> None:
    """Build the snapshot of all usable labels; one that is there already is found, not doubled.

    Example: flywheel dataset build --home demo
    """
    from flywheel.dataset import build_snapshot, read_manifest
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    snapshot = build_snapshot(Lake.open(settings), task, folder=settings.snapshot_dir)
    if as_json:
        print_json(snapshot)
        return
    dropped = read_manifest(Path(snapshot.path)).dropped
    counts = {
        **snapshot.counts,
        "labels used": snapshot.labels,
        "of them new": snapshot.new_labels,
        **{f"left out: {reason}": count for reason, count in dropped.items()},
    }
    print_table(
        f"{task.name}: snapshot {snapshot.snapshot_id[:12]}",
        ["rows of", "count"],
        [[name, count] for name, count in counts.items()],
    )
    console.print(snapshot.path, soft_wrap=True)


@app.command("list")
def list_(
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    as_json: JsonOption = False,
) -> None:
    """List snapshots, newest first.

    Example: flywheel dataset list --home demo
    """
    from flywheel.dataset import list_snapshots
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    snapshots = list_snapshots(Lake.open(settings), task.name)
    if as_json:
        print_json(snapshots)
        return
    print_table(
        f"{task.name}: snapshots",
        ["id", "built (UTC)", "labels", "new", "rows"],
        [
            [
                snapshot.snapshot_id[:12],
                f"{snapshot.created_at:%Y-%m-%d %H:%M}",
                snapshot.labels,
                snapshot.new_labels,
                ", ".join(f"{name} {count}" for name, count in snapshot.counts.items()),
            ]
            for snapshot in snapshots
        ],
    )


@app.command()
def show(
    snapshot: SnapshotArgument = "latest",
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    as_json: JsonOption = False,
) -> None:
    """Print a snapshot's card; with --json its manifest.

    Example: flywheel dataset show --home demo
    """
    from flywheel.dataset import find_snapshot, read_card, read_manifest
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    folder = Path(find_snapshot(Lake.open(settings), task.name, snapshot).path)
    if as_json:
        print_json(read_manifest(folder))
    else:
        sys.stdout.write(read_card(folder))


@app.command()
def export(
    snapshot: SnapshotArgument = "latest",
    to: Annotated[
        Literal["trl", "openai"],
        typer.Option(help="trl: TRL's conversational format. openai: OpenAI's fine-tuning."),
    ] = "trl",
    kind: Annotated[
        Literal["sft", "dpo"], typer.Option(help="Single answers, or pairs of answers.")
    ] = "sft",
    split: Annotated[Literal["train", "validation"], typer.Option(help="Which split.")] = "train",
    out: Annotated[
        Path | None, typer.Option(help="The JSONL file to write. Default: stdout.")
    ] = None,
    home: HomeOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
) -> None:
    """Write a snapshot's rows as JSONL for another trainer.

    Example: flywheel dataset export --to openai --kind dpo --split train --out train.jsonl
    """
    from flywheel.dataset import export_rows, find_snapshot
    from flywheel.lake import Lake

    settings, task = load(home, workload)
    folder = Path(find_snapshot(Lake.open(settings), task.name, snapshot).path)
    rows = export_rows(folder, to=to, kind=kind, split=split)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    if out is None:
        sys.stdout.writelines(lines)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(lines), encoding="utf-8")
    messages.print(f"{len(lines)} rows in {out}")
