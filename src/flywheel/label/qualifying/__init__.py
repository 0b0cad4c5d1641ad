"""Qualifying: a judge answers gold items before its word counts.

Input: gold labels, a JSONL file or the lake's adjudicated ones. Output: rows of `qualifications`,
with an MLflow run each. Command: `flywheel judge qualify NAME --gold gold.jsonl`.
"""

from flywheel.label.qualifying.adjudicated import AdjudicatedGold, adjudicated_gold
from flywheel.label.qualifying.conclude import check_gold, conclude_qualification
from flywheel.label.qualifying.gold import GoldItem, read_gold
from flywheel.label.qualifying.permission import (
    JudgeStanding,
    decide_standing,
    require_gate_judges,
    require_qualified,
    standing_of,
)
from flywheel.label.qualifying.report import QualificationReport
from flywheel.label.qualifying.run import qualify
from flywheel.label.qualifying.verdicts import GoldVerdict

__all__ = [
    "AdjudicatedGold",
    "GoldItem",
    "GoldVerdict",
    "JudgeStanding",
    "QualificationReport",
    "adjudicated_gold",
    "check_gold",
    "conclude_qualification",
    "decide_standing",
    "qualify",
    "read_gold",
    "require_gate_judges",
    "require_qualified",
    "standing_of",
]
