"""Agreement: how far raters agree beyond chance, where they do not, and how each does on gold.

Input: the lake's judgements. Output: coefficients with intervals, items in disagreement, each
rater's drift. Command: `flywheel label agreement`, `flywheel label disagreements`.
"""

from flywheel.label.agreement.coefficients import (
    Level,
    Weights,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    krippendorff_alpha,
)
from flywheel.label.agreement.intervals import bootstrap_interval, share_interval

__all__ = [
    "Level",
    "Weights",
    "bootstrap_interval",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "krippendorff_alpha",
    "share_interval",
]
