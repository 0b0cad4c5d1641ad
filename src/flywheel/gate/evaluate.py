"""Evaluation: a model answers every item of a suite, and graders score what it said.

Input: a chat model, a suite, graders. Output: an `EvalReport` with every item's output and scores.
An item without an answer has the error's name and scores None: missing is never 0. An evaluation
with more of those than `max_error_share` is none, and raises.

Scores move with batch size, engine and dtype, so candidate and champion are asked item by item
through the same queue: what disturbs one disturbs the other.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from flywheel.chat import ChatModel
from flywheel.errors import (
    BadRequestError,
    FlywheelError,
    GateError,
    UnknownModelError,
    UpstreamUnavailableError,
)
from flywheel.gate.suite import Suite
from flywheel.graders import Grader
from flywheel.records import EvalReport, EvaluationItem, JsonObject, SuiteItem, new_id, utcnow
from flywheel.workload import SamplingSection

Role = Literal["candidate", "champion"]
Progress = Callable[[int, int], None]
"""Called with the answers there are and the answers there will be."""

MAX_ERROR_SHARE = 0.02


@dataclass(frozen=True)
class Exam:
    """A suite with its graders, and how answers are asked for."""

    workload: str
    suite: Suite
    graders: Mapping[str, Grader]
    sampling: SamplingSection
    max_error_share: float = MAX_ERROR_SHARE


@dataclass(frozen=True)
class Contestant:
    """One model in an evaluation."""

    model: str
    """Served name."""
    role: Role
    evaluation_id: str


@dataclass(frozen=True)
class EvalPair:
    """Both models' reports of one evaluation."""

    candidate: EvalReport
    champion: EvalReport


async def evaluate(  # noqa: PLR0913 - each is a fact of the one evaluation, all but three by name
    chat: ChatModel,
    suite: Suite,
    graders: Mapping[str, Grader],
    *,
    workload: str,
    model: str,
    role: Role,
    sampling: SamplingSection,
) -> EvalReport:
    """One model alone over a suite: for a baseline. A gate needs `evaluate_pair`.

    Raises:
        UpstreamUnavailableError: too many items failed because the server did not answer.
        GateError: too many failed for another reason, or another model answered.
    """
    sitting = _Sitting(chat, Exam(workload, suite, graders, sampling), None)
    contestant = Contestant(model, role, new_id())
    return sitting.report(contestant, await sitting.answer([contestant]))


async def evaluate_pair(
    chat: ChatModel,
    exam: Exam,
    *,
    candidate: Contestant,
    champion: Contestant,
    on_progress: Progress | None = None,
) -> EvalPair:
    """Both models over the same items, interleaved in one queue so that they share batches.

    Raises:
        UpstreamUnavailableError: too many items failed because the server did not answer.
        GateError: too many failed for another reason, or another model answered.
    """
    sitting = _Sitting(chat, exam, on_progress)
    items = await sitting.answer([candidate, champion])
    return EvalPair(sitting.report(candidate, items), sitting.report(champion, items))


