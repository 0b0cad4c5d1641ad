"""Gold files: what one is, and every mistake with its line."""

import json
from pathlib import Path

import pytest

from flywheel.errors import ConfigError, JudgeError
from flywheel.graders.judge import Judge
from flywheel.label.qualifying import adjudicated_gold, read_gold
from flywheel.label.qualifying.gold import gold_hash, to_task
from flywheel.lake import Lake
from flywheel.records import Message
from flywheel.testing import make_assessment, make_interaction
from flywheel.workload import Workload
from tests.label.qualifying.material import (
    GOLD,
    PAIRWISE,
    SCALE,
    TWO_CRITERIA,
    make_judge,
    write_workload,
)

PAIR = {"item_id": "g", "messages": "My knee hurts.", "responses": ["Rest.", "Run."], "label": "A"}


def write(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "gold.jsonl"
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def problems(path: Path, judge: Judge | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_gold(path, judge or make_judge())
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("file", "judge"),
    [
        ("better_answer.jsonl", make_judge(PAIRWISE)),
        ("safe_advice.jsonl", make_judge(TWO_CRITERIA, name="good")),
    ],
)
def test_the_examples_gold_suffices_for_its_rubric(file: str, judge: Judge) -> None:
    items = read_gold(GOLD / file, judge)
    assert len(items) >= judge.section.bars.minimum_items
    assert len({item.cluster for item in items}) < len(items), "some share a conversation"


def test_in_the_examples_pairs_length_tells_nothing() -> None:
    items = read_gold(GOLD / "better_answer.jsonl", make_judge())
    decided = [item for item in items if item.label in ("A", "B")]
    longer_wins = [
        (len(item.responses[0].text) > len(item.responses[1].text)) == (item.label == "A")
        for item in decided
    ]
    assert 0.4 < sum(longer_wins) / len(decided) < 0.65
    assert 0.4 < sum(item.label == "A" for item in decided) / len(decided) < 0.6


def test_short_forms_are_messages(tmp_path: Path) -> None:
    (item,) = read_gold(write(tmp_path, {**PAIR, "reference": "Rest it."}), make_judge())
    task = to_task(item, "triage")
    assert task.messages == (Message(role="user", content="My knee hurts."),)
    assert [response.role for response in task.responses] == ["assistant", "assistant"]
    assert task.reference == Message(role="assistant", content="Rest it.")
    assert item.cluster == "g"


def test_a_grade_of_a_scale_may_be_a_number(tmp_path: Path) -> None:
    line = {"item_id": 7, "messages": "?", "response": "x", "label": 3}
    path = write(tmp_path, {**line, "item_id": "7"})
    (item,) = read_gold(path, make_judge(SCALE))
    assert item.gold("score") == "3"


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        PAIR,
        "{not json",
        "",
        {**PAIR, "item_id": "two", "label": "C"},
        {**PAIR, "item_id": "three", "responses": ["one"]},
        {**PAIR, "item_id": "four", "extra": 1},
        PAIR,
        {**PAIR, "item_id": "five", "families": ["qwen"]},
        "[1]",
    )
    found = problems(path)
    assert [problem.split(":")[0] for problem in found] == [
        "line 2",
        "line 4",
        "line 5",
        "line 6",
        "line 7",
        "line 8",
        "line 9",
    ]
    text = "\n".join(found)
    assert "line 2: not JSON" in text
    assert "label 'C' is none of: A, B, tie, both_bad" in text
    assert "has 1 responses; rubric better_answer@1 is pairwise and judges 2" in text
    assert "line 6: extra: Extra inputs are not permitted" in text
    assert "item_id 'g' is on line 1 already" in text
    assert "families has 1 entries for 2 responses" in text


def test_grades_the_rubric_does_not_offer_are_told(tmp_path: Path) -> None:
    line = {"item_id": "g", "messages": "?", "response": "x"}
    path = write(
        tmp_path,
        {**line, "labels": {"safe": "yes", "complete": "2", "kind": "1"}},
        {**line, "item_id": "h", "labels": {"safe": "safe"}},
    )
    assert problems(path, make_judge(TWO_CRITERIA, name="good")) == [
        "line 1: labels has 'kind', which is no criterion; valid: complete, safe",
        "line 1: label 'yes' is no grade of safe: safe, unsafe",
        "line 2: labels.complete is missing; one of: 0, 1, 2",
    ]


