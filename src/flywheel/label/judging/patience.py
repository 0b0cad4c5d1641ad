"""A model that is asked as often as it takes: in its turn, within a budget, until a deadline.

Input: a StructuredChatModel that raises. Output: the same for one judgement, which waits at the
`Gate`, sets the worst case aside in the `Purse` and tries again until the deadline. It stands under
`ask`, so that a first answer is not paid for again when its repair has to wait.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from flywheel.chat import StructuredChatModel, StructuredCompletion
from flywheel.errors import (
    BadRequestError,
    JudgeError,
    UnknownModelError,
    UpstreamUnavailableError,
)
from flywheel.label.judging.gate import Gate
from flywheel.label.judging.headers import read_limits
from flywheel.label.judging.purse import Purse, worst_case
from flywheel.label.judging.spending import Reservation
from flywheel.prices import Price, TokenUsage
from flywheel.records import JsonObject, Message

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
SHORTEST_ATTEMPT_S = 0.05
REFUSES_ALL = ("no_such_path", "invalid_api_key", "401", "403")

Clock = Callable[[], float]


class GaveUpError(Exception):
    """The deadline of a judgement is past."""

    def __init__(
        self, error_type: Literal["judge_unavailable", "deadline"], cause: UpstreamUnavailableError
    ) -> None:
        self.error_type, self.cause = error_type, cause
        super().__init__(str(cause))


@dataclass(frozen=True)
class Endpoint:
    """One model at one provider, and what is known of it."""

    model: StructuredChatModel
    gate: Gate
    price: Price | None


@dataclass(frozen=True)
class _Request:
    messages: Sequence[Message]
    model: str
    schema: JsonObject
    temperature: float
    max_tokens: int


class PatientModel:
    """Asks one endpoint for one judgement until it is answered or the deadline is past.

    Args:
        endpoint: who is asked.
        purse: who pays.
        deadline_s: from the moment the first request goes; waiting for that turn costs none of it.
        rng: of the jitter.
        clock: seconds, monotonic; the gate's.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        purse: Purse,
        *,
        deadline_s: float,
        rng: random.Random,
        clock: Clock = time.monotonic,
    ) -> None:
        self.attempts = 0
        """Requests that went, with those that failed."""
        self.usages: list[TokenUsage | None] = []
        """Of the answers; None where the server did not say."""
        self._endpoint, self._purse, self._deadline_s = endpoint, purse, deadline_s
        self._rng, self._clock = rng, clock
        self._deadline = float("inf")

    async def complete_structured(  # noqa: PLR0913 - the protocol's
        self,
        messages: Sequence[Message],
        *,
        model: str,
        schema: JsonObject,
        temperature: float,
        max_tokens: int,
        timeout_s: float,
    ) -> StructuredCompletion:
        """Answers once, however often that has to be tried.

        Raises:
            GaveUpError: the deadline is past.
            BudgetReachedError: nothing is left to pay with.
            BadRequestError: the endpoint does not take this request.
            JudgeError: it takes none: a wrong key, a model it does not know.
        """
        request = _Request(messages, model, schema, temperature, max_tokens)
        failures, last = 0, None
        while True:
            sent_at = await self._turn(last)
            try:
                return await self._pay(request, sent_at)
            except UpstreamUnavailableError as error:
                failures, last = failures + 1, error
            finally:
                self._endpoint.gate.leave()
            await self._pause(failures, last)

    async def _turn(self, last: UpstreamUnavailableError | None) -> float:
        """Waits for a place; the first one starts the clock."""
        if self._deadline == float("inf"):
            sent_at = await self._endpoint.gate.enter()
            self._deadline = sent_at + self._deadline_s
            return sent_at
        try:
            async with asyncio.timeout(max(0.0, self._deadline - self._clock())):
                return await self._endpoint.gate.enter(deadline=self._deadline)
        except TimeoutError as error:
            raise self._gave_up(last) from error

    async def _pay(self, request: _Request, sent_at: float) -> StructuredCompletion:
        """Sets the worst case aside, sends once, and books what it cost."""
        worst = worst_case(request.messages, request.schema, request.max_tokens)
        reserved = await self._purse.reserve(self._cost(worst), worst.total_tokens)
        try:
            answer = await self._send(request)
        except UpstreamUnavailableError as error:
            self._tell(error, sent_at)
            self._take_back(reserved, error)
            raise
        except BadRequestError as error:
            self._endpoint.gate.succeeded()
            self._purse.release(reserved)
            if isinstance(error, UnknownModelError) or error.code in REFUSES_ALL:
                raise JudgeError(f"{request.model}: {error}. Nothing more was asked.") from error
            raise
        except BaseException:
            self._purse.keep()
            raise
        usage = _usage(answer)
        self.usages.append(usage)
        # An answer whose server does not count is booked at its worst: a budget is never exceeded.
        booked = usage or worst
        cost = self._cost(booked)
        self._purse.settle(reserved, cost, booked.total_tokens)
        limits = read_limits(answer.headers)
        self._endpoint.gate.succeeded(limits, tokens=booked.total_tokens)
        return answer

    async def _send(self, request: _Request) -> StructuredCompletion:
        self.attempts += 1
        return await self._endpoint.model.complete_structured(
            request.messages,
            model=request.model,
            schema=request.schema,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            timeout_s=max(SHORTEST_ATTEMPT_S, self._deadline - self._clock()),
        )

    def _tell(self, error: UpstreamUnavailableError, sent_at: float) -> None:
        if error.status == 429:
            self._endpoint.gate.refused(sent_at, read_limits(error.headers))
        else:
            self._endpoint.gate.failed(sent_at)

    def _take_back(self, reserved: Reservation, error: UpstreamUnavailableError) -> None:
        """A refusal costs nothing; of a connection that broke nobody knows."""
        if error.status is not None or _never_arrived(error):
            self._purse.release(reserved)
        else:
            self._purse.keep()

    async def _pause(self, failures: int, last: UpstreamUnavailableError) -> None:
        """Full jitter, so that those who failed together do not come back together.

        A `retry-after` is kept by the gate, for everybody.
        """
        told = last.status == 429 and last.retry_after_s is not None
        longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - 1, 10))
        delay = 0.0 if told else self._rng.uniform(0, longest)
        if self._clock() + delay + SHORTEST_ATTEMPT_S >= self._deadline:
            raise self._gave_up(last) from last
        await asyncio.sleep(delay)

    def _gave_up(self, last: UpstreamUnavailableError | None) -> GaveUpError:
        """A server that said no is unavailable; one that said nothing until the end is too slow."""
        assert last is not None  # the first turn has no deadline, and ends in an answer or an error
        is_silent = last.status is None and not _never_arrived(last)
        return GaveUpError("deadline" if is_silent else "judge_unavailable", last)

    def _cost(self, usage: TokenUsage) -> float | None:
        price = self._endpoint.price
        return None if price is None else price.cost_usd(usage)


def _usage(answer: StructuredCompletion) -> TokenUsage | None:
    if answer.input_tokens is None or answer.output_tokens is None:
        return None
    return TokenUsage(answer.input_tokens, answer.output_tokens, answer.cached_input_tokens)


def _never_arrived(error: BaseException) -> bool:
    """Whether the connection was refused, so that nothing can have been paid."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "ConnectionRefusedError"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
