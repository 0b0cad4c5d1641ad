"""`flywheel judge run --batch`: the same run by the batch API, at half the price, overnight.

Input, output and promises are those of `run.py`.
"""

from flywheel.label.judging.batch import POLL_S, BatchRunner
from flywheel.label.judging.batch_ledger import BatchLedger
from flywheel.label.judging.batch_server import OpenAIBatches
from flywheel.label.judging.cache import ReplyCache
from flywheel.label.judging.models import find_providers
from flywheel.label.judging.run import (
    JudgeDesk,
    JudgeRunReport,
    OnProgress,
    Permission,
    RunDone,
    account_of,
    commit_drawn,
    run_drawn,
    with_total,
)
from flywheel.label.judging.tasks import Draw, Selection

BATCHES = "batches.sqlite"


async def batch_captured(
    desk: JudgeDesk,
    selection: Selection | None = None,
    *,
    permission: Permission,
    on_progress: OnProgress | None = None,
    poll_s: float = POLL_S,
) -> JudgeRunReport:
    """Has the judge judge what it has not judged yet, in batches; see `judge_captured`.

    Raises:
        JudgeError: a provider refuses the batch, or has no batch API.
    """

    async def judge_all(
        desk: JudgeDesk,
        draw: Draw,
        run_id: str,
        *,
        permission: Permission,
        on_progress: OnProgress | None = None,
    ) -> RunDone:
        return await _batch_drawn(
            desk, draw, run_id, permission=permission, poll_s=poll_s, on_progress=on_progress
        )

    return await run_drawn(
        desk, selection, judge_all, permission=permission, on_progress=on_progress
    )


async def _batch_drawn(  # noqa: PLR0913 - what a run consists of
    desk: JudgeDesk,
    draw: Draw,
    run_id: str,
    *,
    permission: Permission,
    poll_s: float,
    on_progress: OnProgress | None,
) -> RunDone:
    names = {seat.provider for seat in desk.judge.section.panel}
    addresses = find_providers(desk.workload)
    servers = {name: OpenAIBatches(addresses[name]) for name in names}
    ledger = BatchLedger(desk.folder / BATCHES, run_id)
    try:
        with ReplyCache(desk.folder) as cache, account_of(desk, run_id) as spending:
            runner = BatchRunner(
                servers,
                cache=cache,
                spending=spending,
                ledger=ledger,
                prices=desk.prices,
                section=desk.judge.section.run,
                on_progress=with_total(on_progress, len(draw.task_ids)),
                poll_s=poll_s,
            )
            return await commit_drawn(desk, draw, runner, run_id, permission=permission)
    finally:
        ledger.close()
        for server in servers.values():
            await server.close()
