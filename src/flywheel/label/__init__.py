"""Label: judgements arrive, are counted, and can be withdrawn.

Input: label files (`flywheel label import`), captured interactions (`flywheel label grade`).
Output: rows of `assessments`, append-only. What is known of a response becomes one label in the
lake's view `labels`. Corrections by the feedback endpoint arrive through `capture`, not here.
"""

from flywheel.label.counting import (
    LabelCount,
    LabelFilter,
    LabelState,
    count_labels,
    label_state,
    list_judgements,
)
from flywheel.label.exchange import LabelFile, LabelFormat
from flywheel.label.grading import GradeReport, grade_captured
from flywheel.label.importing import ImportReport, Redaction, import_labels
from flywheel.label.retracting import Retraction, RetractReport, retract
from flywheel.label.rows import RowDefaults

__all__ = [
    "GradeReport",
    "ImportReport",
    "LabelCount",
    "LabelFile",
    "LabelFilter",
    "LabelFormat",
    "LabelState",
    "Redaction",
    "RetractReport",
    "Retraction",
    "RowDefaults",
    "count_labels",
    "grade_captured",
    "import_labels",
    "label_state",
    "list_judgements",
    "retract",
]
