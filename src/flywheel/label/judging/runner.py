"""Judges asked at scale: many tasks at once, each by itself, every reply kept as it comes.

Input: a judge and its tasks. Output: each task with its replies, as they are done. It asks as many
at once as the endpoint takes (`Congestion`), pays within a budget (`Purse`), never asks what the
cache knows, and never the same twice at a time. What goes wrong with one task stays with it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from flywheel.chat import StructuredChatModel
from flywheel.errors import (
    BadRecordError,
    ConfigError,
    JudgeBudgetError,
)
from flywheel.graders.judge import Judge, JudgeCall, JudgeReply, JudgeTask, ask, plan_calls
from flywheel.judges import JudgeRunSection
from flywheel.label.judging.cache import ReplyCache, unpaid
from flywheel.label.judging.congestion import Congestion
from flywheel.label.judging.gate import Gate
from flywheel.label.judging.patience import Endpoint, GaveUpError, PatientModel
from flywheel.label.judging.purse import BudgetReachedError, Purse
from flywheel.label.judging.spending import Spending
from flywheel.prices import PriceTable, TokenUsage
from flywheel.records import Record

DOWN_AFTER = 8
"""Judgements in a row given up at their deadline: then the endpoint is down, and the run stops."""


class JudgedTask(Record):
    """A task and what was answered."""

    task: JudgeTask
    replies: dict[str, JudgeReply]
    """By `JudgeCall.key`, one for each call; empty with a `problem`."""
    problem: str | None = None
    """Why nothing was asked: the task lacks something the rubric needs."""


class RunProgress(Record):
    """Where a run is."""

    judged: int
    """Tasks, with those that failed."""
    failed: int
    cached: int
    """Replies that were known."""
    asked: int
    """Replies that were asked for."""
    tokens: int
    """Of the whole run, what a killed process spent included."""
    usd: float | None
    concurrency: int
    """Requests under way."""


class JudgeRunner:
    """Asks the judges of one run.

    Args:
        models: by provider; see `open_models`. Their own retries should be off.
        prices: what tokens cost; a model without a price has unknown costs.
        cache: where replies are kept; none asks everything anew.
        section: concurrency, deadline and budget.
        spending: the run's account; one in memory when absent.
        on_progress: called after each task.
        seed: of the jitter.
    """

    def __init__(  # noqa: PLR0913 - what a run consists of
        self,
        models: Mapping[str, StructuredChatModel],
        *,
        prices: PriceTable | None = None,
        cache: ReplyCache | None = None,
        section: JudgeRunSection | None = None,
        spending: Spending | None = None,
        on_progress: Callable[[RunProgress], None] | None = None,
        seed: int | None = None,
    ) -> None:
        self._models, self._cache, self._on_progress = models, cache, on_progress
        self._prices, self._section = prices or PriceTable({}), section or JudgeRunSection()
        self._spending = spending or Spending(
            "memory",
            budget_usd=self._section.budget_usd,
            budget_tokens=self._section.budget_tokens,
        )
        self._rng = random.Random(seed)
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._asking: dict[str, asyncio.Future[JudgeReply]] = {}
        self._judged = self._failed = self._cached = self._asked = self._given_up = 0

    async def run(
        self, judge: Judge, tasks: Iterable[JudgeTask]
    ) -> AsyncGenerator[JudgedTask, None]:
        """Judges every task and yields it when it is done; the order is nobody's.

        Raises:
            ConfigError: a budget in money and a model without a price; a provider that is not open.
            JudgeBudgetError: the budget is reached; before the first call where it is 0.
            UpstreamUnavailableError: the endpoint has been down for longer than the deadline.
        """
        source = iter(tasks)
        self._refuse_to_begin(judge, source)
        purse = Purse(self._spending)
        pending: set[asyncio.Task[JudgedTask]] = set()
        unasked, is_spent = 0, False
        try:
            while True:
                if not is_spent:
                    self._fill(pending, judge, source, purse)
                if not pending:
                    break
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    try:
                        judged = one.result()
                    except BudgetReachedError:
                        unasked, is_spent = unasked + 1, True
                        continue
                    self._count(judged)
                    yield judged
        finally:
            await _cancel(pending)
        if is_spent:
            raise self._budget_error(judge, unasked + sum(1 for _ in source))

    def progress(self) -> RunProgress:
        """Where the run is now."""
        spent = self._spending.read()
        return RunProgress(
            judged=self._judged,
            failed=self._failed,
            cached=self._cached,
            asked=self._asked,
            tokens=spent.tokens,
            usd=spent.usd,
            concurrency=sum(one.gate.in_flight for one in self._endpoints.values()),
        )

    def _fill(
        self,
        pending: set[asyncio.Task[JudgedTask]],
        judge: Judge,
        source: Iterator[JudgeTask],
        purse: Purse,
    ) -> None:
        """Twice as many tasks as requests may be under way: nobody waits for the next."""
        while len(pending) < 2 * self._section.max_concurrency:
            task = next(source, None)
            if task is None:
                return
            pending.add(asyncio.create_task(self._judge(judge, task, purse)))

    async def _judge(self, judge: Judge, task: JudgeTask, purse: Purse) -> JudgedTask:
        try:
            calls = plan_calls(judge, task)
        except BadRecordError as error:
            return JudgedTask(task=task, replies={}, problem=str(error))
        # All of a task's calls end before one's failure counts: what was paid is kept.
        results = await asyncio.gather(
            *(self._reply(judge, call, task, purse) for call in calls), return_exceptions=True
        )
        replies = {}
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            replies[call.key] = result
        return JudgedTask(task=task, replies=replies)

    async def _reply(
        self, judge: Judge, call: JudgeCall, task: JudgeTask, purse: Purse
    ) -> JudgeReply:
        """From the cache, from another task that asks the same just now, or from the model."""
        known = self._cache.get(call.key, task) if self._cache is not None else None
        if known is not None:
            self._cached += 1
            return known
        asking = self._asking.get(call.key)
        if asking is not None:
            reply = unpaid(await asyncio.shield(asking))
            if self._cache is not None and reply.error_type is None:
                self._cache.get(call.key, task)  # so that an erasure finds this task there too
            return reply
        future = asyncio.get_running_loop().create_future()
        self._asking[call.key] = future
        try:
            reply = await self._ask(judge, call, purse)
            if self._cache is not None and reply.error_type is None:
                self._cache.put(reply, task, judge=judge.name, judge_hash=judge.identity)
            future.set_result(reply)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody may be waiting, and that is no bug
            raise
        finally:
            del self._asking[call.key]
        return reply

    async def _ask(self, judge: Judge, call: JudgeCall, purse: Purse) -> JudgeReply:
        endpoint = self._endpoint(call)
        patient = PatientModel(endpoint, purse, deadline_s=self._section.deadline_s, rng=self._rng)
        self._asked += 1
        try:
            reply = await ask(judge, call, patient)
        except GaveUpError as error:
            self._given_up += 1
            if self._given_up >= DOWN_AFTER:
                raise error.cause from error
            reply = JudgeReply(
                key=call.key,
                text=None,
                error_type=error.error_type,
                error_message=f"{error} ({patient.attempts} attempts)"[:500],
            )
        else:
            self._given_up = 0
        return _priced(reply, patient, endpoint)

    def _endpoint(self, call: JudgeCall) -> Endpoint:
        name = (call.provider, call.model)
        if name not in self._endpoints:
            congestion = Congestion(self._section.max_concurrency, seed=self._rng.getrandbits(32))
            self._endpoints[name] = Endpoint(
                self._models[call.provider], Gate(congestion), self._prices.find(call.model)
            )
        return self._endpoints[name]

    def _refuse_to_begin(self, judge: Judge, source: Iterator[JudgeTask]) -> None:
        section, panel = self._section, judge.section.panel
        problems = [
            f"judges.{judge.name}.panel: no model is open for provider {seat.provider!r}"
            for seat in panel
            if seat.provider not in self._models
        ]
        if problems:
            raise ConfigError(f"judge {judge.name}", problems)
        refuse_unpriced(judge, section, self._prices)
        if 0 in (section.budget_usd, section.budget_tokens):
            raise self._budget_error(judge, sum(1 for _ in source))

    def _budget_error(self, judge: Judge, left: int) -> JudgeBudgetError:
        return JudgeBudgetError(judge.name, *self._spending.told(), left)

    def _count(self, judged: JudgedTask) -> None:
        self._judged += 1
        self._failed += is_failed(judged)
        if self._on_progress is not None:
            self._on_progress(self.progress())


def refuse_unpriced(judge: Judge, section: JudgeRunSection, prices: PriceTable) -> None:
    """A budget in money needs to know what money is spent.

    Raises:
        ConfigError: a model of the panel has no price.
    """
    if section.budget_usd is None:
        return
    problems = [
        f"judges.{judge.name}.run.budget_usd: {seat.model} has no price, so nobody could tell what "
        "is spent; add it to the table that FLYWHEEL_PRICES names, or give budget_tokens instead"
        for seat in judge.section.panel
        if prices.find(seat.model) is None
    ]
    if problems:
        raise ConfigError(f"judge {judge.name}", problems)


def is_failed(judged: JudgedTask) -> bool:
    """Whether a part of the judgement is missing."""
    failed = any(reply.error_type is not None for reply in judged.replies.values())
    return failed or judged.problem is not None


def _priced(reply: JudgeReply, patient: PatientModel, endpoint: Endpoint) -> JudgeReply:
    """The reply with all it cost; NULL where one part is not known."""
    known: Sequence[TokenUsage] = [usage for usage in patient.usages if usage is not None]
    if not patient.usages or len(known) < len(patient.usages):
        return reply
    total = TokenUsage(
        sum(usage.input_tokens for usage in known),
        sum(usage.output_tokens for usage in known),
        sum(usage.cached_input_tokens or 0 for usage in known),
    )
    cost = None if endpoint.price is None else endpoint.price.cost_usd(total)
    tokens = {"input_tokens": total.input_tokens, "output_tokens": total.output_tokens}
    return reply.model_copy(update={**tokens, "cost_usd": cost})


async def _cancel(pending: set[asyncio.Task[JudgedTask]]) -> None:
    for one in pending:
        one.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*pending, return_exceptions=True)
