"""A snapshot's Parquet files as the conversational datasets TRL takes.

Input: `<snapshot>/<kind>-<split>.parquet`, messages as JSON text. Output: a Dataset whose messages
are the objects that went in: `datasets.Json` keeps each as it is, where nested Arrow structs would
give every message and every tool argument the union of all keys, filled with nulls.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from flywheel.errors import TrainingError
from flywheel.records import DatasetKind, JsonObject, Split
from flywheel.train.spec import TrainSpec

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

MESSAGES: dict[DatasetKind, tuple[str, ...]] = {
    "sft": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
}
"""Columns that hold a JSON list of chat messages. All but the first are answers to it."""


class Examples(NamedTuple):
    """One split, tokenisable as it stands."""

    dataset: "Dataset | None"
    """None when no row is left."""
    kept: int
    dropped: int
    """Longer than `training.max_length`."""
    longest: int
    """Tokens of the longest kept."""


def load_examples(
    spec: TrainSpec, kind: DatasetKind, split: Split, tokenizer: "PreTrainedTokenizerBase"
) -> Examples:
    """Reads one split and drops what is too long: a cut answer would teach to stop in the middle.

    Raises:
        TrainingError: the file cannot be read, or no example fits into `max_length`.
    """
    rows = _read_rows(Path(spec.snapshot_path) / f"{kind}-{split}.parquet", kind)
    limit = spec.training.max_length
    lengths = [_length(row, kind, tokenizer) for row in rows]
    fitting = [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
    longest = max((length for length in lengths if length <= limit), default=0)
    if rows and not fitting and split == "train":
        raise TrainingError(
            f"all {len(rows)} {kind} examples are longer than training.max_length = {limit} "
            "tokens: raise it"
        )
    dropped = len(rows) - len(fitting)
    return Examples(_to_dataset(fitting, kind), len(fitting), dropped, longest)


def _read_rows(path: Path, kind: DatasetKind) -> list[JsonObject]:
    if not path.is_file():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[JsonObject] = pq.read_table(path).to_pylist()
        return [_decode(row, kind) for row in rows]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be read as {kind} examples: {error!r}. "
            "`flywheel dataset build` writes it again."
        ) from error


def _decode(row: JsonObject, kind: DatasetKind) -> JsonObject:
    decoded: JsonObject = {name: json.loads(str(row[name])) for name in MESSAGES[kind]}
    tools = row.get("tools")
    # TRL decodes this column itself.
    return {**decoded, "tools": tools if tools != "null" else None}


def _length(row: JsonObject, kind: DatasetKind, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens of the prompt with its longest answer, as the chat template writes them."""
    prompt, *answers = (_messages(row[name]) for name in MESSAGES[kind])
    tools = json.loads(str(row["tools"])) if row["tools"] else None
    return max(
        len(
            tokenizer.apply_chat_template(prompt + answer, tools=tools, return_dict=True)[
                "input_ids"
            ]
        )
        for answer in answers
    )


def _messages(value: JsonValue) -> list[JsonValue]:
    if not isinstance(value, list) or not value:
        raise TrainingError(f"a list of chat messages is expected, found {value!r:.80}")
    return value


def _to_dataset(rows: list[JsonObject], kind: DatasetKind) -> "Dataset | None":
    from datasets import Dataset, Features, Json, List, Value

    if not rows:
        return None
    features = {name: List(Json()) for name in MESSAGES[kind]}
    columns = {name: [row[name] for row in rows] for name in features}
    # A column of nothing but nulls would have no type to tokenise by.
    if any(row["tools"] for row in rows):
        features["tools"] = Value("string")
        columns["tools"] = [row["tools"] for row in rows]
    return Dataset.from_dict(columns, features=Features(features))
