"""Judges asked overnight: the batch API, at its price and in its time.

Input: a judge and its tasks. Output: each task with its replies, as batches come back. A batch that
expired is started again with what is left of it, an answer that is no verdict is repaired in the
next batch, and a run that was killed goes on waiting for the batches it had started.

All tasks of a run are in memory at once.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flywheel.chat import StructuredCompletion
from flywheel.errors import (
    BadRecordError,
    BadRequestError,
    JudgeBudgetError,
    JudgeError,
    UpstreamUnavailableError,
)
from flywheel.graders.judge import Judge, JudgeCall, JudgeReply, JudgeTask, ask, plan_calls
from flywheel.graders.judge.judge import with_key
from flywheel.judges import JudgeRunSection
from flywheel.label.judging.batch_ledger import BatchEntry, BatchLedger
from flywheel.label.judging.batch_lines import read_line, request_line, usage_of, worst_of
from flywheel.label.judging.batch_server import OpenAIBatches
from flywheel.label.judging.cache import ReplyCache
from flywheel.label.judging.purse import worst_case
from flywheel.label.judging.runner import JudgedTask, RunProgress, is_failed, refuse_unpriced
from flywheel.label.judging.spending import Reservation, Spending
from flywheel.prices import Price, PriceTable, TokenUsage
from flywheel.records import JsonObject, Message

log = logging.getLogger("flywheel.judging")

MAX_LINES, MAX_BYTES = 50_000, 180 * 2**20
"""Of one batch; OpenAI takes 50,000 requests and 200 MB."""
MAX_ROUNDS = 3
"""Batches one request may be part of before it counts as failed."""
POLL_S, LONGEST_POLL_S = 5.0, 60.0
DONE = ("completed", "expired", "cancelled", "failed")


class _NotAskedYetError(Exception):
    """A judgement needs an answer that no batch has brought yet."""

    def __init__(self, call: JudgeCall) -> None:
        self.call = call
        super().__init__(call.key)


class _Recorded:
    """A StructuredChatModel that says what batches have brought, for `ask` to read."""

    def __init__(self, call: JudgeCall, answers: "Answers") -> None:
        self._call, self._answers = call, answers

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
        """The recorded answer.

        Raises:
            _NotAskedYetError: there is none.
            BadRequestError: the provider refused the request.
        """
        asked = with_key(self._call.model_copy(update={"messages": tuple(messages)}))
        answer = self._answers.get(asked.key)
        if answer is None:
            raise _NotAskedYetError(asked)
        if isinstance(answer, BadRequestError):
            raise answer
        return answer


Answers = dict[str, StructuredCompletion | BadRequestError]
"""By the key of the request: a call's own, or that of its repair."""


@dataclass
class _Open:
    """A task that is not done yet."""

    task: JudgeTask
    calls: tuple[JudgeCall, ...]
    replies: dict[str, JudgeReply] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return len(self.replies) == len({call.key for call in self.calls})


@dataclass(frozen=True)
class _Flight:
    """A batch that is worked on."""

    entry: BatchEntry
    requests: dict[str, JudgeCall]
    """Empty for a batch that an earlier process had started."""


