from hypothesis import given
from hypothesis import strategies as st

from flywheel.dataset.split import ENOUGH, split_conversations

CONVERSATIONS = st.sets(st.text(min_size=1, max_size=8), max_size=60)
SHARES = st.floats(0, 0.99)


@given(CONVERSATIONS, SHARES, st.text(max_size=3))
def test_every_conversation_is_in_one_split_whatever_their_order(
    conversations: set[str], share: float, salt: str
) -> None:
    there = split_conversations(sorted(conversations), share=share, salt=salt)
    back = split_conversations(sorted(conversations, reverse=True), share=share, salt=salt)
    assert there == back
    assert there.keys() == conversations


@given(CONVERSATIONS, SHARES, st.text(max_size=3))
def test_no_split_is_empty_that_should_have_something(
    conversations: set[str], share: float, salt: str
) -> None:
    splits = list(split_conversations(conversations, share=share, salt=salt).values())
    if conversations:
        assert "train" in splits
    if share > 0 and len(conversations) >= ENOUGH:
        assert "validation" in splits
    if share == 0:
        assert "validation" not in splits


def test_a_conversation_stays_where_it_is_as_others_come() -> None:
    few = [f"c{n}" for n in range(100)]
    many = [f"c{n}" for n in range(1000)]
    before = split_conversations(few, share=0.2, salt="triage")
    after = split_conversations(many, share=0.2, salt="triage")
    assert all(after[one] == split for one, split in before.items())


def test_about_the_share_is_in_validation() -> None:
    """1,000 at 0.1: 100 expected, standard deviation 9.5."""
    splits = split_conversations([f"c{n}" for n in range(1000)], share=0.1, salt="triage")
    assert 60 < list(splits.values()).count("validation") < 140


def test_another_salt_is_another_split() -> None:
    names = [f"c{n}" for n in range(100)]
    assert split_conversations(names, share=0.5, salt="a") != split_conversations(
        names, share=0.5, salt="b"
    )
