"""`flywheel judge run`: a judge over captured answers, however many, however often it is killed.

Input: a qualified judge, and the answers or pairs it has not judged yet. Output: rows of
`assessments`, committed in batches while it runs, and an entry of `judge_runs` that makes them
count. docs/judge-runs.md says what a kill, a spent budget and an ill endpoint do to it.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from flywheel.chat import StructuredChatModel
from flywheel.errors import JudgeBudgetError, JudgeNotQualifiedError
from flywheel.graders.judge import Judge, JudgeTask, conclude
from flywheel.label.judging.cache import ReplyCache
from flywheel.label.judging.ledger import close_run, open_run
from flywheel.label.judging.runner import JudgedTask, JudgeRunner, RunProgress
from flywheel.label.judging.spending import Spending, open_spending
from flywheel.label.judging.tasks import Draw, Selection, draw_tasks, load_tasks
from flywheel.lake import Lake
from flywheel.prices import PriceTable
from flywheel.records import Assessment, JudgeRun, Record, Share, new_id, utcnow
from flywheel.workload import Workload

COMMIT_ROWS = 1_000
COMMIT_S = 5.0


SPENDING = "spending.sqlite"

OnProgress = Callable[[RunProgress, int], None]


class Permission(Protocol):
    """Says whether a judge's word counts; see `label.qualifying`."""

    def __call__(self, lake: Lake, workload: Workload, judge: Judge, *, now: datetime) -> object:
        """Raises JudgeNotQualifiedError where it does not."""
        ...


class JudgeRunReport(Record):
    """What a run did, and what its judge run has come to."""

    judge: str
    judge_hash: str
    judge_run_id: str | None
    """NULL when there was nothing to judge."""
    state: Literal["open", "valid", "invalid", "nothing"]
    """nothing: all had been judged before."""
    reason: str
    eligible: int
    judged_before: int
    selected: int
    judged: int
    """Now, with those that failed."""
    failed: int
    cached: int
    """Replies that had been paid for before."""
    asked: int
    calls: int
    """Paid for, of the whole judge run."""
    tokens: int
    cost_usd: float | None
    """NULL where a price is not known."""
    inclusion_prob: Share
    seconds: float


class RunDone(Record):
    """What one process did of a run."""

    progress: RunProgress
    seconds: float


@dataclass(frozen=True)
class JudgeDesk:
    """What a judge needs to work."""

    lake: Lake
    workload: Workload
    judge: Judge
    models: Mapping[str, StructuredChatModel]
    """By provider."""
    folder: Path
    """<home>/judge-cache: replies, and the accounts of runs."""
    prices: PriceTable = field(default_factory=lambda: PriceTable({}))


class Runner(Protocol):
    """`JudgeRunner`, or `BatchRunner` overnight."""

    def run(self, judge: Judge, tasks: Iterable[JudgeTask]) -> AsyncGenerator[JudgedTask, None]:
        """Yields each task with its replies."""
        ...

    def progress(self) -> RunProgress:
        """Where the run is."""
        ...


class JudgeDrawn(Protocol):
    """Has a draw judged under an open run."""

    async def __call__(
        self,
        desk: JudgeDesk,
        draw: Draw,
        run_id: str,
        *,
        permission: Permission,
        on_progress: OnProgress | None = None,
    ) -> RunDone:
        """Returns what was done; raises JudgeNotQualifiedError where permission ends."""
        ...


class Asking(Protocol):
    """`Runner.run`."""

    def __call__(
        self, judge: Judge, tasks: Iterable[JudgeTask], /
    ) -> AsyncGenerator[JudgedTask, None]:
        """Yields each task with its replies."""
        ...