class BatchRunner:
    """Asks the judges of one run by the batch API.

    Args:
        servers: by provider.
        cache: where replies are kept.
        spending: the run's account.
        ledger: the run's batches.
        prices: what tokens cost where they are not asked for in batches.
        section: budgets, and `batch_price_share`.
        on_progress: called after each task.
        poll_s: between two looks at a batch, at first.
    """

    def __init__(  # noqa: PLR0913 - what a run consists of
        self,
        servers: Mapping[str, OpenAIBatches],
        *,
        cache: ReplyCache,
        spending: Spending,
        ledger: BatchLedger,
        prices: PriceTable,
        section: JudgeRunSection,
        on_progress: Callable[[RunProgress], None] | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._servers, self._cache, self._spending = servers, cache, spending
        self._ledger, self._prices, self._section = ledger, prices, section
        self._on_progress, self._poll_s = on_progress, poll_s
        self._answers: Answers = {}
        self._rounds: dict[str, int] = {}
        self._wanted: dict[str, JudgeCall] = {}
        """Requests to be part of the next batch."""
        self._waiting: dict[str, list[tuple[_Open, JudgeCall]]] = {}
        """Whose judgement a request is for."""
        self._flights: dict[asyncio.Task[list[bytes]], _Flight] = {}
        self._finished: list[BatchEntry] = []
        self._judged = self._failed = self._cached = self._asked = 0

    async def run(
        self, judge: Judge, tasks: Iterable[JudgeTask]
    ) -> AsyncGenerator[JudgedTask, None]:
        """Judges every task and yields it when it is done.

        Raises:
            ConfigError: a budget in money and a model without a price.
            JudgeBudgetError: what is left of the budget pays for no further request.
            JudgeError: a provider refused a batch, or somebody cancelled it.
            UpstreamUnavailableError: a provider cannot be reached; run again to go on.
        """
        refuse_unpriced(judge, self._section, self._prices)
        try:
            await self._collect_earlier()
            for task in tasks:
                done = await self._begin(judge, task)
                if done is not None:
                    yield self._counted(done)
            while self._wanted or self._flights:
                await self._start_batches()
                if not self._flights:
                    raise self._budget_error(judge)
                for done in await self._next_answers(judge):
                    yield self._counted(done)
            await self._forget()
        finally:
            for flight in self._flights:
                flight.cancel()
            await asyncio.gather(*self._flights, return_exceptions=True)

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
            concurrency=sum(len(flight.requests) for flight in self._flights.values()),
        )

    async def _begin(self, judge: Judge, task: JudgeTask) -> JudgedTask | None:
        """What is known of a task at once; the rest is wanted of the next batch."""
        try:
            opened = _Open(task, plan_calls(judge, task))
        except BadRecordError as error:
            return JudgedTask(task=task, replies={}, problem=str(error))
        for call in opened.calls:
            known = self._cache.get(call.key, task)
            if known is not None:
                self._cached += 1
                opened.replies[call.key] = known
            else:
                await self._try(judge, opened, call)
        return JudgedTask(task=task, replies=opened.replies) if opened.is_done else None

    async def _try(self, judge: Judge, opened: _Open, call: JudgeCall) -> None:
        """Makes a reply of what batches have brought, or wants what is missing."""
        try:
            reply = await ask(judge, call, _Recorded(call, self._answers))
        except _NotAskedYetError as missing:
            key = missing.call.key
            if key not in self._waiting and key not in self._rounds:
                self._wanted[key] = missing.call
            self._waiting.setdefault(key, []).append((opened, call))
            return
        price = self._price(call.model)
        usage = usage_of(reply)
        if price is not None and usage is not None:
            reply = reply.model_copy(update={"cost_usd": price.cost_usd(usage)})
        self._keep(judge, opened, call, reply)

    def _keep(self, judge: Judge, opened: _Open, call: JudgeCall, reply: JudgeReply) -> None:
        if reply.error_type is None:
            self._cache.put(reply, opened.task, judge=judge.name, judge_hash=judge.identity)
            reply = self._cache.get(call.key, opened.task) or reply
        opened.replies[call.key] = reply

    async def _collect_earlier(self) -> None:
        """Waits for the batches that a killed process had started."""
        for entry in self._ledger.unfinished():
            server = self._servers[entry.provider]
            batch_id = entry.batch_id or await server.find(entry.sha)
            if batch_id is None:  # it was about to be started, and never was
                self._spending.release(entry.reserved)
                self._ledger.done(entry)
                continue
            log.info("going on with batch %s of an earlier run", batch_id)
            found = self._ledger.started(entry, batch_id)
            flight = _Flight(found, {})
            self._read(flight, await self._wait(found))

    async def _start_batches(self) -> None:
        """Starts batches of all that is wanted, as far as the budget pays for their worst case."""
        while self._wanted:
            chunk, reserved = self._next_chunk()
            if not chunk:
                return
            lines = b"".join(request_line(call) for call in chunk.values())
            sha = hashlib.sha256(lines).hexdigest()
            first = next(iter(chunk.values()))
            entry = self._ledger.intend(sha, first.provider, first.model, reserved)
            batch_id = await self._servers[first.provider].create(lines, sha)
            entry = self._ledger.started(entry, batch_id)
            log.info("batch %s: %d requests to %s", batch_id, len(chunk), first.model)
            self._asked += len(chunk)
            flight = asyncio.create_task(self._wait(entry))
            self._flights[flight] = _Flight(entry, chunk)

    def _next_chunk(self) -> tuple[dict[str, JudgeCall], Reservation]:
        """Requests to one model, as many as one batch takes and the budget pays for."""
        first = next(iter(self._wanted.values()))
        chunk: dict[str, JudgeCall] = {}
        size, pico, tokens = 0, 0, 0
        price = self._price(first.model)
        for key, call in list(self._wanted.items()):
            if (call.provider, call.model) != (first.provider, first.model):
                continue
            worst = worst_case(call.messages, call.response_schema, call.max_tokens)
            size += len(request_line(call))
            if len(chunk) >= MAX_LINES or (chunk and size > MAX_BYTES):
                break
            cost = None if price is None else price.cost_usd(worst)
            reserved = self._spending.reserve(cost, worst.total_tokens)
            if reserved is None:
                break
            pico, tokens = pico + reserved.pico, tokens + reserved.tokens
            chunk[key] = self._wanted.pop(key)
            self._rounds[key] = self._rounds.get(key, 0) + 1
        return chunk, Reservation(pico, tokens)

    async def _wait(self, entry: BatchEntry) -> list[bytes]:
        """Looks at a batch until it is done, and downloads what came of it."""
        assert entry.batch_id is not None
        server, pause = self._servers[entry.provider], self._poll_s
        while True:
            batch = await server.look(entry.batch_id)
            if batch.status in DONE:
                break
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * 1.5)
        if batch.status == "failed":
            self._spending.release(entry.reserved)
            self._ledger.done(entry)
            found = batch.errors.data if batch.errors and batch.errors.data else []
            told = "; ".join(f"line {one.line}: {one.message}" for one in found[:5])
            raise JudgeError(f"batch {batch.id} was refused: {told or 'no reason was given'}")
        return await server.download(batch)

    async def _next_answers(self, judge: Judge) -> list[JudgedTask]:
        """Waits for the next batch and returns the tasks it completed."""
        done, _ = await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)
        completed: list[JudgedTask] = []
        for finished in done:
            flight = self._flights.pop(finished)
            self._read(flight, finished.result())
            for key, request in flight.requests.items():
                completed += await self._answered(judge, key, request)
        return completed

    async def _answered(self, judge: Judge, key: str, request: JudgeCall) -> list[JudgedTask]:
        """Gives an answer to those who wait for it; one that did not come is wanted again."""
        if key not in self._answers and self._rounds[key] < MAX_ROUNDS:
            self._wanted[key] = request
            return []
        completed = []
        for opened, call in self._waiting.pop(key, []):
            if key in self._answers:
                await self._try(judge, opened, call)
            else:
                why = f"no answer in {MAX_ROUNDS} batches"
                opened.replies[call.key] = JudgeReply(
                    key=call.key,
                    text=None,
                    error_type="judge_unavailable",
                    error_message=why,
                    attempts=MAX_ROUNDS,
                )
            if opened.is_done:
                completed.append(JudgedTask(task=opened.task, replies=opened.replies))
        return completed

    def _read(self, flight: _Flight, lines: Sequence[bytes]) -> None:
        """Takes what a batch brought into the answers, and books what it cost."""
        price, usd, tokens, calls = self._price(flight.entry.model), 0.0, 0, 0
        for line in lines:
            key, answer = read_line(line, self._servers[flight.entry.provider].url)
            if key is None or answer is None:
                continue
            self._answers[key] = answer
            if isinstance(answer, StructuredCompletion):
                usage = usage_of(answer) or _booked(flight, key, len(lines))
                usd += price.cost_usd(usage) if price is not None else 0.0
                tokens, calls = tokens + usage.total_tokens, calls + 1
        if not flight.entry.is_settled:
            known = usd if price is not None else None
            self._spending.settle(flight.entry.reserved, known, tokens, calls=calls)
            self._ledger.settled(flight.entry)
        self._finished.append(flight.entry)

    async def _forget(self) -> None:
        """All is in the cache: the provider may delete what people wrote."""
        for entry in self._finished:
            assert entry.batch_id is not None
            server = self._servers[entry.provider]
            try:
                await server.forget(await server.look(entry.batch_id))
            except UpstreamUnavailableError as error:
                log.warning("the files of batch %s stay there: %s", entry.batch_id, error)
            self._ledger.done(entry)

    def _price(self, model: str) -> Price | None:
        price, share = self._prices.find(model), self._section.batch_price_share
        if price is None:
            return None
        cached = None if price.cached_input is None else price.cached_input * share
        return Price(input=price.input * share, cached_input=cached, output=price.output * share)

    def _budget_error(self, judge: Judge) -> JudgeBudgetError:
        left = {id(opened) for waiting in self._waiting.values() for opened, _ in waiting}
        return JudgeBudgetError(judge.name, *self._spending.told(), len(left))

    def _counted(self, judged: JudgedTask) -> JudgedTask:
        self._judged += 1
        self._failed += is_failed(judged)
        if self._on_progress is not None:
            self._on_progress(self.progress())
        return judged


def _booked(flight: _Flight, key: str, lines: int) -> TokenUsage:
    """For an answer nobody counted: its worst case, or its share of the batch's."""
    if key in flight.requests:
        return worst_of(flight.requests[key])
    return TokenUsage(flight.entry.reserved.tokens // lines, 0)
