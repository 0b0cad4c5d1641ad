"""Judges run at scale: over everything captured, at the speed and price the endpoint allows.

Input: `judges` of flywheel.yaml, and what the lake holds. Output: rows of `assessments` that count
once their run is valid. Command: `flywheel judge run`. How and why: docs/judge-runs.md.
"""

from flywheel.label.judging.cache import CacheSize, ReplyCache
from flywheel.label.judging.congestion import Congestion
from flywheel.label.judging.estimating import Estimate, estimate
from flywheel.label.judging.ledger import close_run, open_run
from flywheel.label.judging.models import open_models, opened_models
from flywheel.label.judging.overnight import batch_captured
from flywheel.label.judging.run import (
    JudgeDesk,
    JudgeRunReport,
    Permission,
    close_judge_run,
    judge_captured,
    judge_drawn,
    refuse_empty_budget,
    report_of,
)
from flywheel.label.judging.runner import JudgedTask, JudgeRunner, RunProgress, is_failed
from flywheel.label.judging.spending import Spending, Spent, open_spending
from flywheel.label.judging.tasks import Draw, Selection, draw_tasks, load_tasks

__all__ = [
    "CacheSize",
    "Congestion",
    "Draw",
    "Estimate",
    "JudgeDesk",
    "JudgeRunReport",
    "JudgeRunner",
    "JudgedTask",
    "Permission",
    "ReplyCache",
    "RunProgress",
    "Selection",
    "Spending",
    "Spent",
    "batch_captured",
    "close_judge_run",
    "close_run",
    "draw_tasks",
    "estimate",
    "is_failed",
    "judge_captured",
    "judge_drawn",
    "load_tasks",
    "open_models",
    "open_run",
    "open_spending",
    "opened_models",
    "refuse_empty_budget",
    "report_of",
]
