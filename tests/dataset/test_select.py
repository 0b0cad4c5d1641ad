from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.dataset.select import (
    Example,
    Labelled,
    drop_duplicates,
    keep_newest,
    same_answer,
    select,
)
from flywheel.records import Message
from tests.dataset.make import START, asked, labelled, said

APPROVED: dict[str, object] = {"correction": None, "value": 1.0}
CALL = {"id": "call_1", "type": "function", "function": {"name": "book", "arguments": '{"day": 1}'}}


def only(row: Labelled, *, accept_at: float = 1.0) -> Example:
    selection = select([row], accept_at=accept_at)
    assert selection.dropped == {}
    return selection.examples[0]


def test_a_correction_is_the_target_and_what_was_served_is_rejected() -> None:
    example = only(labelled())
    assert (example.target, example.rejected) == (said("Call 112."), said("Rest it."))


def test_an_approved_answer_is_its_own_target_and_makes_no_pair() -> None:
    example = only(labelled("i1", **APPROVED))
    assert (example.target, example.rejected) == (said("Rest it."), None)


def test_a_correction_that_says_what_was_served_makes_no_pair() -> None:
    row = labelled(
        response=said('{"urgency":"urgent","n":1}'),
        correction=said('{ "n": 1, "urgency": "urgent" }'),
    )
    example = only(row)
    assert example.target == row.correction
    assert example.rejected is None


@pytest.mark.parametrize(
    ("status", "response"),
    [("error", said("Rest it.")), ("cancelled", said("Re")), ("error", None), ("ok", said(" "))],
)
def test_an_answer_that_failed_is_corrected_but_makes_no_pair(
    status: str, response: Message | None
) -> None:
    example = only(labelled(status=status, response=response))
    assert example.target == said("Call 112.")
    assert example.rejected is None


def test_an_answer_cut_short_may_be_the_rejected_one() -> None:
    assert only(labelled(status="truncated")).rejected == said("Rest it.")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"correction": None, "agreement": 0.5, "strength": 0.0}, "disagreement"),
        ({"correction": None, "value": 0.5}, "refused_without_correction"),
        ({"correction": None, "label": "urgent"}, "label_without_answer"),
        ({**APPROVED, "response": None}, "approved_without_answer"),
        ({**APPROVED, "response": said("")}, "approved_without_answer"),
        ({**APPROVED, "status": "truncated"}, "approved_but_truncated"),
        ({**APPROVED, "status": "cancelled"}, "approved_but_cancelled"),
        ({"correction": Message(role="user", content="x")}, "correction_of_another_role"),
        ({"messages": ()}, "no_prompt"),
    ],
)
def test_what_teaches_nothing_is_dropped_with_a_reason(
    fields: dict[str, object], reason: str
) -> None:
    selection = select([labelled("i1", **fields)], accept_at=1.0)
    assert selection.examples == ()
    assert selection.dropped == {reason: 1}


@pytest.mark.parametrize(("value", "kept"), [(0.79, 0), (0.8, 1), (1.0, 1)])
def test_a_rating_approves_from_accept_at_on(value: float, kept: int) -> None:
    row = labelled(correction=None, value=value)
    assert len(select([row], accept_at=0.8).examples) == kept


def test_nulls_that_servers_add_are_not_taught() -> None:
    served = said("Rest.", refusal=None, audio=None, annotations=[])
    example = only(labelled("i1", **{**APPROVED, "response": served}))
    assert example.target.model_dump() == {
        "role": "assistant",
        "content": "Rest.",
        "annotations": [],
    }


def test_tool_calls_are_kept_with_their_null_content() -> None:
    example = only(labelled(correction=said(None, tool_calls=[CALL]), tools=[{"type": "function"}]))
    assert example.target.model_dump() == {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL],
    }
    assert example.tools == ({"type": "function"},)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (said("a "), said(" a"), True),
        (said("a"), said("A"), False),
        (said('{"a": 1, "b": 2}'), said('{"b":2,"a":1}'), True),
        (said('{"a": true}'), said('{"a": 1}'), False),
        (said('{"a": 1}'), said('{"a": 1} '), True),
        (said('{"a": 1}'), said("```json\n{}\n```"), False),
        (said(None, tool_calls=[CALL]), said("", tool_calls=[{**CALL, "id": "call_2"}]), True),
        (said(None, tool_calls=[CALL]), said(None), False),
        (
            said(None, tool_calls=[CALL]),
            said(None, tool_calls=[{"function": {"name": "book", "arguments": {"day": 1}}}]),
            True,
        ),
        (
            said(None, tool_calls=[CALL]),
            said(None, tool_calls=[{"function": {"name": "book", "arguments": '{"day": 2}'}}]),
            False,
        ),
    ],
)
def test_answers_are_compared_by_what_they_say(first: Message, second: Message, same: bool) -> None:
    assert same_answer(first, second) is same
    assert same_answer(second, first) is same


def examples(*rows: Labelled) -> tuple[Example, ...]:
    return select(rows, accept_at=1.0).examples


def test_of_the_same_prompt_the_one_labelled_last_is_kept() -> None:
    same = {"messages": asked("Does it hurt?")}
    later = START + timedelta(minutes=1)
    rows = examples(
        labelled("a", **same, last_at=later), labelled("b", **same), labelled("c"), labelled("d")
    )
    selection = drop_duplicates(rows)
    assert {example.interaction_id for example in selection.examples} == {"a", "c", "d"}
    assert selection.dropped == {"duplicate_prompt": 1}


def test_the_same_words_with_other_tools_are_another_prompt() -> None:
    same = {"messages": asked("Does it hurt?")}
    selection = drop_duplicates(examples(labelled("a", **same), labelled("b", **same, tools=[{}])))
    assert selection.dropped == {}


def test_only_the_conversations_labelled_last_are_kept() -> None:
    rows = examples(
        *(
            labelled(
                f"{c}{turn}", conversation_id=c, last_at=START + timedelta(minutes=minute + turn)
            )
            for c, minute in (("old", 0), ("new", 20), ("middle", 10))
            for turn in (0, 1)
        )
    )
    selection = keep_newest(rows, conversations=2)
    kept = [example.conversation_id for example in selection.examples]
    assert kept == ["new", "new", "middle", "middle"]
    assert selection.dropped == {"older_conversation": 2}
    assert keep_newest(rows, conversations=None).examples == rows


@given(st.permutations(range(8)), st.integers(1, 8))
def test_what_is_kept_does_not_depend_on_the_order_of_rows(order: list[int], most: int) -> None:
    rows = [labelled(f"i{n}", messages=asked(f"Question {n % 5}?")) for n in range(8)]

    def kept(some: list[Labelled]) -> set[str]:
        unique = drop_duplicates(examples(*some)).examples
        return {e.interaction_id for e in keep_newest(unique, conversations=most).examples}

    assert kept(rows) == kept([rows[n] for n in order])
