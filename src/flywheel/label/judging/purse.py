"""The account of a run, for coroutines that can wait until there is room in it."""

import asyncio
from collections.abc import Sequence

from flywheel.label.judging.spending import Reservation, Spending
from flywheel.prices import TokenUsage
from flywheel.records import JsonObject, Message

TOKENS_OF_A_MESSAGE = 16
"""What chat templates add to a message, and more."""
TOKENS_OF_A_REQUEST = 64


class BudgetReachedError(Exception):
    """The worst case of a call does not fit into what is left, and nothing will come back."""


class Purse:
    """Sets money aside before a call and books it after.

    Args:
        spending: the account.
    """

    def __init__(self, spending: Spending) -> None:
        self.spending = spending
        self._under_way = 0
        self._settled = asyncio.Event()

    async def reserve(self, usd: float | None, tokens: int) -> Reservation:
        """Sets a worst case aside, as soon as calls under way have turned out cheap enough.

        Raises:
            BudgetReachedError: none is under way, and still it does not fit.
        """
        while True:
            reserved = self.spending.reserve(usd, tokens)
            if reserved is not None:
                self._under_way += 1
                return reserved
            if self._under_way == 0:
                raise BudgetReachedError
            self._settled.clear()
            await self._settled.wait()

    def settle(self, reserved: Reservation, usd: float | None, tokens: int) -> None:
        """Books what a call cost."""
        self.spending.settle(reserved, usd, tokens)
        self._came_back()

    def release(self, reserved: Reservation) -> None:
        """The call was refused; nothing was paid."""
        self.spending.release(reserved)
        self._came_back()

    def keep(self) -> None:
        """Nobody knows whether a call was paid: its worst case stays aside for good."""
        self._came_back()

    def _came_back(self) -> None:
        self._under_way -= 1
        self._settled.set()


def worst_case(messages: Sequence[Message], schema: JsonObject, max_tokens: int) -> TokenUsage:
    """The most tokens a request can be billed for.

    No token of a byte-level vocabulary is shorter than a byte, so a text has at most as many tokens
    as bytes; English has a quarter of that.
    """
    texts = [message.text for message in messages]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts) + len(str(schema).encode())
    overhead = TOKENS_OF_A_MESSAGE * len(texts) + TOKENS_OF_A_REQUEST
    return TokenUsage(input_tokens=size + overhead, output_tokens=max_tokens)
