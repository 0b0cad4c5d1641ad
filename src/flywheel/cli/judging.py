"""Judge runs, for the command and the flows alike.

Input: a `Place` and the name of a judge. Output: what a run did. One run of a judge at a time: a
second would pay for the same answers.
"""

import asyncio
import fcntl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from flywheel.cli.steps import Place
from flywheel.errors import ConfigError, JudgeBudgetError, JudgeError, JudgeNotQualifiedError
from flywheel.records import Record, Share, utcnow
from flywheel.settings import Settings
from flywheel.workload import Workload

if TYPE_CHECKING:
    from flywheel.graders.judge import Judge
    from flywheel.label.judging import Estimate, JudgeDesk, JudgeRunReport, Selection
    from flywheel.label.judging.run import OnProgress


class JudgeOutcome(Record):
    """What became of one judge of a night."""

    judge: str
    state: str
    """Of the run; `refused` where the judge may not label, `budget` where its budget ended it."""
    reason: str
    judged: int = 0
    failed: int = 0
    cost_usd: float | None = None
    """NULL where a price is not known, or nothing was asked."""


class ShardDone(Record):
    """What one shard of a run did."""

    judged: int
    failed: int
    seconds: float
    stopped: str | None = None
    """Why it ended early: its budget, or its qualification ended."""


def find_judge(workload: Workload, name: str) -> "Judge":
    """The judge of that name.

    Raises:
        ConfigError: there is none, or one of the workload's judges cannot be built.
    """
    from flywheel.graders.judge import build_judges

    judges = build_judges(workload)
    if name not in judges:
        known = ", ".join(judges) or "none"
        raise ConfigError(f"judges of {workload.name}", [f"no judge {name!r}; there are: {known}"])
    return judges[name]


def find_labelling_judge(workload: Workload, name: str) -> "Judge":
    """The judge of that name, where it is there to label.

    Raises:
        ConfigError: there is none.
        JudgeError: it gates, and who gates may not label.
    """
    judge = find_judge(workload, name)
    if judge.section.purpose != "label":
        raise JudgeError(
            f"judge {name!r} is there to gate (judges.{name}.purpose), and who gates may not "
            "label what the gate decides on: declare another judge with purpose: label"
        )
    return judge


@asynccontextmanager
async def open_desk(
    settings: Settings, workload: Workload, judge: "Judge"
) -> "AsyncIterator[JudgeDesk]":
    """All a judge needs in a deployment; its connections are closed at the end."""
    from flywheel.label.judging import JudgeDesk, opened_models
    from flywheel.lake import Lake
    from flywheel.prices import PriceTable

    async with opened_models(workload, engine_url=settings.engine_urls[0]) as models:
        yield JudgeDesk(
            lake=Lake.open(settings),
            workload=workload,
            judge=judge,
            models=models,
            folder=settings.judge_cache_dir,
            prices=PriceTable.load(settings.prices),
        )


@contextmanager
def judging_alone(place: Place, name: str) -> Iterator[None]:
    """Holds the judge's lock; the kernel lets go of it when the process dies.

    Raises:
        JudgeError: another run of it is going on.
    """
    settings, workload = place.load()
    folder = settings.judge_cache_dir
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{workload.name}.{name}.lock"
    with path.open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JudgeError(
                f"judge {name!r} is judging {workload.name} already (it holds {path}): wait for "
                "it, or stop it; what it judged is kept, and the next run goes on from there"
            ) from error
        yield


def run_judge(
    place: Place,
    name: str,
    selection: "Selection | None" = None,
    *,
    is_batch: bool = False,
    on_progress: "OnProgress | None" = None,
) -> "JudgeRunReport":
    """Has one judge judge what it has not judged yet.

    Raises:
        JudgeError: it gates, or another run of it is going on.
        JudgeNotQualifiedError: its word does not count.
    """
    from flywheel.label.judging import batch_captured, judge_captured
    from flywheel.label.qualifying import require_qualified

    settings, workload = place.load()
    judge = find_labelling_judge(workload, name)

    async def work() -> "JudgeRunReport":
        async with open_desk(settings, workload, judge) as desk:
            judged = batch_captured if is_batch else judge_captured
            return await judged(
                desk, selection, permission=require_qualified, on_progress=on_progress
            )

    with judging_alone(place, name):
        return asyncio.run(work())


