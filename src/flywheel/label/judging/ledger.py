"""The ledger of judge runs: how rows can be committed while a run goes on, and still not count.

A run is `open` when its first row is committed. Its rows bear its id, and the lake's views leave
them out until the run's entry `valid` is there: one small append, which makes all of them count at
once. A run that was killed, or is `invalid` for its errors, is gone on with by the next run of the
same judge; what it judged is not judged again, and its errors are.
"""

from importlib.resources import files
from typing import Literal

from flywheel.graders.judge import Judge
from flywheel.label.judging.spending import Spent
from flywheel.lake import Lake
from flywheel.records import JudgeRun, new_id, utcnow
from flywheel.workload import Workload

_LATEST = """
SELECT * FROM judge_runs
WHERE workload = ? AND judge = ? AND judge_hash = ?
ORDER BY created_at DESC, entry_id DESC
LIMIT 1
"""


def open_run(lake: Lake, workload: Workload, judge: Judge) -> JudgeRun:
    """The judge's run that is not finished, or a new one."""
    latest = next(
        iter(lake.fetch(JudgeRun, _LATEST, [workload.name, judge.name, judge.identity])), None
    )
    if latest is not None and latest.state != "valid":
        return latest
    entry = JudgeRun(
        entry_id=new_id(),
        judge_run_id=new_id(),
        workload=workload.name,
        created_at=utcnow(),
        judge=judge.name,
        judge_hash=judge.identity,
        state="open",
        tasks=0,
        errors=0,
        max_error_share=judge.section.run.max_error_share,
        calls=0,
        tokens=0,
        cost_usd=0.0,
        reason="begun",
    )
    lake.append([entry])
    return entry


def close_run(
    lake: Lake, workload: Workload, judge: Judge, run_id: str, *, spent: Spent
) -> JudgeRun:
    """Counts what the run came to and enters it: `valid`, or `invalid` where too much failed.

    Without a single judgement it stays open: there is nothing to be valid.
    """
    sql = (files("flywheel.label.judging") / "run_counts.sql").read_text(encoding="utf-8")
    (counts,) = lake.query(sql, [workload.name, run_id, judge.name]).to_pylist()
    tasks, errors = counts["tasks"], counts["errors"]
    state, reason = _verdict(judge, tasks, errors)
    entry = JudgeRun(
        entry_id=new_id(),
        judge_run_id=run_id,
        workload=workload.name,
        created_at=utcnow(),
        judge=judge.name,
        judge_hash=judge.identity,
        state=state,
        tasks=tasks,
        errors=errors,
        max_error_share=judge.section.run.max_error_share,
        calls=spent.calls,
        tokens=spent.tokens,
        cost_usd=spent.usd,
        reason=reason,
    )
    lake.append([entry])
    return entry


def _verdict(
    judge: Judge, tasks: int, errors: int
) -> tuple[Literal["open", "valid", "invalid"], str]:
    if not tasks:
        return "open", "nothing was judged"
    share, bar = errors / tasks, judge.section.run.max_error_share
    told = f"{errors} of {tasks} judgements failed ({share:.1%})"
    if share <= bar:
        return "valid", told
    return "invalid", f"{told}, more than judges.{judge.name}.run.max_error_share {bar:.1%}"
