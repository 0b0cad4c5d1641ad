"""Language models as judges: rubrics, prompts, verdicts, and the rows they become.

Input: `judges` of flywheel.yaml, a rubric file each, and tasks. Output: calls to make
(`plan_calls`), replies (`ask`), rows of `assessments` (`conclude`). Only `ask` does I/O.
docs/judges.md says how to write a rubric and what reaches the model.
"""

from flywheel.graders.judge.ask import ask
from flywheel.graders.judge.conclude import conclude
from flywheel.graders.judge.covariates import task_covariates, text_covariates
from flywheel.graders.judge.judge import (
    Judge,
    build_judges,
    plan_calls,
    read_verdict,
    repair_call,
)
from flywheel.graders.judge.rubric import PAIRWISE_VALUES, Criterion, Grade, Rubric, Winner
from flywheel.graders.judge.rubric_file import load_rubric, parse_rubric
from flywheel.graders.judge.suspicion import find_suspicions
from flywheel.graders.judge.task import (
    CriterionVerdict,
    JudgeCall,
    JudgeReply,
    JudgeTask,
    Order,
    Verdict,
)

__all__ = [
    "PAIRWISE_VALUES",
    "Criterion",
    "CriterionVerdict",
    "Grade",
    "Judge",
    "JudgeCall",
    "JudgeReply",
    "JudgeTask",
    "Order",
    "Rubric",
    "Verdict",
    "Winner",
    "ask",
    "build_judges",
    "conclude",
    "find_suspicions",
    "load_rubric",
    "parse_rubric",
    "plan_calls",
    "read_verdict",
    "repair_call",
    "task_covariates",
    "text_covariates",
]