async def judge_captured(
    desk: JudgeDesk,
    selection: Selection | None = None,
    *,
    permission: Permission,
    on_progress: OnProgress | None = None,
) -> JudgeRunReport:
    """Has the judge judge what it has not judged yet.

    Args:
        desk: Who judges, where.
        selection: Which answers; all when absent.
        permission: Refuses a judge that has not qualified; asked again before every commit.
        on_progress: Called after each task with where the run is, and how many tasks it has.

    Raises:
        JudgeNotQualifiedError: its word does not count, so it is not asked; or it has ceased to
            count. What was committed before counts, the rest is left unjudged.
        JudgeBudgetError: the budget is reached. What was judged is kept, and counts.
        UpstreamUnavailableError: the endpoint is down; run again to go on.
    """
    return await run_drawn(
        desk, selection, judge_drawn, permission=permission, on_progress=on_progress
    )


async def run_drawn(
    desk: JudgeDesk,
    selection: Selection | None,
    judge_all: JudgeDrawn,
    *,
    permission: Permission,
    on_progress: OnProgress | None,
) -> JudgeRunReport:
    """Asks for permission, draws, opens a run, has the draw judged, and closes the run."""
    permission(desk.lake, desk.workload, desk.judge, now=utcnow())
    draw = draw_tasks(desk.lake, desk.workload, desk.judge, selection or Selection())
    if not draw.task_ids:
        return _nothing(desk.judge, draw)
    refuse_empty_budget(desk.judge, len(draw.task_ids))
    run_id = open_run(desk.lake, desk.workload, desk.judge).judge_run_id
    try:
        done = await judge_all(desk, draw, run_id, permission=permission, on_progress=on_progress)
    except (JudgeBudgetError, JudgeNotQualifiedError):
        close_judge_run(desk, run_id)
        raise
    return report_of(desk.judge, draw, close_judge_run(desk, run_id), done)


async def judge_drawn(
    desk: JudgeDesk,
    draw: Draw,
    run_id: str,
    *,
    permission: Permission,
    on_progress: OnProgress | None = None,
) -> RunDone:
    """Judges one draw, or one shard of it, under a run that somebody opened and will close.

    Raises:
        JudgeNotQualifiedError: the judge's word has ceased to count; what was committed counts.
    """
    with ReplyCache(desk.folder) as cache, account_of(desk, run_id) as spending:
        runner = JudgeRunner(
            desk.models,
            prices=desk.prices,
            cache=cache,
            section=desk.judge.section.run,
            spending=spending,
            on_progress=with_total(on_progress, len(draw.task_ids)),
        )
        return await commit_drawn(desk, draw, runner, run_id, permission=permission)


async def commit_drawn(
    desk: JudgeDesk, draw: Draw, runner: Runner, run_id: str, *, permission: Permission
) -> RunDone:
    """Has a draw's tasks judged and commits the rows."""
    started = time.monotonic()
    tasks = load_tasks(desk.lake, desk.workload, desk.judge, draw)
    await commit_judged(desk, runner.run, tasks, run_id, permission=permission)
    return RunDone(progress=runner.progress(), seconds=time.monotonic() - started)


@contextmanager
def account_of(desk: JudgeDesk, run_id: str) -> Iterator[Spending]:
    """The run's account with the judge's budget."""
    section = desk.judge.section.run
    with open_spending(
        run_id,
        desk.folder / SPENDING,
        budget_usd=section.budget_usd,
        budget_tokens=section.budget_tokens,
    ) as spending:
        yield spending


def with_total(on_progress: OnProgress | None, total: int) -> Callable[[RunProgress], None] | None:
    """A runner's progress, told with how many tasks there are."""
    return None if on_progress is None else lambda now: on_progress(now, total)


async def commit_judged(
    desk: JudgeDesk,
    ask: Asking,
    tasks: Iterable[JudgeTask],
    run_id: str,
    *,
    permission: Permission,
) -> None:
    """Commits rows in batches as they come; what is judged is committed whatever ends the run.

    Only where the judge's word has ceased to count it is not: such a row would never count, and
    would never be judged again. The replies stay in the cache for when it has qualified anew.
    """
    attempt, rows, last = new_id(), list[Assessment](), time.monotonic()
    try:
        async with aclosing(ask(desk.judge, tasks)) as judged_tasks:
            async for judged in judged_tasks:
                rows += rows_of(desk.judge, judged, run_id=run_id, attempt=attempt, now=utcnow())
                if len(rows) >= COMMIT_ROWS or time.monotonic() - last >= COMMIT_S:
                    batch, rows = rows, []
                    await asyncio.to_thread(_commit, desk, batch, permission)
                    last = time.monotonic()
    finally:
        if rows:
            _commit(desk, rows, permission)


