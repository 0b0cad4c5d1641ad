import json
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from flywheel.dataset.build import arrange, recipe_of
from flywheel.dataset.files import COLUMNS
from flywheel.dataset.place import place, snapshot_id, tables_of
from flywheel.dataset.select import Labelled, select
from flywheel.records import Split
from flywheel.workload import Workload
from tests.dataset.make import EXAMPLE, START, asked, labelled, said

WORKLOAD = Workload.load(EXAMPLE)

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def test_every_example_is_an_sft_row_and_those_with_two_answers_a_dpo_row() -> None:
    rows = [labelled("a"), labelled("b", correction=None, value=1.0)]
    examples = select(rows, accept_at=1.0).examples
    placed = place(examples, {"c-a": "train", "c-b": "validation"}, ("sft", "dpo"))
    assert [(row.kind, row.split, row.example.interaction_id) for row in placed] == [
        ("dpo", "train", "a"),
        ("sft", "train", "a"),
        ("sft", "validation", "b"),
    ]
    tables = tables_of(placed, ("sft", "dpo"))
    assert {key: len(rows) for key, rows in tables.items()} == {
        ("sft", "train"): 1,
        ("sft", "validation"): 1,
        ("dpo", "train"): 1,
        ("dpo", "validation"): 0,
    }


def test_the_cells_of_a_row_are_messages_as_json() -> None:
    row = labelled(correction=said(None, tool_calls=[CALL]), tools=[TOOL])
    placed = place(select([row], accept_at=1.0).examples, {"c-i1": "train"}, ("sft", "dpo"))
    dpo, sft = (one.cells for one in placed)
    assert tuple(sft) == COLUMNS["sft"] and tuple(dpo) == COLUMNS["dpo"]
    assert json.loads(sft["prompt"] or "") == [{"role": "user", "content": "Question i1?"}]
    answer = [{"role": "assistant", "content": None, "tool_calls": [CALL]}]
    assert json.loads(sft["completion"] or "") == answer
    assert json.loads(dpo["chosen"] or "") == answer
    assert json.loads(dpo["rejected"] or "") == [{"role": "assistant", "content": "Rest it."}]
    assert json.loads(sft["tools"] or "") == json.loads(dpo["tools"] or "") == [TOOL]


def test_of_more_pairs_than_wanted_those_labelled_last_are_kept_and_sft_keeps_all() -> None:
    rows = [labelled(f"i{n}", last_at=START + timedelta(minutes=n)) for n in range(6)]
    splits: dict[str, Split] = {f"c-i{n}": "validation" if n == 0 else "train" for n in range(6)}
    examples = select(rows, accept_at=1.0).examples
    placed = place(examples, splits, ("sft", "dpo"), max_pairs=2)
    pairs = {(row.split, row.example.interaction_id) for row in placed if row.kind == "dpo"}
    assert pairs == {("train", "i5"), ("train", "i4"), ("validation", "i0")}
    assert sum(row.kind == "sft" for row in placed) == 6


ROWS = st.lists(
    st.builds(
        lambda n, c, correction: labelled(
            f"i{n}",
            conversation_id=f"c{c}",
            correction=said(correction) if correction else None,
            value=None if correction else 1.0,
        ),
        st.integers(0, 40),
        st.integers(0, 14),
        st.sampled_from(["", "Call 112.", "Rest it.", '{"a": 1}']),
    ),
    unique_by=lambda row: row.interaction_id,
    max_size=30,
)


@given(ROWS, st.data())
def test_a_snapshots_id_and_rows_do_not_depend_on_the_order_of_labels(
    rows: list[Labelled], data: st.DataObject
) -> None:
    def build(some: list[Labelled]) -> tuple[str, object]:
        placed = arrange(select(some, accept_at=1.0).examples, WORKLOAD)
        return snapshot_id(placed, recipe_of(WORKLOAD)), tables_of(placed, ("sft", "dpo"))

    assert build(rows) == build(data.draw(st.permutations(rows)))


@given(st.permutations("abcdefgh"))
def test_files_are_the_same_whatever_ids_the_calls_were_given(ids: list[str]) -> None:
    # Ids follow the order in which concurrent calls happened to arrive; training follows the files.
    rows = [
        labelled(identity, messages=asked(f"Question {number}?"), conversation_id=f"c{number}")
        for number, identity in enumerate(ids)
    ]
    placed = place(
        select(rows, accept_at=1.0).examples, {f"c{n}": "train" for n in range(8)}, ("sft", "dpo")
    )
    prompts = [row.cells["prompt"] for row in placed if row.kind == "sft"]
    assert [json.loads(prompt or "")[0]["content"] for prompt in prompts] == [
        f"Question {number}?" for number in range(8)
    ]


@given(ROWS)
def test_no_conversation_is_ever_in_two_splits(rows: list[Labelled]) -> None:
    placed = arrange(select(rows, accept_at=1.0).examples, WORKLOAD)
    splits: dict[str, set[str]] = {}
    for row in placed:
        splits.setdefault(row.example.conversation_id, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    prompts = {
        split: {row.example.interaction_id for row in placed if row.split == split}
        for split in ("train", "validation")
    }
    assert not prompts["train"] & prompts["validation"]


def test_a_snapshots_id_changes_with_its_rows_and_with_its_recipe() -> None:
    def identity(row: Labelled, **changes: float) -> str:
        dataset = WORKLOAD.dataset.model_copy(update=changes)
        other = WORKLOAD.model_copy(update={"dataset": dataset})
        return snapshot_id(arrange(select([row], accept_at=1.0).examples, other), recipe_of(other))

    first = identity(labelled())
    assert first == identity(labelled())
    assert first != identity(labelled(correction=said("Call 911.")))
    assert first != identity(labelled("i2"))
    assert first != identity(labelled(), validation_share=0.2)
