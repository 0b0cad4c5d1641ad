"""One judge over what was captured, in shards: threads here, or processes on a Ray or Dask cluster.

Where one process is not enough: `judge.with_options(task_runner=RayTaskRunner(address=…))(place,
"helpful", shards=8)`. docs/judge-runs.md says what the workers need, and what was measured.
Command for one process: `flywheel judge run`.
"""

from prefect import flow

from flywheel.cli import stories
from flywheel.cli.judging import (
    JudgeOutcome,
    begin_judging,
    finish_judging,
    judge_shard,
    judging_alone,
)
from flywheel.cli.steps import Place
from flywheel_flows.artifacts import publish
from flywheel_flows.retry import retried

begin = retried(begin_judging, "open judge run")
shard = retried(judge_shard, "judge shard")
finish = retried(finish_judging, "close judge run")


@flow(name="judge")
def judge(place: Place, name: str, shards: int = 2, sample: float = 1.0) -> JudgeOutcome:
    """Judges in so many shards under one run; its rows count once all are done and it is valid."""
    with judging_alone(place, name):
        run_id = begin(place, name)
        parts = [shard.submit(place, name, run_id, n, shards, sample) for n in range(shards)]
        outcome = finish(place, name, run_id, [part.result() for part in parts])
    publish(place, "judge", stories.of_judges([outcome]))
    return outcome
