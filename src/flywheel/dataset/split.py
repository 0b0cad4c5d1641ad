"""Train or validation, by conversation and by hash. Pure.

A conversation is wholly in one split, because turns of one conversation repeat each other. Where it
goes depends on its id and the salt alone, so that it stays there as others come and go; only where
that would leave validation or train empty is one conversation moved. Classes are not balanced
between the splits.
"""

import hashlib
from collections.abc import Collection

from flywheel.records import Split

ENOUGH = 10
"""Conversations from which on a share above 0 has at least one of them in validation."""


def split_conversations(
    conversations: Collection[str], *, share: float, salt: str
) -> dict[str, Split]:
    """Assigns each conversation to a split.

    Args:
        conversations: Their ids, in any order.
        share: Expected share of validation; 0 puts all in train.
        salt: Makes another workload's split another one.
    """
    by_position = sorted(set(conversations), key=lambda one: (_position(one, salt), one))
    validation = sum(_position(one, salt) < share for one in by_position)
    if share > 0 and len(by_position) >= ENOUGH:
        validation = max(validation, 1)
    validation = min(validation, max(len(by_position) - 1, 0))
    return {
        one: "validation" if index < validation else "train"
        for index, one in enumerate(by_position)
    }


def _position(conversation: str, salt: str) -> float:
    """A number in [0, 1) that looks random and never changes."""
    digest = hashlib.sha256(f"{salt}\0{conversation}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
