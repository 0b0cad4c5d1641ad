"""`flywheel judge qualify`: a judge answers gold items, and its word counts or does not.

Input: a judge and gold items. Output: a row of `qualifications`, and an MLflow run with the
evidence. MLflow is opened before the first item is paid for, and the row is written after the
evidence is there: a qualification that nobody can look into would be believed for thirty days.

Every measurement asks anew: a hosted model changes under its name, and the cache of judge runs
would answer with what it was. Only a measurement that was cut short goes on, within the day, from
a cache of its own.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from flywheel.graders.judge import Judge, conclude
from flywheel.label.judging import JudgeDesk, JudgedTask, JudgeRunner, ReplyCache, open_spending
from flywheel.label.qualifying.conclude import check_gold, conclude_qualification
from flywheel.label.qualifying.gold import GoldItem, gold_hash, to_task
from flywheel.label.qualifying.permission import history_of, same_judge
from flywheel.label.qualifying.report import QualificationReport, log_report, make_report
from flywheel.label.qualifying.verdicts import GoldVerdict, read_verdict_rows
from flywheel.records import utcnow
from flywheel.tracking import Tracker

OnProgress = Callable[[int, int], None]
"""Items answered, and items to answer."""


async def qualify(
    desk: JudgeDesk,
    gold: Sequence[GoldItem],
    *,
    tracker: Tracker,
    now: datetime | None = None,
    on_progress: OnProgress | None = None,
) -> QualificationReport:
    """Measures a judge on gold items and writes down what it reached.

    A measurement that failed is written, too: it takes the place of an earlier one.

    Args:
        desk: Who is measured, and what it works with; the budget is `judges.*.run`.
        gold: What it answers; each item fits its rubric (`mistakes_of`).
        tracker: Where the evidence goes.
        now: Time of the measurement.
        on_progress: Called after each item.

    Raises:
        JudgeError: these gold items cannot qualify it whatever it says; nothing was asked.
        JudgeBudgetError: the budget ended first. Nothing is written; what was answered is kept for
            the rest of the day, so that the same command goes on with a larger budget.
        UpstreamUnavailableError: MLflow does not answer, and nothing was asked; or the judge's
            endpoint is down.
        TrackingError: MLflow refuses.
    """
    check_gold(desk.judge, gold)
    now = now or utcnow()
    tags = {"stage": "qualify", "workload": desk.workload.name, "judge": desk.judge.name}
    kept = _kept(desk, gold, now)
    with tracker.run(desk.workload.name, f"qualify {desk.judge.name}", tags=tags) as run:
        verdicts = await _ask(desk, gold, kept, now=now, on_progress=on_progress)
        history = history_of(desk.lake, desk.workload, desk.judge)
        qualification, measured = conclude_qualification(
            desk.judge, desk.workload, verdicts, now=now, run_id=run.run_id, history=history
        )
        report = make_report(
            qualification, measured, verdicts, before=same_judge(desk.judge, history)
        )
        log_report(run, desk.judge, report)
    desk.lake.append([qualification])
    shutil.rmtree(kept)
    return report


def _kept(desk: JudgeDesk, gold: Sequence[GoldItem], now: datetime) -> Path:
    """Where the answers of a measurement lie until it is complete; those of other days go."""
    folder = desk.folder / "qualifying"
    day = f"{now:%Y-%m-%d}"
    for old in folder.glob("*"):
        if not old.name.startswith(day):
            shutil.rmtree(old, ignore_errors=True)
    kept = folder / f"{day}-{desk.judge.identity}-{gold_hash(gold)[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    return kept


async def _ask(
    desk: JudgeDesk,
    gold: Sequence[GoldItem],
    kept: Path,
    *,
    now: datetime,
    on_progress: OnProgress | None,
) -> list[GoldVerdict]:
    """What the judge says of each item, in the items' order."""
    tasks = [to_task(item, desk.workload.name) for item in gold]
    items = dict(zip((task.task_id for task in tasks), gold, strict=True))
    found: dict[str, GoldVerdict] = {}
    section = desk.judge.section.run
    with (
        ReplyCache(kept) as cache,
        open_spending(
            "qualify",
            kept / "spending.sqlite",
            budget_usd=section.budget_usd,
            budget_tokens=section.budget_tokens,
        ) as spending,
    ):
        runner = JudgeRunner(
            desk.models, prices=desk.prices, cache=cache, section=section, spending=spending
        )
        async with aclosing(runner.run(desk.judge, tasks)) as judged_tasks:
            async for judged in judged_tasks:
                item = items[judged.task.task_id]
                found[judged.task.task_id] = _verdict(desk.judge, item, judged, now)
                if on_progress:
                    on_progress(len(found), len(tasks))
    return [found[task.task_id] for task in tasks]


def _verdict(judge: Judge, item: GoldItem, judged: JudgedTask, now: datetime) -> GoldVerdict:
    if judged.problem is not None:
        return GoldVerdict(item=item, labels={}, error_type="judge_unaskable")
    return read_verdict_rows(judge, item, conclude(judge, judged.task, judged.replies, now=now))