def _commit(desk: JudgeDesk, rows: list[Assessment], permission: Permission) -> None:
    permission(desk.lake, desk.workload, desk.judge, now=utcnow())
    desk.lake.append(rows)


def close_judge_run(desk: JudgeDesk, run_id: str) -> JudgeRun:
    """Counts a run and enters what it came to."""
    with open_spending(run_id, desk.folder / SPENDING) as spending:
        return close_run(desk.lake, desk.workload, desk.judge, run_id, spent=spending.read())


def rows_of(
    judge: Judge, judged: JudgedTask, *, run_id: str, attempt: str, now: datetime
) -> list[Assessment]:
    """A judged task as rows of its run; a task that could not be asked is an error row a model."""
    if judged.problem is None:
        rows = conclude(judge, judged.task, judged.replies, now=now, run=attempt)
    else:
        rows = [_unaskable(judge, judged, seat.model, attempt, now) for seat in judge.section.panel]
    return [row.model_copy(update={"judge_run_id": run_id}) for row in rows]


def _unaskable(
    judge: Judge, judged: JudgedTask, model: str, attempt: str, now: datetime
) -> Assessment:
    task = judged.task
    identity = "\0".join((judge.identity, task.workload, task.task_id, model, attempt))
    return Assessment(
        assessment_id=sha256(identity.encode()).hexdigest()[:32],
        workload=task.workload,
        event_date=now.date(),
        interaction_id=task.interaction_id,
        pair_ids=task.pair_ids,
        name=judge.name,
        kind="feedback" if task.pair_ids is None else "preference",
        rationale=judged.problem,
        source_type="llm_judge",
        source_id=f"judge:{judge.name}/{model}",
        rubric=judge.rubric.reference_name,
        status="error",
        error_type="judge_unaskable",
        judge_model=model,
        judge_prompt_hash=judge.identity,
        subject_key=task.subject_key,
        inclusion_prob=task.inclusion_prob,
        created_at=now,
    )


def refuse_empty_budget(judge: Judge, left: int) -> None:
    """A budget of zero is refused before anything is opened.

    Raises:
        JudgeBudgetError: the budget is 0.
    """
    section = judge.section.run
    for budget, unit in ((section.budget_usd, "USD"), (section.budget_tokens, "tokens")):
        if budget == 0:
            raise JudgeBudgetError(judge.name, "nothing", f"0 {unit}", left)


def _nothing(judge: Judge, draw: Draw) -> JudgeRunReport:
    return JudgeRunReport(
        judge=judge.name,
        judge_hash=judge.identity,
        judge_run_id=None,
        state="nothing",
        reason="nothing is left to judge" if draw.eligible else "there is nothing to judge",
        eligible=draw.eligible,
        judged_before=draw.judged,
        selected=0,
        judged=0,
        failed=0,
        cached=0,
        asked=0,
        calls=0,
        tokens=0,
        cost_usd=0.0,
        inclusion_prob=draw.inclusion_prob,
        seconds=0.0,
    )


def report_of(judge: Judge, draw: Draw, closed: JudgeRun, done: RunDone) -> JudgeRunReport:
    """The report of a run."""
    return _nothing(judge, draw).model_copy(
        update={
            "judge_run_id": closed.judge_run_id,
            "state": closed.state,
            "reason": closed.reason,
            "selected": len(draw.task_ids),
            "judged": done.progress.judged,
            "failed": done.progress.failed,
            "cached": done.progress.cached,
            "asked": done.progress.asked,
            "calls": closed.calls,
            "tokens": closed.tokens,
            "cost_usd": closed.cost_usd,
            "seconds": done.seconds,
        }
    )
