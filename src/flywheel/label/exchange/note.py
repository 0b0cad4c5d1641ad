"""The note an exported record carries: which item it is, and what was known of each judgement.

Other tools keep it without reading it. When an answer comes back as it went out, the judgement it
was is read from the note, with its id, so that importing it adds nothing. When somebody has changed
the answer, only the item and the question are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from flywheel.label.exchange.items import Item
from flywheel.label.rows import Row
from flywheel.records import JsonObject

NATIVE = ("value", "label", "correction", "rationale", "status")
"""Columns the formats have a place of their own for."""
KEY = "flywheel"


def make_note(item: Item, said: Mapping[str, tuple[Row, Row]]) -> JsonObject:
    """The note of one record.

    Args:
        item: what is judged.
        said: by the annotation's key in the format, the judgement's row and what the format's own
            fields say of it.
    """
    judgements: JsonObject = {
        key: {"row": dict(row), "as": fingerprint(native)} for key, (row, native) in said.items()
    }
    note: JsonObject = {**item.columns(), "name": item.name}
    if item.presented_order is not None:
        note["presented_order"] = item.presented_order
    return note | ({"judgements": judgements} if judgements else {})


def read_note(value: JsonValue) -> JsonObject:
    """The note as it came back: an object, or its JSON text; empty where there is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def restored(note: JsonObject, key: str, native: Row) -> Row | None:
    """The judgement as it went out, where the answer under this key is still the same."""
    judgements = note.get("judgements")
    kept = judgements.get(key) if isinstance(judgements, dict) else None
    if not isinstance(kept, dict) or kept.get("as") != fingerprint(native):
        return None
    row = kept.get("row")
    return row if isinstance(row, dict) else None


def fingerprint(native: Row) -> str:
    """Of what an annotation says in the format's own fields."""
    said: Sequence[JsonValue] = [_plain(native.get(column)) for column in NATIVE]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: JsonValue) -> JsonValue:
    """4 and 4.0 are one number, and so they are after a tool has stored them."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