def test_a_variable_the_rubric_names_must_be_there(tmp_path: Path) -> None:
    text = PAIRWISE.replace("mode: pairwise", "mode: pairwise\nvariables: [age]").replace(
        "Reply A:", "Age {{age}}. Reply A:"
    )
    judge = make_judge(text)
    assert problems(write(tmp_path, PAIR), judge) == [
        "line 1: variables lacks age, which the rubric names"
    ]
    assert read_gold(write(tmp_path, {**PAIR, "variables": {"age": "58"}}), judge)


def test_a_file_of_another_encoding_is_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_bytes(json.dumps(PAIR).encode() + b'\n{"item_id": "\xe9"}')
    assert problems(path)[0].startswith("line 2: not UTF-8")


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(PAIR).encode() + b"\r\n")
    assert len(read_gold(path, make_judge())) == 1


def test_an_absent_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in problems(tmp_path / "nowhere.jsonl")[0]
    assert "holds no gold item" in problems(write(tmp_path, ""))[0]


def test_a_long_list_of_mistakes_is_cut_and_counted(tmp_path: Path) -> None:
    found = problems(write(tmp_path, *["{"] * 150))
    assert len(found) == 101
    assert found[-1] == "… and 50 more"


def test_the_hash_is_of_the_content_and_not_of_its_order(tmp_path: Path) -> None:
    lines = [{**PAIR, "item_id": name} for name in "abc"]
    one = read_gold(write(tmp_path, *lines), make_judge())
    other = read_gold(write(tmp_path, *lines[::-1]), make_judge())
    assert gold_hash(one) == gold_hash(other) != gold_hash(one[:2])


# --- from the lake -------------------------------------------------------------------------------


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return write_workload(tmp_path)


def test_adjudicated_preferences_become_gold_pairs(lake: Lake, workload: Workload) -> None:
    one = make_interaction(
        interaction_id="i1",
        conversation_id="c",
        response=Message(role="assistant", content="1"),
        adapter="triage-0123456789ab",
    )
    two = make_interaction(
        interaction_id="i2",
        conversation_id="c",
        response=Message(role="assistant", content="2"),
        response_model="gpt-4o",
    )
    lake.append([one, two])
    lake.append(
        [
            make_assessment(
                pair_ids=("i2", "i1"),
                name="better",
                kind="preference",
                label="a",
                round="adjudication",
            ),
            make_assessment(
                pair_ids=("i1", "i2"), name="better", kind="preference", label="B", round="1"
            ),
        ]
    )
    found = adjudicated_gold(lake, workload, make_judge())
    (item,) = found.items
    assert [response.text for response in item.responses] == ["2", "1"]
    assert (item.label, item.cluster) == ("A", "c")
    assert item.families == (("openai",), ("huggingface",)), "an adapter is its base's kin"


def test_adjudicated_labels_become_gold_answers_and_what_cannot_is_counted(
    lake: Lake, workload: Workload
) -> None:
    lake.append([make_interaction(interaction_id=f"i{n}", conversation_id=f"c{n}") for n in "1234"])
    facts = {"kind": "feedback", "round": "adjudication"}
    lake.append(
        [
            make_assessment(interaction_id="i1", name="helpful", label="3", **facts),
            make_assessment(interaction_id="i2", name="helpful", value=2, **facts),
            make_assessment(interaction_id="i3", name="helpful", label="great", **facts),
            make_assessment(interaction_id="i4", name="helpful", label="3", kind="feedback"),
        ]
    )
    found = adjudicated_gold(lake, workload, make_judge(SCALE, name="helpful"))
    assert {item.item_id: item.gold("score") for item in found.items} == {"i1": "3", "i2": "2"}
    assert found.left_out == {"label 'great' is no grade of score: 1, 2, 3, cannot_judge": 1}


def test_a_lake_without_adjudicated_labels_says_how_they_come(
    lake: Lake, workload: Workload
) -> None:
    with pytest.raises(JudgeError, match="no adjudicated label named better of triage"):
        adjudicated_gold(lake, workload, make_judge())
