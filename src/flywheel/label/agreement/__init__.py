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
from flywheel.label.agreement.measure import Coefficient, GroupAgreement, PairAgreement
from flywheel.label.agreement.page import agreement_page
from flywheel.label.agreement.queue import Disagreement, list_disagreements
from flywheel.label.agreement.ratings import Asked
from flywheel.label.agreement.report import (
    AgreementReport,
    Contradiction,
    GoldAgreement,
    RaterAgreement,
    report_agreement,
)

__all__ = [
    "AgreementReport",
    "Asked",
    "Coefficient",
    "Contradiction",
    "Disagreement",
    "GoldAgreement",
    "GroupAgreement",
    "Level",
    "PairAgreement",
    "RaterAgreement",
    "Weights",
    "agreement_page",
    "bootstrap_interval",
    "cohen_kappa",
    "fleiss_kappa",
    "gwet_ac1",
    "krippendorff_alpha",
    "list_disagreements",
    "report_agreement",
    "share_interval",
]