class _Sitting:
    """One pass over a suite: the queue, its workers, and the count of what failed."""

    def __init__(self, chat: ChatModel, exam: Exam, on_progress: Progress | None) -> None:
        self._chat, self._exam, self._on_progress = chat, exam, on_progress
        self._threads = ThreadPoolExecutor(exam.sampling.concurrency, "graders")
        self._failures: dict[str, int] = {}
        self._stop: FlywheelError | None = None

    async def answer(self, contestants: Sequence[Contestant]) -> list[EvaluationItem]:
        """Every item by every contestant, an item's answers side by side in the queue."""
        jobs = [(item, one) for item in self._exam.suite.items for one in contestants]
        answered: dict[int, EvaluationItem] = {}
        queue = iter(enumerate(jobs))

        async def work() -> None:
            for index, (item, contestant) in queue:
                answered[index] = await self._ask(item, contestant)
                if self._stop is not None:
                    return
                if self._on_progress is not None:
                    self._on_progress(len(answered), len(jobs))

        with self._threads:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._exam.sampling.concurrency, len(jobs))):
                    group.create_task(work())
        if self._stop is not None:
            raise self._stop
        return [answered[index] for index in range(len(jobs))]

    def report(self, contestant: Contestant, items: Sequence[EvaluationItem]) -> EvalReport:
        """One contestant's part of what was answered."""
        suite = self._exam.suite
        return EvalReport(
            evaluation_id=contestant.evaluation_id,
            workload=self._exam.workload,
            model=contestant.model,
            role=contestant.role,
            suite=suite.name,
            suite_hash=suite.suite_hash,
            items=tuple(i for i in items if i.evaluation_id == contestant.evaluation_id),
        )

    async def _ask(self, item: SuiteItem, contestant: Contestant) -> EvaluationItem:
        started = time.monotonic()
        output, error_type = await self._complete(item, contestant)
        duration_ms = (time.monotonic() - started) * 1000
        scores: dict[str, float | None] = dict.fromkeys(self._exam.graders)
        if output is not None:
            scores, error_type = await self._grade(item, output)
        return EvaluationItem(
            evaluation_id=contestant.evaluation_id,
            workload=self._exam.workload,
            created_at=utcnow(),
            suite=self._exam.suite.name,
            suite_hash=self._exam.suite.suite_hash,
            item_id=item.item_id,
            cluster_id=item.cluster_id or item.item_id,
            model=contestant.model,
            role=contestant.role,
            output=output,
            scores=scores,
            error_type=error_type,
            duration_ms=duration_ms,
        )

    async def _complete(
        self, item: SuiteItem, contestant: Contestant
    ) -> tuple[str | None, str | None]:
        """The answer, or the name of the error instead."""
        try:
            completion = await self._chat.complete(
                item.messages,
                model=contestant.model,
                temperature=self._exam.sampling.temperature,
                max_tokens=self._exam.sampling.max_tokens,
            )
        except (UpstreamUnavailableError, BadRequestError) as error:
            self._count(contestant, error)
            return None, type(error).__name__
        if completion.model != contestant.model:
            self._end(
                f"{contestant.model!r} was asked and {completion.model!r} answered: a gate must "
                "ask the model server itself, not a router. FLYWHEEL_ENGINE_URLS names it."
            )
        return completion.text, None

    async def _grade(
        self, item: SuiteItem, output: str
    ) -> tuple[dict[str, float | None], str | None]:
        """Scores by grader, and the first grader that failed with its reason."""
        seen: JsonObject = {
            "messages": [message.model_dump(mode="json") for message in item.messages],
            "reference": item.reference,
        }
        # A grader may take its time (a long text, a judge); other answers must not wait for it.
        results = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: {name: one.grade(output, seen) for name, one in self._exam.graders.items()},
        )
        failed = [f"{name}: {r.error_type}" for name, r in results.items() if r.score is None]
        return {name: r.score for name, r in results.items()}, failed[0] if failed else None

    def _count(
        self, contestant: Contestant, error: UpstreamUnavailableError | BadRequestError
    ) -> None:
        """Counts a failure; the one that makes the evaluation worthless stops it."""
        if isinstance(error, UnknownModelError):
            self._end(
                f"the model server does not serve {contestant.model!r}; served is what "
                "GET /v1/models lists. `flywheel gate` loads adapters the lake knows there first."
            )
            return
        total = len(self._exam.suite.items)
        failed = self._failures[contestant.model] = self._failures.get(contestant.model, 0) + 1
        if failed <= math.floor(self._exam.max_error_share * total):
            return
        if isinstance(error, UpstreamUnavailableError):
            self._stop = self._stop or error
        else:
            self._end(
                f"{contestant.model}: {failed} of {total} items were refused, more than "
                f"gate.max_error_share {self._exam.max_error_share} allows; the last: {error}"
            )

    def _end(self, reason: str) -> None:
        """The first reason stands: what was already under way may fail for the same one."""
        self._stop = self._stop or GateError(reason)
