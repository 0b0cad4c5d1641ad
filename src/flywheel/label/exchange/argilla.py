"""Argilla 2: what `dataset.records.to_json` writes and `from_json` reads; its server's records too.

One record is one item under one question, with the questions `verdict` (label), `rating`,
`correction` and `rationale`. Argilla's own suggestions are a model's: they are not read as labels.
https://docs.argilla.io/latest/how_to_guides/import_export/
"""

import json
import uuid
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.exchange.annotation import Annotation, Question, number_answer, text_at
from flywheel.label.exchange.answers import Answer, ranking_answer
from flywheel.label.exchange.items import Item, plain_text
from flywheel.label.exchange.note import KEY
from flywheel.label.rows import Row
from flywheel.records import JsonObject, Message

_RATERS = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_RATING = range(11)
"""What a RatingQuestion takes."""


class Argilla:
    """Argilla's records."""

    one_rater_each = False

    def to_records(
        self, item: Item, said: Mapping[str, Row], question: Question | None
    ) -> list[JsonObject]:
        """One record, the raters' answers as its responses."""
        responses: dict[str, JsonValue] = {}
        for user, row in said.items():
            status = row.get("status", "submitted")
            for control, value in _controls(row, item).items():
                given = responses.setdefault(control, [])
                assert isinstance(given, list)
                given.append({"value": value, "user_id": user, "status": status})
        fields: JsonObject = {"conversation": [_turn(message) for message in item.messages]}
        if item.pair_ids is None:
            fields["response"] = plain_text(next(iter(item.responses), None))
        else:
            shown = item.shown() or (None, None)
            names = ("response_first", "response_second")
            fields |= {name: plain_text(one) for name, one in zip(names, shown, strict=True)}
        return [
            {
                "id": item.key,
                "fields": fields,
                "metadata": {},
                "suggestions": {},
                "responses": responses,
                "vectors": {},
                "status": "completed" if responses else "pending",
                "_server_id": None,
            }
        ]

    def key_of(self, row: Row) -> str:
        """Argilla names users by UUID."""
        return str(uuid.uuid5(_RATERS, f"{row.get('source_type')}\0{row.get('source_id')}"))

    def note(self, record: JsonObject) -> JsonValue:
        """Metadata holds texts and numbers only: the note is JSON in a text."""
        metadata = record.get("metadata")
        return metadata.get(KEY) if isinstance(metadata, dict) else None

    def put_note(self, record: JsonObject, note: JsonObject) -> JsonObject:
        """The note is JSON in a text; the item also stands beside it, to filter by."""
        item: JsonObject = {
            k: note[k] for k in ("interaction_id", "pair_a", "pair_b", "name") if k in note
        }
        return {**record, "metadata": {**item, KEY: json.dumps(note, ensure_ascii=False)}}

    def annotations(self, record: JsonObject, note: JsonObject) -> dict[str, Annotation]:
        """By user: nested (`to_json`), flattened (`to_list(flatten=True)`), or the server's."""
        by_user: dict[str, dict[str, JsonValue]] = {}
        statuses: dict[str, str] = {}
        times: dict[str, str | None] = {}
        for user, control, value, status, moment in _responses(record):
            statuses[user] = status or "submitted"
            times[user] = moment
            if control is not None:
                by_user.setdefault(user, {})[control] = value
        return {
            user: _annotation(by_user.get(user, {}), user, status, times[user], note)
            for user, status in statuses.items()
            if status != "draft"
        }


def settings(question: Question) -> JsonObject:
    """What `rg.Settings.from_json` reads: the fields and questions of items to label."""
    fields = ["conversation", "response"]
    if question.kind == "preference":
        fields = ["conversation", "response_first", "response_second"]
    text: JsonObject = {"type": "text", "use_markdown": False}
    answer: JsonObject = {
        "type": "label_selection",
        "options": [{"value": option, "text": option} for option in _options(question)],
    }
    name = "verdict"
    if question.kind == "rating":
        name = "rating"
        answer = {"type": "rating", "options": [{"value": int(o)} for o in question.options]}
    questions: list[JsonValue] = [_setting(name, question.name, answer, is_required=True)]
    if question.kind != "preference":
        questions.append(_setting("correction", "Corrected reply", text))
    questions.append(_setting("rationale", "Comment", text))
    return {
        "fields": [_field(name) for name in fields],
        "questions": questions,
        "allow_extra_metadata": True,
        "guidelines": None,
        "vectors": [],
        "metadata": [],
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }


def _field(name: str) -> JsonObject:
    told: JsonObject = {"type": "text", "use_markdown": False}
    if name == "conversation":
        told = {"type": "chat", "use_markdown": True}
    # A dataset needs a required field; a conversation may be empty.
    return _setting(name, name, told, is_required=name != "conversation")


def _setting(name: str, title: str, told: JsonObject, *, is_required: bool = False) -> JsonObject:
    return {"name": name, "title": title, "required": is_required, "settings": told}


