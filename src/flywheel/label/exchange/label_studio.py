"""Label Studio: the tasks its JSON export writes and its import reads, `annotations[].result[]`.

One task is one item under one question, with the controls `verdict` (Choices), `rating` (Rating
or Number), `preference` (Pairwise), `correction` and `rationale` (TextArea). Predictions are a
model's: they are not read as labels. https://labelstud.io/guide/task_format
"""

import hashlib
import uuid
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from pydantic import JsonValue

from flywheel.errors import BadRecordError
from flywheel.label.exchange.annotation import Annotation, Question, number_answer, text_at
from flywheel.label.exchange.answers import Answer, side_label
from flywheel.label.exchange.items import Item, plain_text
from flywheel.label.exchange.note import KEY
from flywheel.label.rows import Row
from flywheel.records import JsonObject, Message

_ANNOTATIONS = uuid.UUID("6ba7b814-9dad-11d1-80b4-00c04fd430c8")
_SHAPES: Mapping[str, str] = {
    "choices": "choices",
    "rating": "rating",
    "number": "number",
    "textarea": "text",
    "pairwise": "selected",
}
"""Type of a result -> the key of its value."""


class LabelStudio:
    """Label Studio's tasks."""

    one_rater_each = False

    def to_records(
        self, item: Item, said: Mapping[str, Row], question: Question | None
    ) -> list[JsonObject]:
        """One task, the raters' answers as its annotations."""
        shown = [plain_text(message) for message in item.shown()] or [""]
        data: JsonObject = {"conversation": [_turn(message) for message in item.messages]}
        names = ("response",) if item.pair_ids is None else ("first", "second")
        data |= {
            name: shown[place] if place < len(shown) else "" for place, name in enumerate(names)
        }
        annotations: list[JsonValue] = [
            _annotation_out(key, row, item) for key, row in said.items()
        ]
        return [{"data": data, "annotations": annotations}]

    def key_of(self, row: Row) -> str:
        """Label Studio keeps an annotation's `unique_id`, not who made it elsewhere."""
        return str(uuid.uuid5(_ANNOTATIONS, str(row.get("assessment_id"))))

    def note(self, record: JsonObject) -> JsonValue:
        """In the task's data, which comes back as it went."""
        data = record.get("data")
        return data.get(KEY) if isinstance(data, dict) else None

    def put_note(self, record: JsonObject, note: JsonObject) -> JsonObject:
        """In the task's data."""
        data = record["data"]
        assert isinstance(data, dict)
        item: JsonObject = {k: note[k] for k in ("interaction_id", "pair_a", "pair_b") if k in note}
        return {**record, "data": {**data, **item, KEY: note}}

    def annotations(self, record: JsonObject, note: JsonObject) -> dict[str, Annotation]:
        """By `unique_id`; cancelled ones are discarded."""
        found = record.get("annotations") or record.get("completions")
        read: dict[str, Annotation] = {}
        for place, one in enumerate(found if isinstance(found, list) else []):
            if isinstance(one, dict):
                key = text_at(one, "unique_id") or text_at(one, "id") or str(place)
                read[key] = _annotation_in(one, key, note)
        return read


def labeling_config(question: Question) -> str:
    """The labeling configuration (XML) of a project for items to label."""
    if question.kind == "preference":
        shown = (
            '  <Pairwise name="preference" toName="first,second"/>\n'
            '  <View style="display: flex; gap: 1em">\n'
            '    <Text name="first" value="$first"/>\n    <Text name="second" value="$second"/>\n'
            "  </View>\n"
        )
        target, control = "first", _choices(question.options[2:], "first", is_required=False)
    else:
        shown = '  <Header value="Answer"/>\n  <Text name="response" value="$response"/>\n'
        target = "response"
        control = _choices(question.options or ("pass", "fail"), target, is_required=True)
        if question.kind == "rating":
            top = question.options[-1]
            control = (
                f'  <Rating name="rating" toName="response" maxRating="{top}" required="true"/>\n'
            )
    texts = ("correction", "rationale") if question.kind != "preference" else ("rationale",)
    areas = "".join(
        f'  <TextArea name="{name}" toName="{target}" placeholder="{name}" rows="3" '
        'editable="true" maxSubmissions="1"/>\n'
        for name in texts
    )
    return (
        f"<View>\n  <Header value={quoteattr(question.name)}/>\n"
        '  <Paragraphs name="conversation" value="$conversation" nameKey="author" textKey="text" '
        f'layout="dialogue"/>\n{shown}{control}{areas}</View>\n'
    )


