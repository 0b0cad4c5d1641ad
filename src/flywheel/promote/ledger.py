"""What the ledger of releases means: pure functions over its rows, oldest first.

    base ──promote──▶ A ──promote──▶ B ──rollback──▶ A ──rollback──▶ base

A roll-back undoes the flip that brought the present model, so that a second one goes further back
and not forward again.
"""

from collections.abc import Sequence

from flywheel.errors import PromotionError
from flywheel.records import Release


def serving(history: Sequence[Release], base_model: str) -> str:
    """Served name of the model users get now."""
    return history[-1].model if history else base_model


def next_epoch(history: Sequence[Release]) -> int:
    """The epoch the next flip must have for the compare-and-swap to let it in."""
    return history[-1].epoch + 1 if history else 1


def lineage(history: Sequence[Release], base_model: str) -> list[str]:
    """The models under the present one, base first, the present one last.

    A promotion or roll-forward puts one on top; a roll-back takes off what is above its model.
    """
    stack = [base_model]
    for flip in history:
        if flip.action != "rollback":
            stack.append(flip.model)
            continue
        stack.pop()
        while len(stack) > 1 and stack[-1] != flip.model:
            stack.pop()
    return stack


def rollback_target(history: Sequence[Release], base_model: str, *, to_base: bool = False) -> str:
    """The model a roll-back goes to.

    Args:
        history: the workload's releases, oldest first.
        base_model: its served name.
        to_base: past every adapter, to the base model.

    Raises:
        PromotionError: there is nothing to roll back to.
    """
    models = lineage(history, base_model)
    if len(models) == 1:
        raise PromotionError(
            f"nothing to roll back to: {base_model}, the base model, is serving. "
            "`flywheel status` shows what serves; `flywheel roll-forward` goes the other way."
        )
    return base_model if to_base else models[-2]


def roll_forward_target(history: Sequence[Release], *, to: str | None = None) -> Release:
    """The release that brought the model a roll-forward goes to.

    Args:
        history: the workload's releases, oldest first.
        to: served name; what the last roll-back left when absent.

    Raises:
        PromotionError: there is nothing to roll forward to, or `to` was never released.
    """
    promoted = {flip.model: flip for flip in history if flip.action == "promote"}
    known = ", ".join(promoted) or "none yet"
    if to is None:
        if not history or history[-1].action != "rollback":
            raise PromotionError(
                "nothing to roll forward to: the last release was not a roll-back. "
                f"Name a model that served before with --to; served: {known}."
            )
        to = history[-1].previous
    if to not in promoted:
        raise PromotionError(
            f"{to} was never released, so there is nothing to roll forward to; served: {known}. "
            "A model that never served goes through `flywheel gate` and `flywheel promote`."
        )
    if to == history[-1].model:
        raise PromotionError(f"{to} is serving already.")
    return promoted[to]


def was_rolled_back(history: Sequence[Release], model: str) -> Release | None:
    """The roll-back that took this model away and was not undone since; None when there is none."""
    for flip in reversed(history):
        if flip.model == model:
            return None
        if flip.previous == model and flip.action == "rollback":
            return flip
    return None
