"""Plan A, then plan B: asks one target after the other until one answers.

Input: targets in order and a request. Output: the first answer worth passing on, and every attempt
that came to nothing, with its reason. Until an answer has begun nothing has been sent to the
client, so another may still give it; after that a failure is the client's to see.

The same provider is asked again after 429 and 5xx, with jitter, and as late as its `retry-after`
says. The next one is asked when attempts are used up or the wait would be too long, when the
connection fails, when no answer begins in time, when the provider does not know its key or its
model, and when a web page comes. What the caller did wrong (400, 422, …) comes back as it is.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict
from pydantic import JsonValue
from pydantic_core import to_json

from flywheel.errors import BadRequestError, UpstreamUnavailableError
from flywheel.records import JsonObject, utcnow
from flywheel.serve.gateway.metrics import Metrics
from flywheel.serve.gateway.providers import Begun, Provider, Providers
from flywheel.serve.gateway.replies import readable
from flywheel.serve.gateway.retrying import RETRIED_STATUSES, pause_s, retry_after_s
from flywheel.serve.gateway.routing import Target

_GONE_STATUSES = frozenset((401, 403, 404))
"""The provider's key or model is wrong: another attempt is useless, another provider is not."""


class Attempt(NamedTuple):
    """One that came to nothing."""

    provider: str
    model: str
    error_type: str
    """circuit_open, upstream_timeout, upstream_unavailable, upstream_disconnected, not_openai, or
    http_<status>."""
    message: str
    duration_ms: float


class Question(NamedTuple):
    """What is asked of every target alike."""

    path: str
    """After `/v1/`."""
    body: JsonObject
    """`model` is replaced by the target's."""
    headers: CIMultiDict[str]


class Answer(NamedTuple):
    """Who answered, how it begins, and who did not."""

    target: Target
    begun: Begun
    attempts: tuple[Attempt, ...]


class _Failure(NamedTuple):
    error_type: str
    message: str
    asked_s: float | None = None
    is_retried: bool = False


CIRCUIT_OPEN = "circuit_open"
_STATUS_OF = {"upstream_timeout": 504, "upstream_disconnected": 502, "not_openai": 502}


