from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.dataset.decontaminate import (
    THRESHOLD,
    HeldOut,
    decontaminate,
    normalise,
    read_held_out,
)
from flywheel.dataset.select import Example, select
from flywheel.errors import DatasetError
from flywheel.records import Message
from tests.dataset.make import asked, labelled

TEN = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  My KNEE,\thurts!! ", "my knee hurts"),
        ("don't_know", "don t know"),
        ("Straße ﬁx", "strasse fix"),
        ("", ""),
        ("!?", "!?"),
    ],
)
def test_a_text_is_normalised_to_its_words(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TEN.upper() + ".", "exact"),
        (TEN + " eleven", "near"),  # 10 of 11: 0.909
        (TEN.removesuffix(" ten"), "near"),  # 9 of 10: 0.9
        ("ten nine eight seven six five four three two one", "near"),
        (TEN.replace("ten", "zero"), None),  # 9 of 11: 0.818
        (TEN + " eleven twelve", None),  # 10 of 12: 0.833
        ("", None),
        ("!", None),
    ],
)
def test_a_text_is_held_out_when_equal_or_nine_tenths_alike(text: str, found: str | None) -> None:
    assert HeldOut([TEN, "", "?"]).match(text) == found


WORDS = st.lists(st.sampled_from([f"w{n}" for n in range(25)]), max_size=24).map(" ".join)


@given(st.lists(WORDS, max_size=6), WORDS)
def test_the_index_finds_what_comparing_with_every_text_finds(texts: list[str], text: str) -> None:
    words = set(text.split())
    near = any(
        len(words & set(other.split())) >= THRESHOLD * len(words | set(other.split()))
        for other in texts
        if words and other
    )
    assert (HeldOut(texts).match(text) is not None) == near


def example(*messages: Message) -> tuple[Example, ...]:
    return select([labelled(messages=messages)], accept_at=1.0).examples


def user(text: str) -> Message:
    return Message(role="user", content=text)


def test_an_example_that_asks_what_the_gate_asks_is_dropped_and_counted() -> None:
    held_out = HeldOut(["My tongue is swelling!", TEN])
    rows = (
        *example(Message(role="system", content="Triage."), user("my tongue is swelling")),
        *example(user(TEN + " eleven")),
        *example(user("My knee hurts.")),
    )
    selection = decontaminate(rows, held_out)
    assert selection.dropped == {"held_out": 1, "held_out_nearly": 1}
    assert [row.prompt for row in selection.examples] == [asked("My knee hurts.")]


def test_a_held_out_question_is_found_in_any_turn_and_up_to_any_turn() -> None:
    reply = Message(role="assistant", content="Since when?")
    two_turns = HeldOut(["My knee hurts.\nSince May."])
    longer = example(user("My knee hurts."), reply, user("Since May."), reply, user("Thanks."))
    assert decontaminate(longer, two_turns).dropped == {"held_out": 1}
    assert decontaminate(longer, HeldOut(["Since May."])).dropped == {"held_out": 1}
    assert decontaminate(longer, HeldOut(["Since May.\nThanks."])).dropped == {}


def test_a_suite_is_read_for_what_its_users_say(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(
        '{"item_id": "1", "messages": [{"role": "system", "content": "S"}, '
        '{"role": "user", "content": [{"type": "text", "text": "It hurts."}]}]}\n\n'
    )
    assert read_held_out(path).match("it hurts") == "exact"
    assert read_held_out(path).match("s") is None


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_without_a_readable_suite_nothing_is_built(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "suite.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match="cannot be kept out of training"):
        read_held_out(path)
