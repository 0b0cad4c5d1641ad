"""`flywheel judge run --dry-run`: what a run would ask, and what that costs at worst."""

from flywheel.errors import BadRecordError
from flywheel.graders.judge import Judge, plan_calls
from flywheel.label.judging.purse import worst_case
from flywheel.label.judging.tasks import Selection, draw_tasks, load_tasks
from flywheel.lake import Lake
from flywheel.prices import PriceTable
from flywheel.records import Record, Share
from flywheel.workload import Workload


class Estimate(Record):
    """What a run would do. It counts no repairs, and takes none of the cache for known."""

    judge: str
    eligible: int
    judged_before: int
    selected: int
    unaskable: int
    """Selected, and lacking something the rubric needs."""
    calls: int
    worst_tokens: int
    """A byte counted as a token, and every answer as long as it may be: some four times what
    English takes."""
    worst_usd: float | None
    """NULL where a price is not known."""
    inclusion_prob: Share


def estimate(  # noqa: PLR0913 - what a run consists of
    lake: Lake,
    workload: Workload,
    judge: Judge,
    selection: Selection,
    *,
    prices: PriceTable,
    is_batch: bool = False,
) -> Estimate:
    """Counts calls and their worst cost, and asks nothing."""
    draw = draw_tasks(lake, workload, judge, selection)
    calls, tokens, unaskable, usd = 0, 0, 0, 0.0
    share = judge.section.run.batch_price_share if is_batch else 1.0
    unpriced = any(prices.find(seat.model) is None for seat in judge.section.panel)
    for task in load_tasks(lake, workload, judge, draw):
        try:
            planned = plan_calls(judge, task)
        except BadRecordError:
            unaskable += 1
            continue
        for call in planned:
            worst = worst_case(call.messages, call.response_schema, call.max_tokens)
            calls, tokens = calls + 1, tokens + worst.total_tokens
            usd += (prices.cost_usd(call.model, worst) or 0.0) * share
    return Estimate(
        judge=judge.name,
        eligible=draw.eligible,
        judged_before=draw.judged,
        selected=len(draw.task_ids),
        unaskable=unaskable,
        calls=calls,
        worst_tokens=tokens,
        worst_usd=None if unpriced else usd,
        inclusion_prob=draw.inclusion_prob,
    )
