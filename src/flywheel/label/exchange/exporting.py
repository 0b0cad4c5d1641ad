"""`flywheel label export`: judgements, or items to judge, as another tool reads them.

Each record is read back as an import would before it is counted as written: what does not come back
is told, column by column.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from flywheel.errors import BadRecordError
from flywheel.label.exchange.annotation import Question, native_row
from flywheel.label.exchange.argilla import settings
from flywheel.label.exchange.items import Item
from flywheel.label.exchange.label_studio import labeling_config
from flywheel.label.exchange.note import NATIVE, make_note, read_note
from flywheel.label.exchange.own import csv_lines, json_lines, row_of
from flywheel.label.exchange.reading import TOOLS, ToolName, read_record
from flywheel.label.rows import Row, RowDefaults, parse_row
from flywheel.records import Assessment, JsonObject, Record

ExportFormat = Literal["csv", "jsonl", "argilla", "label-studio", "prodigy"]
_DERIVED = {"workload", "event_date"}
_SHOWN = (*NATIVE, "source_id", "source_type", "source_role", "round", "rubric", "guideline")


class Judged(Record):
    """An item and what has been said of it."""

    item: Item
    judgements: tuple[Assessment, ...] = ()


class ExportReport(Record):
    """What became of an export."""

    items: int
    judgements: int
    lost: dict[str, int]
    """Judgements that come back without a column's value, or not at all (`judgement`)."""
    only_in_note: dict[str, int]
    """Judgements with a column the tool does not show: it comes back only with an answer that
    nobody has changed there."""
    files: tuple[Path, ...]


def export_labels(
    judged: Iterable[Judged], to: ExportFormat, path: Path, *, question: Question | None = None
) -> ExportReport:
    """Writes judgements, or items to judge, for another tool.

    Args:
        judged: items; those without judgements are items to label.
        to: the format.
        path: of the file; written beside and renamed when complete.
        question: what is asked of items to label; also written as the tool's own settings.
    """
    counts: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    records = _counted(judged, to, question, (counts, lost, hidden))
    if to == "csv":
        # A byte order mark: without it Excel takes UTF-8 for its own code page.
        text: Iterable[str] = ("\ufeff", *csv_lines(records))
    elif to in ("argilla", "label-studio"):
        text = _array_lines(records)
    else:
        text = json_lines(records)
    _write(path, text)
    extra = _settings_file(path, to, question)
    return ExportReport(
        items=counts["items"],
        judgements=counts["judgements"],
        lost=dict(lost),
        only_in_note=dict(hidden),
        files=(path, *extra),
    )


def tool_records(
    judged: Judged, tool: ToolName, question: Question | None = None
) -> list[JsonObject]:
    """One item as the tool's records: one, or for Prodigy one a judgement."""
    if TOOLS[tool].one_rater_each and judged.judgements:
        return [_record(judged.item, [one], tool, question) for one in judged.judgements]
    return [_record(judged.item, judged.judgements, tool, question)]


def _record(
    item: Item, judgements: Sequence[Assessment], tool: ToolName, question: Question | None
) -> JsonObject:
    form = TOOLS[tool]
    rows = [row_of(judgement) for judgement in judgements]
    keyed = {form.key_of(row): row for row in rows}
    (record,) = form.to_records(item, keyed, question)
    bare = make_note(item, {}) | ({"question": question.kind} if question else {})
    read = form.annotations(form.put_note(record, bare), bare)
    said = {key: (row, native_row(read.get(key), item.name)) for key, row in keyed.items()}
    return form.put_note(record, bare | make_note(item, said))


def _counted(
    judged: Iterable[Judged],
    to: ExportFormat,
    question: Question | None,
    counters: tuple[Counter[str], Counter[str], Counter[str]],
) -> Iterator[Row]:
    counts, lost, hidden = counters
    for one in judged:
        counts.update(items=1, judgements=len(one.judgements))
        if to == "csv" or to == "jsonl":
            rows = [row_of(judgement) for judgement in one.judgements] or [
                {**one.item.columns(), "name": one.item.name}
            ]
            lost.update(_lost(one.judgements, rows))
            yield from rows
            continue
        records = tool_records(one, to, question)
        rows = [
            row for record in records for row in read_record(record, to) if isinstance(row, dict)
        ]
        lost.update(_lost(one.judgements, rows))
        hidden.update(_hidden(one.judgements, records, to))
        yield from records


def _lost(judgements: Sequence[Assessment], rows: Iterable[Row]) -> Counter[str]:
    """The fields of judgements that do not come back, and judgements that do not at all."""
    back: dict[str, Assessment] = {}
    for row in rows:
        try:
            read = parse_row(row, RowDefaults(workload="any"))
        except BadRecordError:
            continue
        back[read.assessment_id] = read
    found: Counter[str] = Counter()
    for judgement in judgements:
        read_back = back.get(judgement.assessment_id)
        if read_back is None:
            found["judgement"] += 1
            continue
        fields = set(Assessment.model_fields) - _DERIVED
        found.update(f for f in fields if getattr(judgement, f) != getattr(read_back, f))
    return found


def _hidden(
    judgements: Sequence[Assessment], records: Iterable[JsonObject], tool: ToolName
) -> Counter[str]:
    """Columns of judgements that the tool's own fields do not hold."""
    form = TOOLS[tool]
    native: dict[str, Row] = {}
    for record in records:
        note = read_note(form.note(record))
        for key, annotation in form.annotations(record, note).items():
            own = native_row(annotation, str(note.get("name")))
            native[_id_under(note, key)] = {**annotation.common, **own}
    found: Counter[str] = Counter()
    for judgement in judgements:
        shown = native.get(judgement.assessment_id, {})
        row = row_of(judgement)
        # What follows from the rest is not missed: a preference's value, that a person judged.
        implied = {"value"} if judgement.pair_ids else set()
        implied |= {"source_type"} if judgement.source_type == "human" else set()
        found.update(c for c in _SHOWN if c in row and c not in shown and c not in implied)
    return found


def _id_under(note: JsonObject, key: str) -> str:
    judgements = note.get("judgements")
    kept = judgements.get(key) if isinstance(judgements, dict) else None
    row = kept.get("row") if isinstance(kept, dict) else None
    return str(row.get("assessment_id")) if isinstance(row, dict) else ""


def _array_lines(records: Iterable[Mapping[str, object]]) -> Iterator[str]:
    before = "[\n"
    for record in records:
        yield before + json.dumps(record, ensure_ascii=False)
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def _write(path: Path, text: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(text)
    temporary.replace(path)


def _settings_file(path: Path, to: ExportFormat, question: Question | None) -> list[Path]:
    if question is None or to not in ("argilla", "label-studio"):
        return []
    if to == "argilla":
        beside = path.with_suffix(".settings.json")
        _write(beside, [json.dumps(settings(question), indent=2, ensure_ascii=False) + "\n"])
    else:
        beside = path.with_suffix(".config.xml")
        _write(beside, [labeling_config(question)])
    return [beside]
