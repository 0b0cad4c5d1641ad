"""Suites: what is read, what is refused, and what the hash stands for."""

import json
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.gate.suite import Suite, load_suite
from tests.gate.conftest import make_item, make_suite, write_suite


def line(item_id: str, **fields: object) -> str:
    base = {"item_id": item_id, "messages": [{"role": "user", "content": "Hi"}]}
    return json.dumps({**base, **fields})


def problems_of(path: Path, *lines: str) -> tuple[str, ...]:
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_suite(path)
    return caught.value.problems


def test_a_suite_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = make_suite(5, cluster_size=2, never_again=(3,))
    assert load_suite(write_suite(tmp_path / "holdout.jsonl", written)) == written


def test_the_hash_is_of_the_items_and_not_of_the_file(tmp_path: Path) -> None:
    items = make_suite(4).items
    lines = [json.dumps(item.model_dump(mode="json"), indent=None) for item in reversed(items)]
    spaced = [text.replace('": ', '":   ') for text in lines]
    (tmp_path / "other.jsonl").write_text("\n\n".join(spaced), encoding="utf-8")
    assert load_suite(tmp_path / "other.jsonl").suite_hash == Suite.of("x", items).suite_hash


@pytest.mark.parametrize(
    "change",
    [
        {"item_id": "other"},
        {"cluster_id": "c"},
        {"reference": {"urgency": "routine"}},
        {"never_again": True},
        {"messages": ({"role": "user", "content": "another complaint"},)},
    ],
)
def test_the_hash_changes_with_any_part_of_an_item(change: dict[str, object]) -> None:
    assert (
        Suite.of("s", [make_item(0, **change)]).suite_hash
        != Suite.of("s", [make_item(0)]).suite_hash
    )


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path / "holdout.jsonl",
        line("a"),
        "not json",
        "",
        line("b", messages=[]),
        line("a"),
        line("c", extra=1),
        json.dumps({"messages": [{"role": "user", "content": "Hi"}]}),
    )
    assert [problem.split(":")[0] for problem in problems] == [
        "line 2",
        "line 4",
        "line 5",
        "line 6",
        "line 7",
    ]
    assert "messages is empty" in problems[1]
    assert "'a' is already on line 1" in problems[2]
    assert "extra: unknown key; valid: item_id, cluster_id, messages" in problems[3]
    assert "item_id: Field required" in problems[4]


def test_an_empty_suite_is_refused(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "holdout.jsonl", "", "") == (
        "the suite is empty: a gate needs items to compare models on",
    )


def test_a_suite_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read.*gate\.suite"):
        load_suite(tmp_path / "nowhere.jsonl")


def test_a_line_separator_inside_a_message_does_not_tear_the_line(tmp_path: Path) -> None:
    """U+2028 is legal in JSON; str.splitlines would cut there."""
    text = json.dumps(
        {"item_id": "a", "messages": [{"role": "user", "content": "one\u2028two"}]},
        ensure_ascii=False,
    )
    (tmp_path / "holdout.jsonl").write_text(text + "\n", encoding="utf-8")
    assert load_suite(tmp_path / "holdout.jsonl").items[0].messages[0].text == "one\u2028two"
