"""Judgements as rows of our own label files, and those rows as CSV and JSONL."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator

from pydantic import JsonValue

from flywheel.label.rows import COLUMNS, Row
from flywheel.records import Assessment, Message

_LIKE_A_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""A spreadsheet runs a cell that starts so (OWASP, CSV injection)."""
_SINGLE = ("name", "value", "label", "rationale", "source_id", "source_type", "source_role")
_MORE = (
    "rubric",
    "guideline",
    "round",
    "presented_order",
    "blinded",
    "lead_time_s",
    "assessment_id",
)


def row_of(assessment: Assessment) -> Row:
    """The row of a label file that is this judgement; what it does not say is left out."""
    row: dict[str, JsonValue] = {"interaction_id": assessment.interaction_id}
    if assessment.pair_ids is not None:
        row = {"pair_a": assessment.pair_ids[0], "pair_b": assessment.pair_ids[1]}
    row |= {column: getattr(assessment, column) for column in (*_SINGLE, *_MORE)}
    row["correction"] = correction_text(assessment.correction)
    row["created_at"] = assessment.created_at.isoformat()
    row["status"] = None if assessment.status == "submitted" else assessment.status
    return {column: value for column, value in row.items() if value is not None}


def correction_text(message: Message | None) -> str | None:
    """A correction in one cell: its text, or where that is not all of it, the message as JSON."""
    if message is None:
        return None
    dumped = message.model_dump()
    text = dumped.get("content")
    is_plain = set(dumped) == {"role", "content"} and isinstance(text, str)
    if is_plain and text == str(text).strip() and not str(text).startswith("{"):
        return str(text)
    return json.dumps(dumped, ensure_ascii=False)


def csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    """CSV that a spreadsheet opens and does not run; all columns of a label file."""
    yield _csv_line(COLUMNS)
    for row in rows:
        yield _csv_line([_cell(row.get(column)) for column in COLUMNS])


def json_lines(records: Iterable[Row]) -> Iterator[str]:
    """One JSON object a line."""
    for record in records:
        yield json.dumps(record, ensure_ascii=False) + "\n"


def _cell(value: JsonValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return f"'{text}" if _LIKE_A_FORMULA.match(text) else text


def _csv_line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