class Dispatcher:
    """Asks providers.

    Args:
        providers: all there are.
        metrics: attempts are counted there.
        dice: for the jitter.
    """

    def __init__(
        self, providers: Providers, metrics: Metrics, *, dice: random.Random | None = None
    ) -> None:
        self.providers, self._metrics = providers, metrics
        self._dice = dice or random.Random()

    async def ask(self, plan: Sequence[Target], question: Question) -> Answer:
        """The first answer there is.

        Raises:
            NobodyAnsweredError: with every attempt; its status is the one to answer with.
            BadRequestError: the body cannot be sent on.
        """
        attempts: list[Attempt] = []
        for index, target in enumerate(plan):
            if not self.providers[target.provider].breaker.allows():
                attempts.append(_skipped(target))
                continue
            is_last = not any(self._is_open_for(later) for later in plan[index + 1 :])
            begun = await self._ask_target(target, question, attempts, is_last=is_last)
            if begun is not None:
                return Answer(target, begun, tuple(attempts))
        if all(attempt.error_type == CIRCUIT_OPEN for attempt in attempts):
            # There is nothing to lose by asking all the same.
            begun = await self._ask_target(plan[0], question, attempts, is_last=True)
            if begun is not None:
                return Answer(plan[0], begun, tuple(attempts))
        raise NobodyAnsweredError(attempts)

    def _is_open_for(self, target: Target) -> bool:
        return self.providers[target.provider].breaker.state != "open"

    async def _ask_target(
        self, target: Target, question: Question, attempts: list[Attempt], *, is_last: bool
    ) -> Begun | None:
        """All attempts at one provider; what it says in the last one of all is passed on as is."""
        provider = self.providers[target.provider]
        body = _encode(question, target)
        headers = provider.headers(question.headers)
        for number in range(provider.section.retries + 1):
            started = time.perf_counter()
            begun, failure = await self._begin(provider, question.path, body, headers)
            if failure is None:
                provider.breaker.succeeded()
                return begun
            pause = pause_s(
                number,
                failure.asked_s,
                longest_s=provider.section.max_retry_wait_s,
                dice=self._dice,
            )
            has_more = failure.is_retried and number < provider.section.retries
            is_over = not has_more or pause == float("inf")
            if is_over and is_last and begun is not None:
                return begun
            if begun is not None:
                begun.response.close()
            duration_ms = (time.perf_counter() - started) * 1000
            attempts.append(
                Attempt(
                    target.provider,
                    target.model,
                    failure.error_type,
                    readable(failure.message),
                    duration_ms,
                )
            )
            self._metrics.attempts[target.provider, failure.error_type] += 1
            if is_over:
                return None
            await asyncio.sleep(pause)
        return None

    async def _begin(
        self, provider: Provider, path: str, body: bytes, headers: CIMultiDict[str]
    ) -> tuple[Begun | None, _Failure | None]:
        """One attempt, and why it counts as a failure; takes the next replica if one is gone."""
        replica = provider.next_replica()
        session = self.providers.session
        for is_last in (False, True):
            try:
                begun = await provider.begin(
                    session, path, replica + is_last, body=body, headers=headers
                )
            except aiohttp.SocketTimeoutError:
                failure = _Failure("upstream_timeout", "no answer in time")
            except aiohttp.ClientConnectionError as error:
                if not is_last:
                    # A kept-alive connection to a server that was restarted fails so too.
                    self._metrics.upstream_retries += 1
                    continue
                failure = _Failure("upstream_unavailable", str(error) or type(error).__name__)
            except TimeoutError:
                failure = _Failure("upstream_timeout", "no answer in time")
            except aiohttp.ClientError as error:
                failure = _Failure("upstream_disconnected", str(error) or type(error).__name__)
            else:
                failed = _judge(begun)
                if failed is not None and failed.is_retried and begun.response.status != 429:
                    provider.breaker.failed()
                return begun, failed
            provider.breaker.failed()
            return None, failure
        raise AssertionError("the second attempt returns")


def _encode(question: Question, target: Target) -> bytes:
    """What is sent.

    Raises:
        BadRequestError: a number such as 1e999 came, which is JSON, and too large to be sent on.
    """
    body = to_json({**question.body, "model": target.model})
    if b"Infinity" in body and _has_infinity(question.body):
        raise BadRequestError("a number in the body is too large", code="invalid_json")
    return body


def _has_infinity(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_has_infinity, value))
    return isinstance(value, float) and math.isinf(value)


def _skipped(target: Target) -> Attempt:
    return Attempt(target.provider, target.model, CIRCUIT_OPEN, "it failed several times", 0.0)


def _judge(begun: Begun) -> _Failure | None:
    """Whether an answer is better not passed on while others may be asked."""
    response = begun.response
    if response.status in RETRIED_STATUSES or response.status >= 500:
        asked_s = retry_after_s(response.headers, now=utcnow())
        return _Failure(f"http_{response.status}", response.reason or "", asked_s, is_retried=True)
    if response.status in _GONE_STATUSES:
        return _Failure(f"http_{response.status}", response.reason or "")
    if response.content_type == "text/html":
        return _Failure("not_openai", "it answered with a web page: is base_url right?")
    return None


class NobodyAnsweredError(UpstreamUnavailableError):
    """Every target was asked in vain."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self.attempts = tuple(attempts)
        last = self.attempts[-1]
        self.error_type = last.error_type
        told = "; ".join(
            f"{one.provider} ({one.model}): {one.error_type}"
            + (f": {one.message}" if one.message else "")
            for one in self.attempts
        )
        status = _STATUS_OF.get(last.error_type, 503)
        super().__init__("no model server answered", told, status=status)
        self.args = (f"no model server answered: {told}",)
