"""One row of a label file -> one Assessment, or the reason why not. Pure."""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import get_args

from pydantic import Field, JsonValue, ValidationError

from flywheel.errors import BadRecordError
from flywheel.records import Assessment, Message, Record, SourceType, UtcDatetime, utcnow

COLUMNS = (
    "interaction_id",
    "pair_a",
    "pair_b",
    "name",
    "value",
    "label",
    "correction",
    "rationale",
    "source_id",
    "source_type",
    "source_role",
    "rubric",
    "guideline",
    "round",
    "presented_order",
    "blinded",
    "lead_time_s",
    "status",
    "created_at",
    "assessment_id",
)
"""What a label file may hold."""
ITEMS = (("interaction_id",), ("pair_a", "pair_b"))
"""What is judged: one answer, or two."""
JUDGEMENTS = ("value", "label", "correction")
"""At least one of them says what is judged."""
NUMBERS = ("value", "lead_time_s")
PREFERENCES = {"A": 1.0, "B": 0.0, "tie": 0.5, "both_bad": 0.5, "cannot_judge": None}
"""Labels of a pair and their values: how much of a win for A."""

_BOOLEANS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
# Excel writes TRUE in the language of whoever saved the file.
_BOOLEANS |= {"wahr": 1.0, "ja": 1.0, "falsch": 0.0, "nein": 0.0}
_ROUNDS = ("1", "2", "adjudication")
_STATUSES = ("submitted", "discarded")
_ORDERS = ("AB", "BA")
Row = Mapping[str, JsonValue]
"""Column to value. From a CSV file every value is text."""


class RowDefaults(Record):
    """What holds where a row does not say."""

    workload: str
    """Holds for every row."""
    source_type: SourceType = "human"
    source_id: str | None = None
    guideline: str | None = None
    """Version of the instructions the raters worked by."""
    name: str | None = None
    """The question, for formats that do not carry one."""
    raters: tuple[str, ...] | None = None
    """The only ones who may judge; anybody when absent."""
    now: UtcDatetime = Field(default_factory=utcnow)
    """When the judgement was made."""


def parse_row(row: Row, defaults: RowDefaults) -> Assessment:
    """Reads one row.

    Raises:
        BadRecordError: with a stable reason and what would be valid.
    """
    _check_columns(row)
    stated = _created_at(row, defaults.now)
    created_at = stated or defaults.now
    fields = _fields(row, defaults)
    try:
        return Assessment.model_validate(
            {
                **fields,
                "assessment_id": _text(row, "assessment_id") or _content_id(fields, stated),
                "created_at": created_at,
                "event_date": created_at.astimezone(UTC).date(),
            }
        )
    except ValidationError as error:
        raise BadRecordError("invalid_record", " ".join(str(error).split())) from error


def _fields(row: Row, defaults: RowDefaults) -> dict[str, object]:
    """What the row says.

    Columns newer than the first are there only when they say something: an id that was made of a
    row's content must stay what it was.
    """
    pair = _pair(row)
    value, label, correction = _number(row, "value"), _text(row, "label"), _correction(row)
    status = _one_of(row, "status", _STATUSES)
    if status != "discarded" and value is None and label is None and correction is None:
        reason = "empty_correction" if "correction" in row else "empty_judgement"
        raise BadRecordError(reason, f"nothing is judged: give one of {', '.join(JUDGEMENTS)}")
    if pair is not None and status != "discarded":
        value, label = _preference(value, label, correction)
    newer = {
        "pair_ids": pair,
        "source_role": _text(row, "source_role"),
        "rubric": _text(row, "rubric"),
        "guideline": _text(row, "guideline") or defaults.guideline,
        "presented_order": _one_of(row, "presented_order", _ORDERS),
        "blinded": _flag(row, "blinded"),
        "lead_time_s": _number(row, "lead_time_s"),
        "status": status if status == "discarded" else None,
    }
    return {
        "workload": defaults.workload,
        "interaction_id": None if pair else _required(row, "interaction_id"),
        "name": _text(row, "name") or defaults.name or _required(row, "name"),
        "kind": "correction" if correction else "preference" if pair else "feedback",
        "value": value,
        "label": label,
        "correction": correction,
        "rationale": _text(row, "rationale"),
        "source_type": _one_of(row, "source_type", get_args(SourceType)) or defaults.source_type,
        "source_id": _rater(row, defaults),
        "round": _one_of(row, "round", _ROUNDS),
        **{name: found for name, found in newer.items() if found is not None},
    }


