"""What a tool's record says, in words every format shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.exchange.answers import Answer, rows_of
from flywheel.label.exchange.items import Item
from flywheel.label.exchange.note import NATIVE
from flywheel.label.rows import PREFERENCES, Row
from flywheel.records import JsonObject

QuestionKind = Literal["pass_fail", "label", "rating", "preference"]


@dataclass(frozen=True)
class Question:
    """What raters are asked of each item."""

    name: str
    kind: QuestionKind
    options: tuple[str, ...] = ()
    """Of a label: its categories; of a rating: its steps, as text; of a preference: fixed."""


@dataclass(frozen=True)
class Annotation:
    """One rater's work on one record, as the format's own fields have it."""

    answers: Mapping[str, Answer]
    common: Row = field(default_factory=dict)
    """Rater, time, status: columns of a label file."""
    problem: BadRecordError | None = None
    """Why it cannot be read."""


class ToolFormat(Protocol):
    """One tool's records, in and out."""

    one_rater_each: bool
    """Whether a record holds one rater's answer only."""

    def to_records(
        self, item: Item, said: Mapping[str, Row], question: Question | None
    ) -> list[JsonObject]:
        """The item as the tool imports it, with rows of judgements by the format's own key."""
        ...

    def key_of(self, row: Row) -> str:
        """The key under which the tool keeps this rater's annotation."""
        ...

    def note(self, record: JsonObject) -> JsonValue:
        """Where `put_note` left it."""
        ...

    def put_note(self, record: JsonObject, note: JsonObject) -> JsonObject:
        """The record with the note in it."""
        ...

    def annotations(self, record: JsonObject, note: JsonObject) -> dict[str, Annotation]:
        """By key; those of models and drafts are left out."""
        ...


def parse_question(text: str, *, is_pair: bool = False) -> Question:
    """`helpful` (pass or fail), `urgency=routine|soon|urgent`, `quality=1-5`.

    Raises:
        ValueError: with what would be valid.
    """
    name, _, options = (part.strip() for part in text.partition("="))
    if not name:
        raise ValueError(
            f"{text!r} names no question; write helpful, urgency=low|high, quality=1-5"
        )
    if is_pair:
        return Question(name, "preference", tuple(PREFERENCES))
    if not options:
        return Question(name, "pass_fail")
    low, dash, high = options.partition("-")
    if dash and low.isdigit() and high.isdigit():
        steps = range(int(low), int(high) + 1)
        if not 2 <= len(steps) <= 10:
            raise ValueError(f"{text!r}: a scale has 2 to 10 steps, as in quality=1-5")
        return Question(name, "rating", tuple(str(step) for step in steps))
    labels = tuple(label.strip() for label in options.split("|") if label.strip())
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"{text!r}: give at least two different labels, as in urgency=low|high")
    return Question(name, "label", labels)


def native_row(annotation: Annotation | None, name: str) -> Row:
    """What the format's own fields say of the question; empty where they say nothing."""
    if annotation is None or annotation.problem is not None:
        return {}
    try:
        row = rows_of(annotation.answers, name, annotation.common)[0]
    except BadRecordError:
        return {}
    return {column: row[column] for column in NATIVE if column in row}


def number_answer(said: JsonValue) -> Answer | None:
    """A number as an answer; None for what is none."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return Answer("number", said)


def text_at(value: JsonValue, *path: str) -> str | None:
    """The text at a path of a record; numbers as text; None where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value)