def _options(question: Question) -> tuple[str, ...]:
    if question.kind == "preference":
        return ("first", "second", *question.options[2:])
    return question.options or ("pass", "fail")


def _controls(row: Row, item: Item) -> dict[str, JsonValue]:
    label = row.get("label")
    if item.pair_ids is not None and label in ("A", "B"):
        label = "first" if (label == "A") != (item.presented_order == "BA") else "second"
    controls = {
        "verdict": label,
        "correction": row.get("correction"),
        "rationale": row.get("rationale"),
    }
    value = row.get("value")
    if isinstance(value, float | int) and value in _RATING and "pair_a" not in row:
        controls["rating"] = int(value)
    return {name: said for name, said in controls.items() if said is not None}


def _turn(message: Message) -> JsonObject:
    return {"role": message.role, "content": plain_text(message)}


_Response = tuple[str, str | None, JsonValue, str | None, str | None]
"""User, control (None: nothing but a status), value, status, time."""


def _responses(record: JsonObject) -> Iterator[_Response]:
    responses = record.get("responses")
    if isinstance(responses, dict):
        for control, given in responses.items():
            for one in given if isinstance(given, list) else []:
                if isinstance(one, dict):
                    user = text_at(one, "user_id") or ""
                    yield user, control, one.get("value"), text_at(one, "status"), None
    elif isinstance(responses, list):
        yield from _server_responses(responses)
    else:
        yield from _flat_responses(record)


def _server_responses(responses: list[JsonValue]) -> Iterator[_Response]:
    for one in responses:
        if not isinstance(one, dict):
            continue
        user, status = text_at(one, "user_id") or "", text_at(one, "status")
        moment = text_at(one, "updated_at") or text_at(one, "inserted_at")
        yield user, None, None, status, moment
        values = one.get("values")
        for control, value in values.items() if isinstance(values, dict) else ():
            said = value.get("value") if isinstance(value, dict) else value
            yield user, control, said, status, moment


def _flat_responses(record: JsonObject) -> Iterator[_Response]:
    for column, values in record.items():
        users = record.get(f"{column}.users")
        if not column.endswith(".responses") or not isinstance(values, list):
            continue
        statuses = record.get(f"{column}.status")
        for place, value in enumerate(values):
            user, status = (
                one[place] if isinstance(one, list) and place < len(one) else None
                for one in (users, statuses)
            )
            control = column.removesuffix(".responses")
            yield str(user), control, value, None if status is None else str(status), None


def _annotation(
    controls: Mapping[str, JsonValue], user: str, status: str, moment: str | None, note: JsonObject
) -> Annotation:
    common: dict[str, JsonValue] = {"source_id": _rater(note, user)}
    if status == "discarded":
        common["status"] = "discarded"
    if moment is not None:
        common["created_at"] = moment if moment.endswith(("Z", "+00:00")) else f"{moment}Z"
    answers: dict[str, Answer] = {}
    try:
        for control, value in controls.items():
            answer = _answer(control, value, note)
            if answer is not None:
                answers[control] = answer
    except BadRecordError as error:
        return Annotation({}, common, error)
    return Annotation(answers, common)


def _rater(note: JsonObject, user: str) -> str:
    """Our own name of the rater, where the record went out with it."""
    judgements = note.get("judgements")
    kept = judgements.get(user) if isinstance(judgements, dict) else None
    return text_at(kept, "row", "source_id") or user


def _answer(control: str, value: JsonValue, note: JsonObject) -> Answer | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        shown_first = {"first": "left", "second": "right"}.get(value)
        if shown_first is not None and "pair_a" in note:
            from_left = shown_first == "left"
            label = "A" if from_left != (note.get("presented_order") == "BA") else "B"
            return Answer("label", label)
        return Answer("label", value)
    if isinstance(value, list):
        return _several(control, value, note)
    return number_answer(value)


def _several(control: str, values: list[JsonValue], note: JsonObject) -> Answer:
    ranks = {
        str(one["value"]): int(str(one["rank"]))
        for one in values
        if isinstance(one, dict) and str(one.get("rank")).isdigit()
    }
    if ranks:
        names = [next((n for n in names if n in ranks), names[0]) for names in _ranked(note)]
        return Answer("label", ranking_answer(ranks, *names))
    if len(values) == 1 and isinstance(values[0], str):
        return Answer("label", values[0])
    problem = f"{control}: {len(values)} values; a judgement has one label"
    raise BadRecordError("several_labels", problem)


def _ranked(note: JsonObject) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What A and B are called in a ranking: by side where we made the record."""
    first, second = ("response_first", "response-1"), ("response_second", "response-2")
    shown_a, shown_b = (second, first) if note.get("presented_order") == "BA" else (first, second)
    return ("A", "response_a", *shown_a), ("B", "response_b", *shown_b)