def _pair(row: Row) -> tuple[str, str] | None:
    ids = _text(row, "pair_a"), _text(row, "pair_b")
    if ids == (None, None):
        return None
    if ids[0] is None or ids[1] is None:
        raise BadRecordError("half_a_pair", "a pair needs both pair_a and pair_b")
    if _text(row, "interaction_id") is not None:
        raise BadRecordError("two_items", "give either interaction_id or pair_a and pair_b")
    if ids[0] == ids[1]:
        raise BadRecordError("half_a_pair", f"pair_a and pair_b are the same: {ids[0]}")
    return ids[0], ids[1]


def _preference(
    value: float | None, label: str | None, correction: Message | None
) -> tuple[float | None, str]:
    valid = {name.lower(): name for name in PREFERENCES}
    if correction is not None:
        raise BadRecordError("bad_preference", "correct one answer, in a row with interaction_id")
    if label is None or label.lower() not in valid:
        raise BadRecordError("bad_preference", f"{label!r}; valid: {', '.join(PREFERENCES)}")
    name = valid[label.lower()]
    return (PREFERENCES[name] if value is None else value), name


def _rater(row: Row, defaults: RowDefaults) -> str | None:
    rater = _text(row, "source_id") or defaults.source_id
    if defaults.raters is not None and rater not in defaults.raters:
        close = difflib.get_close_matches(rater or "", defaults.raters, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        valid = ", ".join(defaults.raters)
        raise BadRecordError("unknown_rater", f"{rater!r}; {hint}declared raters: {valid}")
    return rater


def _check_columns(row: Row) -> None:
    unknown = [column for column in row if column not in COLUMNS]
    if unknown:
        raise BadRecordError("unknown_column", f"{unknown}; valid: {', '.join(COLUMNS)}")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRecordError("bad_encoding", f"half a surrogate pair: {error}") from error


def _text(row: Row, column: str) -> str | None:
    """A text cell, stripped; empty means absent. Whole numbers are taken for their digits."""
    value = row.get(column)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecordError("invalid_record", f"{column}: text is expected, not {value!r:.80}")
    return str(value).strip() or None


def _required(row: Row, column: str) -> str:
    text = _text(row, column)
    if text is None:
        raise BadRecordError(f"missing_{column}", f"{column} is required and empty")
    return text


def _one_of(row: Row, column: str, valid: tuple[str, ...]) -> str | None:
    text = _text(row, column)
    if text is not None and text not in valid:
        raise BadRecordError(f"bad_{column}", f"{text!r}; valid: {', '.join(valid)}")
    return text


def _number(row: Row, column: str) -> float | None:
    """A number. NaN and infinities are refused: a missing rating is an empty cell."""
    value = row.get(column)
    if isinstance(value, str):
        value = value.strip() or None
    if value is None:
        return None
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRecordError("bad_number", f"{column}: {value!r:.80} is not a number")
    return number


def _flag(row: Row, column: str) -> bool | None:
    number = _number(row, column)
    if number not in (None, 0.0, 1.0):
        raise BadRecordError("bad_number", f"{column}: {row[column]!r:.80}; valid: true, false")
    return None if number is None else bool(number)


def _correction(row: Row) -> Message | None:
    """The answer that should have been sent: its text, or a message as JSON."""
    value = row.get("correction")
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        message = _as_message_json(text)
        if not text:
            return None
        value = message if message is not None else {"role": "assistant", "content": text}
    if not isinstance(value, dict) or value.get("role") != "assistant":
        raise BadRecordError(
            "bad_correction",
            'give the text of the answer, or a message {"role": "assistant", "content": …}, '
            f"not {value!r:.80}",
        )
    try:
        message_found = Message.model_validate(value)
    except ValidationError as error:
        raise BadRecordError("bad_correction", " ".join(str(error).split())) from error
    if not message_found.text.strip() and not message_found.tool_calls:
        raise BadRecordError("empty_correction", "the message has no content and no tool calls")
    return message_found


def _as_message_json(text: str) -> dict[str, JsonValue] | None:
    """The message a text is the JSON of. An answer that is itself JSON has no role."""
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "role" in value else None


def _created_at(row: Row, now: datetime) -> datetime | None:
    text = _text(row, "created_at")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRecordError("bad_created_at", f"{text!r} is not ISO 8601") from error
    if moment.tzinfo is None:
        raise BadRecordError("bad_created_at", f"{text!r} has no zone: write {text}Z for UTC")
    if moment > now + timedelta(days=1):
        # The latest judgement of a rater counts: one from the future would count for ever.
        raise BadRecordError("bad_created_at", f"{text} is in the future")
    return moment.astimezone(UTC)


def _content_id(fields: Mapping[str, object], stated: datetime | None) -> str:
    """An id of what the row says, so that importing it twice adds nothing.

    The time counts only where the row states it: the time of import differs each time.
    """
    correction = fields["correction"]
    content = {
        **fields,
        "correction": correction.model_dump() if isinstance(correction, Message) else None,
        "created_at": stated.isoformat() if stated is not None else None,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
