import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.errors import PromotionError
from flywheel.promote.ledger import (
    lineage,
    next_epoch,
    roll_forward_target,
    rollback_target,
    serving,
    was_rolled_back,
)
from flywheel.records import Release, utcnow

BASE = "base"


def flip(history: list[Release], action: str, model: str) -> list[Release]:
    release = Release.model_validate(
        {
            "workload": "triage",
            "epoch": next_epoch(history),
            "alias": "triage",
            "model": model,
            "adapter": None if model == BASE else model,
            "previous": serving(history, BASE),
            "action": action,
            "decision_id": "d",
            "actor": "me",
            "reason": "",
            "created_at": utcnow(),
        }
    )
    return [*history, release]


def played(*moves: tuple[str, str]) -> list[Release]:
    history: list[Release] = []
    for action, model in moves:
        history = flip(history, action, model)
    return history


def test_before_the_first_release_the_base_serves_and_nothing_can_be_rolled_back() -> None:
    assert serving([], BASE) == BASE
    assert next_epoch([]) == 1
    with pytest.raises(PromotionError, match="nothing to roll back to"):
        rollback_target([], BASE)
    with pytest.raises(PromotionError, match="nothing to roll forward to"):
        roll_forward_target([])


def test_a_second_rollback_goes_further_back_and_not_forward_again() -> None:
    history = played(("promote", "a"), ("promote", "b"))
    assert rollback_target(history, BASE) == "a"
    history = flip(history, "rollback", "a")
    assert rollback_target(history, BASE) == BASE
    history = flip(history, "rollback", BASE)
    with pytest.raises(PromotionError, match="nothing to roll back to"):
        rollback_target(history, BASE)


def test_rolling_back_to_base_passes_every_adapter() -> None:
    history = played(("promote", "a"), ("promote", "b"))
    assert rollback_target(history, BASE, to_base=True) == BASE


def test_roll_forward_returns_what_the_last_rollback_left() -> None:
    history = played(("promote", "a"), ("promote", "b"), ("rollback", "a"))
    assert roll_forward_target(history).model == "b"
    history = flip(history, "roll_forward", "b")
    assert rollback_target(history, BASE) == "a"
    with pytest.raises(PromotionError, match="was not a roll-back"):
        roll_forward_target(history)


def test_roll_forward_to_a_model_that_never_served_is_refused() -> None:
    history = played(("promote", "a"))
    with pytest.raises(PromotionError, match="never released"):
        roll_forward_target(history, to="z")
    with pytest.raises(PromotionError, match="serving already"):
        roll_forward_target(history, to="a")


def test_a_model_is_rolled_back_until_it_serves_again() -> None:
    history = played(("promote", "a"), ("promote", "b"), ("rollback", "a"))
    undone = was_rolled_back(history, "b")
    assert undone is not None and undone.epoch == 3
    assert was_rolled_back(history, "a") is None
    assert was_rolled_back(flip(history, "roll_forward", "b"), "b") is None


@given(st.lists(st.sampled_from(["promote", "rollback", "to_base", "roll_forward"]), max_size=30))
def test_any_order_of_moves_ends_at_base_after_as_many_rollbacks_as_the_lineage_is_deep(
    moves: list[str],
) -> None:
    history: list[Release] = []
    for number, move in enumerate(moves):
        try:
            if move == "promote":
                history = flip(history, "promote", f"m{number}")
            elif move == "roll_forward":
                history = flip(history, "roll_forward", roll_forward_target(history).model)
            else:
                target = rollback_target(history, BASE, to_base=move == "to_base")
                history = flip(history, "rollback", target)
        except PromotionError:
            continue
        assert lineage(history, BASE)[-1] == serving(history, BASE)
    depth = len(lineage(history, BASE)) - 1
    for _ in range(depth):
        history = flip(history, "rollback", rollback_target(history, BASE))
    assert serving(history, BASE) == BASE