def _choices(options: tuple[str, ...], target: str, *, is_required: bool) -> str:
    required = ' required="true"' if is_required else ""
    lines = "".join(f"    <Choice value={quoteattr(option)}/>\n" for option in options)
    return (
        f'  <Choices name="verdict" toName="{target}" choice="single"{required}>\n{lines}'
        "  </Choices>\n"
    )


def _turn(message: Message) -> JsonObject:
    return {"author": message.role, "text": plain_text(message)}


def _annotation_out(key: str, row: Row, item: Item) -> JsonObject:
    result: list[JsonValue] = []
    target = "response" if item.pair_ids is None else "first"
    label, value = row.get("label"), row.get("value")
    if item.pair_ids is not None and label in ("A", "B"):
        side = "left" if (label == "A") != (item.presented_order == "BA") else "right"
        # One of the two it is on: Label Studio's own check of results knows no list of names.
        result.append(_region(key, "preference", target, "pairwise", side))
    elif label is not None:
        result.append(_region(key, "verdict", target, "choices", [label]))
    if value is not None and item.pair_ids is None:
        result.append(_region(key, "rating", target, "number", value))
    for name in ("correction", "rationale"):
        if row.get(name) is not None:
            result.append(_region(key, name, target, "textarea", [row[name]]))
    return {
        "unique_id": key,
        "result": result,
        "was_cancelled": row.get("status") == "discarded",
        "ground_truth": False,
        "lead_time": row.get("lead_time_s"),
        "created_at": row.get("created_at"),
    }


def _region(key: str, name: str, target: str, kind: str, said: JsonValue) -> JsonObject:
    return {
        "id": hashlib.sha256(f"{key}\0{name}".encode()).hexdigest()[:10],
        "from_name": name,
        "to_name": target,
        "type": kind,
        "value": {_SHAPES[kind]: said},
    }


def _annotation_in(one: JsonObject, key: str, note: JsonObject) -> Annotation:
    common: dict[str, JsonValue] = {"source_id": _rater(one, key, note)}
    common["created_at"] = text_at(one, "updated_at") or text_at(one, "created_at")
    common["lead_time_s"] = one.get("lead_time")
    if one.get("was_cancelled") is True:
        common["status"] = "discarded"
    answers: dict[str, Answer] = {}
    result = one.get("result")
    try:
        for region in result if isinstance(result, list) else []:
            if isinstance(region, dict):
                answers |= _answer(region, note)
    except BadRecordError as error:
        return Annotation({}, common, error)
    return Annotation(answers, {k: v for k, v in common.items() if v is not None})


def _rater(one: JsonObject, key: str, note: JsonObject) -> str | None:
    """Who changed or made it there; else who made it here."""
    by: JsonValue = one.get("completed_by")
    told = (
        text_at(by, "email") or text_at(by, "id")
        if isinstance(by, dict)
        else text_at(one, "completed_by")
    )
    judgements = note.get("judgements")
    kept = judgements.get(key) if isinstance(judgements, dict) else None
    return told or text_at(kept, "row", "source_id")


def _answer(region: JsonObject, note: JsonObject) -> dict[str, Answer]:
    kind, name = text_at(region, "type") or "", text_at(region, "from_name") or ""
    if kind not in _SHAPES:
        raise BadRecordError(
            "unsupported_annotation", f"{name}: type {kind!r}; valid: {', '.join(_SHAPES)}"
        )
    value = region.get("value")
    said = value.get(_SHAPES[kind]) if isinstance(value, dict) else None
    if kind == "pairwise":
        return {name: Answer("label", side_label(str(said), note.get("presented_order")))}
    if kind in ("rating", "number"):
        number = number_answer(said)
        if number is None:
            raise BadRecordError("bad_number", f"{name}: {said!r:.80} is not a number")
        return {name: number}
    texts = said if isinstance(said, list) else [said]
    if kind == "textarea":
        return {name: Answer("text", "\n".join(str(text) for text in texts))}
    if len(texts) != 1:
        raise BadRecordError("several_labels", f"{name}: {texts!r:.80}; a judgement has one label")
    return {name: Answer("label", str(texts[0]))}
