"""Label files of any known tool -> rows of a label file, each with its original bytes."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from flywheel.errors import BadRecordError, ConfigError
from flywheel.label.exchange.annotation import Annotation, ToolFormat, native_row, text_at
from flywheel.label.exchange.answers import rows_of
from flywheel.label.exchange.argilla import Argilla
from flywheel.label.exchange.elements import Element, read_elements
from flywheel.label.exchange.label_studio import LabelStudio
from flywheel.label.exchange.note import read_note, restored
from flywheel.label.exchange.prodigy import Prodigy
from flywheel.label.files import Line, read_lines
from flywheel.label.rows import Row
from flywheel.label.texts import FallbackEncoding
from flywheel.records import JsonObject, Record

ToolName = Literal["argilla", "label-studio", "prodigy"]
LabelFormat = Literal["auto", "own", "argilla", "label-studio", "prodigy"]
TOOLS: dict[ToolName, ToolFormat] = {
    "argilla": Argilla(),
    "label-studio": LabelStudio(),
    "prodigy": Prodigy(),
}
_LOOKED_AT = 20
"""Records by which a format is recognised."""


class LabelFile(Record):
    """A file of judgements and how to read it."""

    path: Path
    format: LabelFormat = "auto"
    encoding: FallbackEncoding | None = None
    """Of lines that are not UTF-8."""
    name: str | None = None
    """The question all judgements answer, where the tool does not say."""


def read_label_file(file: LabelFile) -> Iterator[Line]:
    """The judgements of a file as rows, or the reason why one cannot be.

    Raises:
        ConfigError: it cannot be read at all, or it is of no known format.
    """
    found = detect_format(file)
    if found == "own":
        yield from read_lines(file.path, file.encoding)
        return
    for element in read_elements(file.path, file.encoding):
        for row in _rows(element, found, file.name):
            yield Line(element.number, element.raw, row)


def detect_format(file: LabelFile) -> Literal["own"] | ToolName:
    """The format given, or the one its first records show.

    Raises:
        ConfigError: a JSON file that looks like none of them.
    """
    if file.format != "auto":
        return file.format
    if file.path.suffix.lower() not in (".json", ".jsonl", ".ndjson"):
        return "own"
    values = [
        element.value for element in islice(read_elements(file.path, file.encoding), _LOOKED_AT)
    ]
    for value in values:
        if isinstance(value, dict):
            told = _told_by(value)
            if told is not None:
                return told
    if file.path.suffix.lower() == ".json":
        problem = f"looks like no known format; name one: --format {', '.join(TOOLS)}"
        raise ConfigError(str(file.path), [problem])
    return "own"


def _told_by(record: JsonObject) -> Literal["own"] | ToolName | None:
    if "data" in record and ("annotations" in record or "completions" in record):
        return "label-studio"
    is_flat = any(key.endswith(".responses") for key in record)
    if is_flat or ("responses" in record and ("fields" in record or "values" in record)):
        return "argilla"
    if "answer" in record and ("text" in record or "_task_hash" in record or "options" in record):
        return "prodigy"
    return "own" if "name" in record else None


def _rows(element: Element, tool: ToolName, name: str | None) -> Iterator[Row | BadRecordError]:
    if isinstance(element.value, BadRecordError):
        yield element.value
        return
    try:
        yield from read_record(element.value, tool, name)
    except BadRecordError as error:
        yield error


def read_record(
    record: JsonObject, tool: ToolName, name: str | None = None
) -> Iterator[Row | BadRecordError]:
    """The rows of one record of a tool; none where nobody has answered yet.

    Raises:
        BadRecordError: it does not say which item it is about.
    """
    read_as = TOOLS[tool]
    note = read_note(read_as.note(record))
    annotations = read_as.annotations(record, note)
    question = text_at(note, "name") or name
    for key in _kept(note):
        if key not in annotations and (row := restored(note, key, {})) is not None:
            yield row
    if not annotations:
        return
    item = _item(record, note, tool)
    for key, annotation in annotations.items():
        native = native_row(annotation, question or "")
        row = restored(note, key, native)
        if row is not None:
            yield row
        else:
            yield from _answered(annotation, question, item, note)


def _answered(
    annotation: Annotation, question: str | None, item: Row, note: JsonObject
) -> Iterator[Row | BadRecordError]:
    if annotation.problem is not None:
        yield annotation.problem
        return
    try:
        rows = rows_of(annotation.answers, question, {**item, **annotation.common})
    except BadRecordError as error:
        yield error
        return
    yield from (_passed(row, note) for row in rows)


def _passed(row: Row, note: JsonObject) -> Row:
    """A question of pass or fail is a value, whatever the tool calls its two choices."""
    value = {"pass": 1.0, "fail": 0.0}.get(str(row.get("label")))
    if note.get("question") != "pass_fail" or value is None:
        return row
    return {**{k: v for k, v in row.items() if k != "label"}, "value": value}


def _kept(note: JsonObject) -> list[str]:
    judgements = note.get("judgements")
    return list(judgements) if isinstance(judgements, dict) else []


def _item(record: JsonObject, note: JsonObject, tool: ToolName) -> Row:
    """Which item a record is about: by our note, or by columns named as in a label file."""
    for place in (note, record, *(record.get(key) for key in ("metadata", "meta", "data"))):
        answer, a, b = (text_at(place, key) for key in ("interaction_id", "pair_a", "pair_b"))
        if a is not None and b is not None:
            pair: dict[str, JsonValue] = {"pair_a": a, "pair_b": b}
            order = text_at(note, "presented_order")
            return pair | ({"presented_order": order} if order else {})
        if answer is not None:
            return {"interaction_id": answer}
    if tool == "argilla" and (own := text_at(record, "id")) is not None:
        return {"interaction_id": own}
    raise BadRecordError(
        "missing_interaction_id",
        "the record names no item: give it interaction_id, or pair_a and pair_b, among its "
        "metadata (Argilla), data (Label Studio) or meta (Prodigy)",
    )
