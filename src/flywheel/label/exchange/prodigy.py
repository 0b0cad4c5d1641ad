"""Prodigy: the JSONL that `prodigy db-out` writes and recipes read, `answer: accept|reject|ignore`.

One line is one rater's answer on one item: `options` and `accept` of the choice interface, or the
bare answer of a binary one; text fields `correction` and `rationale`. Keys Prodigy does not know it
keeps. https://prodi.gy/docs/api-interfaces
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.exchange.annotation import Annotation, Question, text_at
from flywheel.label.exchange.answers import CORRECTIONS, RATIONALES, Answer
from flywheel.label.exchange.items import Item, plain_text
from flywheel.label.exchange.note import KEY
from flywheel.label.rows import Row
from flywheel.records import JsonObject

_STRUCTURED = ("spans", "relations", "image_spans", "audio_spans")
_SIDES = {"first": "left", "second": "right"}


class Prodigy:
    """Prodigy's examples."""

    one_rater_each = True

    def to_records(
        self, item: Item, said: Mapping[str, Row], question: Question | None
    ) -> list[JsonObject]:
        """One example a judgement; one without an answer where there is none."""
        task: JsonObject = {"text": _shown(item), "meta": item.columns() | {"name": item.name}}
        if question is not None and question.kind != "pass_fail":
            ids = question.options
            if question.kind == "preference":
                ids = ("first", "second", *ids[2:])
            task["options"] = [{"id": one, "text": one} for one in ids]
        return [{**task, **_answered(row, item)} for row in said.values()] or [task]

    def key_of(self, row: Row) -> str:
        """A line is one rater's."""
        return "answer"

    def note(self, record: JsonObject) -> JsonValue:
        """A key of its own."""
        return record.get(KEY)

    def put_note(self, record: JsonObject, note: JsonObject) -> JsonObject:
        """A key of its own."""
        return {**record, KEY: note}

    def annotations(self, record: JsonObject, note: JsonObject) -> dict[str, Annotation]:
        """One, or none where nobody has answered."""
        answer = text_at(record, "answer")
        if answer is None:
            return {}
        common: dict[str, JsonValue] = {}
        rater = text_at(record, "_annotator_id") or text_at(record, "_session_id")
        if rater is not None:
            common["source_id"] = rater
        stamp = record.get("_timestamp")
        if isinstance(stamp, int | float) and not isinstance(stamp, bool):
            common["created_at"] = datetime.fromtimestamp(stamp, tz=UTC).isoformat()
        if answer == "ignore":
            common["status"] = "discarded"
        try:
            return {"answer": Annotation(_answers(record, answer, note), common)}
        except BadRecordError as error:
            return {"answer": Annotation({}, common, error)}


def _shown(item: Item) -> str:
    turns = [f"{message.role}: {plain_text(message)}" for message in item.messages]
    if item.pair_ids is None:
        answers = [f"answer: {plain_text(message)}" for message in item.responses]
    else:
        pairs = zip(_SIDES, item.shown(), strict=False)
        answers = [f"{side} answer: {plain_text(message)}" for side, message in pairs]
    return "\n\n".join([*turns, *answers])


def _answered(row: Row, item: Item) -> JsonObject:
    label, value = row.get("label"), row.get("value")
    out: JsonObject = {"answer": "accept"}
    if row.get("status") == "discarded":
        out["answer"] = "ignore"
    if label is not None:
        if item.pair_ids is not None and label in ("A", "B"):
            label = "first" if (label == "A") != (item.presented_order == "BA") else "second"
        out["accept"] = [label]
    elif value in (0, 1) and row.get("status") != "discarded":
        out["answer"] = "accept" if value else "reject"
    elif value is not None:
        out["rating"] = value
    if label is not None and value is not None and item.pair_ids is None:
        out["rating"] = value
    out |= {name: row[name] for name in ("correction", "rationale") if row.get(name) is not None}
    moment = row.get("created_at")
    if isinstance(moment, str):
        out["_timestamp"] = int(datetime.fromisoformat(moment).timestamp())
    if row.get("source_id") is not None:
        out["_annotator_id"] = row["source_id"]
    return out


def _answers(record: JsonObject, answer: str, note: JsonObject) -> dict[str, Answer]:
    if answer not in ("accept", "reject", "ignore"):
        raise BadRecordError("bad_answer", f"{answer!r}; valid: accept, reject, ignore")
    found = [name for name in _STRUCTURED if record.get(name)]
    if found:
        raise BadRecordError("unsupported_annotation", f"{found[0]}: only choices, answers, texts")
    answers: dict[str, Answer] = {}
    for name in (*CORRECTIONS, *RATIONALES, "user_input"):
        text = record.get(name)
        if isinstance(text, str) and text.strip():
            answers["correction" if name == "user_input" else name] = Answer("text", text)
    rating = record.get("rating")
    if isinstance(rating, int | float) and not isinstance(rating, bool):
        answers["rating"] = Answer("number", rating)
    if answer == "ignore":
        return answers
    return answers | _verdict(record, answer, note, has_more=bool(answers))


def _verdict(
    record: JsonObject, answer: str, note: JsonObject, *, has_more: bool
) -> dict[str, Answer]:
    accepted = record.get("accept")
    if isinstance(accepted, list) and accepted:
        if len(accepted) > 1:
            raise BadRecordError("several_labels", f"accept: {accepted!r:.80}; a judgement has one")
        return {"verdict": _choice(str(accepted[0]), record, note)}
    label = text_at(record, "label")
    if label is not None:
        if answer == "reject":
            raise BadRecordError("negated_label", f"not {label!r}: what else it is, nobody said")
        return {"verdict": Answer("label", label)}
    if record.get("options") and answer == "accept":
        if has_more:
            return {}
        raise BadRecordError("empty_judgement", "accepted without a choice")
    if "rating" in record or (has_more and "correction" in record and answer == "accept"):
        return {}
    return {"verdict": Answer("number", 1.0 if answer == "accept" else 0.0)}


def _choice(chosen: str, record: JsonObject, note: JsonObject) -> Answer:
    side = _SIDES.get(chosen)
    if side is not None and "pair_a" in note:
        is_left = side == "left"
        return Answer("label", "A" if is_left != (note.get("presented_order") == "BA") else "B")
    options = record.get("options")
    ids = (
        [one.get("id") for one in options if isinstance(one, dict)]
        if isinstance(options, list)
        else []
    )
    is_scale = bool(ids) and all(str(one).isdigit() for one in ids)
    is_scale = note["question"] == "rating" if "question" in note else is_scale
    return Answer("number", float(chosen)) if is_scale else Answer("label", chosen)