def estimate_run(
    place: Place, name: str, selection: "Selection", *, is_batch: bool = False
) -> "Estimate":
    """What a run would ask and cost at worst; nothing is asked.

    Raises:
        JudgeError: it gates.
    """
    from flywheel.label.judging import estimate
    from flywheel.lake import Lake
    from flywheel.prices import PriceTable

    settings, workload = place.load()
    return estimate(
        Lake.open(settings),
        workload,
        find_labelling_judge(workload, name),
        selection,
        prices=PriceTable.load(settings.prices),
        is_batch=is_batch,
    )


def run_label_judges(place: Place) -> list[JudgeOutcome]:
    """Every judge of the workload with the purpose `label`, one after the other.

    One that may not label, or whose budget ends, is told and does not stop the others.
    """
    _, workload = place.load()
    outcomes = []
    for name, section in workload.judges.items():
        if section.purpose != "label":
            continue
        try:
            report = run_judge(place, name)
        except JudgeNotQualifiedError as error:
            outcomes.append(JudgeOutcome(judge=name, state="refused", reason=str(error)))
        except JudgeBudgetError as error:
            outcomes.append(JudgeOutcome(judge=name, state="budget", reason=str(error)))
        else:
            told = report.model_dump(include={"state", "reason", "judged", "failed", "cost_usd"})
            outcomes.append(JudgeOutcome(judge=name, **told))
    return outcomes


def begin_judging(place: Place, name: str) -> str:
    """Opens a run that shards work on, and returns its id.

    Raises:
        JudgeError: it gates.
        JudgeNotQualifiedError: the judge may not label.
        JudgeBudgetError: its budget is 0.
    """
    from flywheel.label.judging import open_run, refuse_empty_budget
    from flywheel.label.qualifying import require_qualified
    from flywheel.lake import Lake

    settings, workload = place.load()
    judge, lake = find_labelling_judge(workload, name), Lake.open(settings)
    require_qualified(lake, workload, judge, now=utcnow())
    refuse_empty_budget(judge, 0)
    return open_run(lake, workload, judge).judge_run_id


def judge_shard(
    place: Place, name: str, run_id: str, shard: int, shards: int, sample: Share = 1.0
) -> ShardDone:
    """Judges one shard under an open run, in this process."""
    from flywheel.label.judging import Selection, draw_tasks, judge_drawn
    from flywheel.label.qualifying import require_qualified

    settings, workload = place.load()
    judge = find_judge(workload, name)

    async def work() -> ShardDone:
        async with open_desk(settings, workload, judge) as desk:
            wanted = Selection(sample=sample, shard=shard, shards=shards)
            draw = draw_tasks(desk.lake, workload, judge, wanted)
            try:
                done = await judge_drawn(desk, draw, run_id, permission=require_qualified)
            except (JudgeBudgetError, JudgeNotQualifiedError) as error:
                return ShardDone(judged=0, failed=0, seconds=0.0, stopped=str(error))
        now = done.progress
        return ShardDone(judged=now.judged, failed=now.failed, seconds=done.seconds)

    return asyncio.run(work())


def finish_judging(
    place: Place, name: str, run_id: str, parts: Sequence[ShardDone]
) -> JudgeOutcome:
    """Counts what the shards did; the run's rows count from now on, if it is valid."""
    from flywheel.label.judging import close_judge_run
    from flywheel.records import JudgeRun

    settings, workload = place.load()
    judge = find_judge(workload, name)

    async def work() -> JudgeRun:
        async with open_desk(settings, workload, judge) as desk:
            return close_judge_run(desk, run_id)

    closed = asyncio.run(work())
    return JudgeOutcome(
        judge=name,
        state=closed.state,
        reason="; ".join([closed.reason, *sorted({p.stopped for p in parts if p.stopped})]),
        judged=closed.tasks,
        failed=closed.errors,
        cost_usd=closed.cost_usd,
    )
