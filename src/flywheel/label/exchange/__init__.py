"""Labels in and out: our own CSV and JSONL, Argilla, Label Studio, Prodigy.

Input: files of those tools, or judgements and items of the lake. Output: rows of a label file, or
files those tools import. Commands: `flywheel label import`, `flywheel label export`.
"""

from flywheel.label.exchange.annotation import Question, parse_question
from flywheel.label.exchange.exporting import (
    ExportFormat,
    ExportReport,
    Judged,
    export_labels,
    tool_records,
)
from flywheel.label.exchange.items import Item, order_for
from flywheel.label.exchange.own import csv_lines, row_of
from flywheel.label.exchange.reading import (
    LabelFile,
    LabelFormat,
    ToolName,
    detect_format,
    read_label_file,
    read_record,
)
from flywheel.label.exchange.selecting import judged_items, unlabelled_items

__all__ = [
    "ExportFormat",
    "ExportReport",
    "Item",
    "Judged",
    "LabelFile",
    "LabelFormat",
    "Question",
    "ToolName",
    "csv_lines",
    "detect_format",
    "export_labels",
    "judged_items",
    "order_for",
    "parse_question",
    "read_label_file",
    "read_record",
    "row_of",
    "tool_records",
    "unlabelled_items",
]
