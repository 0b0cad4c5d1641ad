"""`flywheel dataset export`: a snapshot's rows as others read them, one JSON object a line.

`trl` is TRL's conversational format, `openai` what OpenAI's fine-tuning takes. `tools` is left out
where a request had none.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from flywheel.dataset.files import read_rows
from flywheel.records import DatasetKind, JsonObject, Split

Shape = Literal["trl", "openai"]


def export_rows(
    folder: Path, *, to: Shape, kind: DatasetKind, split: Split
) -> Iterator[JsonObject]:
    """The rows of one kind and split of a snapshot.

    Args:
        folder: The snapshot's folder.
        to: Whose format.
        kind: sft or dpo.
        split: train or validation.

    Raises:
        DatasetError: the folder is no complete snapshot, or has no such kind.
    """
    shape = {
        ("trl", "sft"): _as_they_are,
        ("trl", "dpo"): _as_they_are,
        ("openai", "sft"): _openai_sft,
        ("openai", "dpo"): _openai_dpo,
    }[to, kind]
    for row in read_rows(folder, kind, split):
        yield shape({name: json.loads(text) for name, text in row.items() if text is not None})


def _as_they_are(row: JsonObject) -> JsonObject:
    return row


def _openai_sft(row: JsonObject) -> JsonObject:
    prompt, completion = row["prompt"], row["completion"]
    assert isinstance(prompt, list) and isinstance(completion, list)
    return {"messages": [*prompt, *completion], **_tools(row)}


def _openai_dpo(row: JsonObject) -> JsonObject:
    return {
        "input": {"messages": row["prompt"], **_tools(row)},
        "preferred_output": row["chosen"],
        "non_preferred_output": row["rejected"],
    }


def _tools(row: JsonObject) -> JsonObject:
    return {"tools": row["tools"]} if "tools" in row else {}
