"""Examples and splits -> the rows of a snapshot. Pure."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flywheel.dataset.files import COLUMNS, FileRow, to_json
from flywheel.dataset.select import Example, age, canonical, prompt_key
from flywheel.records import DatasetKind, JsonObject, Message, SnapshotRow, Split

FORMAT = "flywheel snapshot 1"
"""Part of every id: a change of the files' format makes other snapshots."""


@dataclass(frozen=True)
class Placed:
    """One example as a row of one kind, in its split."""

    kind: DatasetKind
    split: Split
    example: Example

    @property
    def cells(self) -> FileRow:
        """The row as it is in the file."""
        example = self.example
        answers = {
            "completion": example.target,
            "chosen": example.target,
            "rejected": example.rejected,
        }
        cells = {
            name: _messages_json([message])
            for name, message in answers.items()
            if message is not None
        }
        cells["prompt"] = _messages_json(example.prompt)
        tools = to_json(example.tools) if example.tools else None
        return {name: cells.get(name, tools) for name in COLUMNS[self.kind]}

    def record(self, snapshot: str, workload: str) -> SnapshotRow:
        """The row as the lake remembers it: where from and how sure, without its content."""
        return SnapshotRow(
            snapshot_id=snapshot,
            workload=workload,
            interaction_id=self.example.interaction_id,
            conversation_id=self.example.conversation_id,
            kind=self.kind,
            split=self.split,
            label_source=self.example.label_source,
            strength=self.example.strength,
            raters=self.example.raters,
            agreement=self.example.agreement,
        )


def place(
    examples: Sequence[Example],
    splits: Mapping[str, Split],
    kinds: Sequence[DatasetKind],
    *,
    max_pairs: int | None = None,
) -> list[Placed]:
    """The rows of each kind: SFT from every example, DPO from those that have both answers.

    Args:
        examples: In any order; the rows come in one order, that of their prompts. Ids would be the
            order in which calls happened to arrive, and training depends on the order it reads.
        splits: Split by conversation.
        kinds: Which kinds are wanted.
        max_pairs: Of each split, those labelled last; all when None.
    """
    chosen = {
        "sft": [Placed("sft", splits[one.conversation_id], one) for one in examples],
        "dpo": newest_pairs(examples, splits, max_pairs),
    }
    rows = [row for kind in kinds for row in chosen[kind]]
    return sorted(
        rows,
        key=lambda row: (
            row.kind,
            row.split,
            prompt_key(row.example),
            row.example.interaction_id,
        ),
    )


def newest_pairs(
    examples: Sequence[Example], splits: Mapping[str, Split], limit: int | None
) -> list[Placed]:
    """The DPO rows: at most `limit` of each split, those labelled last."""
    pairs = [
        Placed("dpo", splits[one.conversation_id], one)
        for one in sorted(examples, key=age, reverse=True)
        if one.rejected is not None
    ]
    if limit is None:
        return pairs
    taken: Counter[Split] = Counter()
    kept = []
    for pair in pairs:
        taken[pair.split] += 1
        if taken[pair.split] <= limit:
            kept.append(pair)
    return kept


def tables_of(
    rows: Sequence[Placed], kinds: Sequence[DatasetKind]
) -> dict[tuple[DatasetKind, Split], list[FileRow]]:
    """The rows of each file; a file without rows is there too."""
    splits: tuple[Split, ...] = ("train", "validation")
    return {
        (kind, split): [row.cells for row in rows if (row.kind, row.split) == (kind, split)]
        for kind in kinds
        for split in splits
    }


def snapshot_id(rows: Sequence[Placed], recipe: JsonObject) -> str:
    """sha256 of rows and recipe; the same whatever order the labels were read in."""
    digest = hashlib.sha256(f"{FORMAT}\n{canonical(recipe)}\n".encode())
    for row in rows:
        example = row.example
        where = [row.kind, row.split, example.interaction_id, example.conversation_id]
        digest.update(f"{canonical([*where, row.cells])}\n".encode())
    return digest.hexdigest()


def _messages_json(messages: Sequence[Message]) -> str:
    return to_json([message.model_dump() for message in messages])
