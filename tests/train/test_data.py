import json
from pathlib import Path

import pytest

from flywheel.errors import TrainingError
from flywheel.records import JsonObject
from flywheel.train import TrainSpec
from flywheel.train.data import load_examples
from flywheel.train.policy import load_tokenizer
from tests.train.conftest import RECIPE, chat, examples, write_parquet


def spec_of(spec: TrainSpec, folder: Path, *, max_length: int = 256) -> TrainSpec:
    training = RECIPE.model_copy(update={"max_length": max_length})
    return spec.model_copy(update={"snapshot_path": str(folder), "training": training})


def test_examples_longer_than_max_length_are_dropped_and_counted(
    tmp_path: Path, spec: TrainSpec
) -> None:
    """Tokens are bytes here; the complaint is repeated up to four times."""
    write_parquet(tmp_path / "sft-train.parquet", examples(8))
    tokenizer = load_tokenizer(spec)
    lengths = [
        len(
            tokenizer.apply_chat_template(
                json.loads(str(row["prompt"])) + json.loads(str(row["completion"])),
                return_dict=True,
            )["input_ids"]
        )
        for row in examples(8)
    ]
    limit = sorted(lengths)[4]
    found = load_examples(spec_of(spec, tmp_path, max_length=limit), "sft", "train", tokenizer)
    assert found.kept == sum(length <= limit for length in lengths)
    assert found.kept + found.dropped == 8
    assert found.dropped > 0
    assert found.longest == limit
    assert found.dataset is not None
    assert len(found.dataset) == found.kept


def test_nothing_short_enough_is_an_error_that_says_what_to_change(
    tmp_path: Path, spec: TrainSpec
) -> None:
    write_parquet(tmp_path / "sft-train.parquet", examples(3))
    with pytest.raises(TrainingError, match="all 3 sft examples are longer than training.max_"):
        load_examples(spec_of(spec, tmp_path, max_length=16), "sft", "train", load_tokenizer(spec))


def test_messages_and_tool_arguments_come_through_as_they_went_in(
    tmp_path: Path, spec: TrainSpec
) -> None:
    """Nested Arrow structs would give each call the arguments of all, as nulls."""
    calls: list[JsonObject] = [
        {"type": "function", "function": {"name": "page", "arguments": {"who": "surgeon"}}},
        {"type": "function", "function": {"name": "wait", "arguments": {"minutes": 5}}},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "page"}}])
    rows: list[JsonObject] = [
        {
            "prompt": chat(("user", "Help")),
            "completion": json.dumps(
                [{"role": "assistant", "content": None, "tool_calls": [call]}]
            ),
            "tools": tools,
        }
        for call in calls
    ]
    write_parquet(tmp_path / "sft-train.parquet", rows)
    found = load_examples(spec_of(spec, tmp_path), "sft", "train", load_tokenizer(spec)).dataset
    assert found is not None
    assert [row["completion"] for row in found] == [
        [{"role": "assistant", "content": None, "tool_calls": [call]}] for call in calls
    ]
    assert found[0]["tools"] == tools


def test_a_split_that_is_not_there_is_empty(tmp_path: Path, spec: TrainSpec) -> None:
    found = load_examples(spec_of(spec, tmp_path), "dpo", "validation", load_tokenizer(spec))
    assert found == (None, 0, 0, 0)


@pytest.mark.parametrize("content", ["torn", "no column", "not JSON"])
def test_a_file_that_is_no_dataset_is_named(tmp_path: Path, spec: TrainSpec, content: str) -> None:
    path = tmp_path / "sft-train.parquet"
    if content == "torn":
        path.write_bytes(b"PAR1")
    elif content == "no column":
        write_parquet(path, [{"prompt": chat(("user", "hi"))}])
    else:
        write_parquet(path, [{"prompt": "hi", "completion": "ho", "tools": None}])
    with pytest.raises(TrainingError, match=r"sft-train\.parquet cannot be read as sft examples"):
        load_examples(spec_of(spec, tmp_path), "sft", "train", load_tokenizer(spec))
