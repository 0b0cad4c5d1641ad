import json
from pathlib import Path

import pytest

from flywheel.dataset import export_rows
from flywheel.dataset.files import write_files
from flywheel.dataset.place import place, tables_of
from flywheel.dataset.select import select
from flywheel.errors import DatasetError
from flywheel.records import DatasetKind, JsonObject, Snapshot
from tests.dataset.make import START, labelled, said

CALL: JsonObject = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL: JsonObject = {"type": "function", "function": {"name": "f"}}
QUESTION = {"role": "user", "content": "Question i1?"}
SERVED = {"role": "assistant", "content": "Rest it."}
RIGHT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
PLAIN_QUESTION = {"role": "user", "content": "Question i2?"}
PLAIN = {"role": "assistant", "content": "Call 112."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two corrected answers: one with tools, one without."""
    rows = [labelled("i1", correction=said(None, tool_calls=[CALL]), tools=[TOOL]), labelled("i2")]
    examples = select(rows, accept_at=1.0).examples
    placed = place(examples, {"c-i1": "train", "c-i2": "train"}, ("sft", "dpo"))
    snapshot = Snapshot(
        snapshot_id="0" * 64,
        workload="triage",
        created_at=START,
        path=str(tmp_path / "snapshot"),
        lake_versions={},
        recipe={},
        counts={},
        labels=2,
        new_labels=2,
    )
    write_files(snapshot, tables_of(placed, ("sft", "dpo")), card="", dropped={})
    return tmp_path / "snapshot"


def test_trl_sft_is_prompt_completion_and_tools(folder: Path) -> None:
    assert list(export_rows(folder, to="trl", kind="sft", split="train")) == [
        {"prompt": [QUESTION], "completion": [RIGHT], "tools": [TOOL]},
        {"prompt": [PLAIN_QUESTION], "completion": [PLAIN]},
    ]


def test_trl_dpo_is_prompt_chosen_and_rejected(folder: Path) -> None:
    assert list(export_rows(folder, to="trl", kind="dpo", split="train")) == [
        {"prompt": [QUESTION], "chosen": [RIGHT], "rejected": [SERVED], "tools": [TOOL]},
        {"prompt": [PLAIN_QUESTION], "chosen": [PLAIN], "rejected": [SERVED]},
    ]


def test_openai_sft_is_messages_and_tools(folder: Path) -> None:
    assert list(export_rows(folder, to="openai", kind="sft", split="train")) == [
        {"messages": [QUESTION, RIGHT], "tools": [TOOL]},
        {"messages": [PLAIN_QUESTION, PLAIN]},
    ]


def test_openai_dpo_is_input_and_the_two_outputs(folder: Path) -> None:
    assert list(export_rows(folder, to="openai", kind="dpo", split="train")) == [
        {
            "input": {"messages": [QUESTION], "tools": [TOOL]},
            "preferred_output": [RIGHT],
            "non_preferred_output": [SERVED],
        },
        {
            "input": {"messages": [PLAIN_QUESTION]},
            "preferred_output": [PLAIN],
            "non_preferred_output": [SERVED],
        },
    ]


def test_a_split_without_rows_is_exported_empty(folder: Path) -> None:
    assert list(export_rows(folder, to="trl", kind="dpo", split="validation")) == []


@pytest.mark.slow
def test_trl_reads_what_is_exported(folder: Path) -> None:
    """Slow for the import of TRL alone."""
    from trl.data_utils import is_conversational

    kinds: tuple[DatasetKind, ...] = ("sft", "dpo")
    for kind in kinds:
        lines = list(export_rows(folder, to="trl", kind=kind, split="train"))
        assert all(is_conversational(line) for line in lines)


def test_a_folder_without_a_manifest_is_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a complete snapshot"):
        list(export_rows(tmp_path, to="trl", kind="sft", split="train"))


def test_a_kind_that_was_not_built_is_refused_with_what_is_there(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["dpo-train.parquet"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="has no dpo-train.parquet; it has: sft-train.parquet"):
        list(export_rows(folder, to="trl", kind="dpo", split="train"))
