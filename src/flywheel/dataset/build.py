"""`flywheel dataset build`: labels in the lake -> an immutable snapshot.

Select, decontaminate, drop duplicates, split by conversation, pair: the steps are pure functions.
The snapshot's id is a hash of its rows and its recipe, so building it again finds it and adds
nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from flywheel.dataset.card import RaterVote, write_card
from flywheel.dataset.decontaminate import HeldOut, decontaminate, read_held_out
from flywheel.dataset.files import is_complete, write_files
from flywheel.dataset.history import read_history
from flywheel.dataset.place import Placed, place, snapshot_id, tables_of
from flywheel.dataset.select import (
    Example,
    Labelled,
    Selection,
    answer_key,
    drop_duplicates,
    keep_newest,
    select,
)
from flywheel.dataset.split import split_conversations
from flywheel.errors import DatasetError, NotEnoughLabelsError
from flywheel.lake import Lake
from flywheel.lake.rows import from_arrow
from flywheel.records import JsonObject, Snapshot, utcnow
from flywheel.workload import Workload

_READ = ("interactions", "assessments")
_OTHER_NAMES = """
SELECT DISTINCT name FROM labels WHERE workload = ? AND name <> ? ORDER BY name LIMIT 10
"""


def build_snapshot(lake: Lake, workload: Workload, *, folder: Path) -> Snapshot:
    """Builds the snapshot of all usable labels, or finds it built.

    Args:
        lake: Where the labels are, and where the snapshot is recorded.
        workload: What is a label, how it is used, and the suite to keep out.
        folder: Where snapshots are, a folder each, named by their id.

    Raises:
        NotEnoughLabelsError: fewer than `labels.minimum_new` since the last finished night. Not
            raised for a snapshot that is there already and that no night has finished with.
        DatasetError: the labels cannot make a dataset, or the suite cannot be read.
    """
    versions = {name: at for name, at in lake.versions().items() if name in _READ}
    question = [workload.name, workload.labels.name]
    found = lake.query(_sql("labelled"), question, versions=versions)
    labelled = from_arrow(Labelled, found)
    selection = choose(labelled, workload, read_held_out(workload.suite_path))
    rows = arrange(selection.examples, workload)
    identity = snapshot_id(rows, recipe_of(workload))
    history = read_history(lake, workload.name)
    new = sum(example.interaction_id not in history.learned for example in selection.examples)
    if new < workload.labels.minimum_new and identity not in history.unfinished:
        hint = _why_few(lake, workload, selection)
        raise NotEnoughLabelsError(workload.name, new, workload.labels.minimum_new, hint=hint)
    check_teachable(rows, workload)
    tables = tables_of(rows, workload.dataset.kinds)
    snapshot = _as_recorded(
        lake,
        Snapshot(
            snapshot_id=identity,
            workload=workload.name,
            created_at=utcnow(),
            path=str(folder.absolute() / identity),
            lake_versions=versions,
            recipe=recipe_of(workload),
            counts={f"{kind}/{split}": len(table) for (kind, split), table in tables.items()},
            labels=len(selection.examples),
            new_labels=new,
        ),
    )
    if not is_complete(Path(snapshot.path)):
        votes = from_arrow(RaterVote, lake.query(_sql("raters"), question, versions=versions))
        card = write_card(snapshot, selection, votes)
        write_files(snapshot, tables, card=card, dropped=selection.dropped)
    # The snapshot's own row last: with it, all of the snapshot is there.
    lake.append([row.record(identity, workload.name) for row in rows])
    lake.append([snapshot])
    return snapshot


def choose(labelled: Sequence[Labelled], workload: Workload, held_out: HeldOut) -> Selection:
    """The examples a snapshot is made of, and what was dropped on the way. Pure."""
    steps: list[Callable[[Sequence[Example]], Selection]] = [
        lambda examples: decontaminate(examples, held_out),
        drop_duplicates,
        lambda examples: keep_newest(examples, conversations=workload.dataset.max_conversations),
    ]
    selection = select(labelled, accept_at=workload.labels.accept_at)
    dropped = Counter(selection.dropped)
    for step in steps:
        selection = step(selection.examples)
        dropped.update(selection.dropped)
    return Selection(examples=selection.examples, dropped=dict(sorted(dropped.items())))


def arrange(examples: Sequence[Example], workload: Workload) -> list[Placed]:
    """Splits by conversation, then makes the rows of each kind. Pure."""
    splits = split_conversations(
        {example.conversation_id for example in examples},
        share=workload.dataset.validation_share,
        salt=workload.name,
    )
    section = workload.dataset
    return place(examples, splits, section.kinds, max_pairs=section.max_pairs)


def recipe_of(workload: Workload) -> JsonObject:
    """The sections of the workload that decide what is in a snapshot."""
    return {
        "dataset": workload.dataset.model_dump(mode="json"),
        "labels": workload.labels.model_dump(mode="json"),
    }


def check_teachable(rows: Sequence[Placed], workload: Workload) -> None:
    """Refuses rows no model should be trained on. Pure.

    Raises:
        DatasetError: there is no row to train on, or every label gives the same answer.
    """
    if not any(row.split == "train" for row in rows):
        raise DatasetError(
            f"{workload.name}: no row to train on. A pair needs a correction that differs from "
            "what was served; add sft to dataset.kinds to learn from single answers too."
        )
    targets = {row.example.interaction_id: row.example.target for row in rows}
    if len(targets) > 1 and len({answer_key(target) for target in targets.values()}) == 1:
        answer = next(iter(targets.values())).text
        raise DatasetError(
            f"{workload.name}: all {len(targets)} labels give one answer ({answer:.80}); a model "
            "trained on them would give it to everything. Label answers of other classes too: "
            "`flywheel label summary` shows who labelled what."
        )


def _sql(name: str) -> str:
    return (files("flywheel.dataset") / f"{name}.sql").read_text(encoding="utf-8")


def _why_few(lake: Lake, workload: Workload, selection: Selection) -> str:
    """What a person needs to know who thought there were enough."""
    if selection.dropped:
        reasons = ", ".join(f"{reason} {count}" for reason, count in selection.dropped.items())
        return f"Labelled, but left out: {reasons}."
    question = [workload.name, workload.labels.name]
    others = lake.query(_OTHER_NAMES, question).column(0).to_pylist()
    if selection.examples or not others:
        return ""
    return f"No label is named {workload.labels.name!r} (labels.name), but: {', '.join(others)}."


def _as_recorded(lake: Lake, snapshot: Snapshot) -> Snapshot:
    """The snapshot as it was first recorded; at its new place, where the old one is gone."""
    sql = "SELECT * FROM snapshots WHERE workload = ? AND snapshot_id = ?"
    for known in lake.fetch(Snapshot, sql, [snapshot.workload, snapshot.snapshot_id]):
        is_there = is_complete(Path(known.path))
        return known if is_there else known.model_copy(update={"path": snapshot.path})
    return snapshot
