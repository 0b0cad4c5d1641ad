"""What every format shares: identity, time, people, and how a row becomes a record or is refused.

Input: values as a log holds them. Output: values a record takes, or a BadRecordError.
"""

import hmac
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Protocol
from uuid import NAMESPACE_OID, UUID, uuid5

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from flywheel.errors import BadRecordError
from flywheel.records import Assessment, Interaction, JsonObject, utcnow

IDENTITY_PARAMS = ("user", "safety_identifier")
"""Request fields that name a person: kept as `subject_key`, or not at all."""
_PERSONAL = frozenset(
    ("user", "userid", "username", "useremail", "enduser", "enduserid", "safetyidentifier")
    + ("customer", "customerid", "patient", "patientid", "email", "phone")
    + ("ip", "ipaddress", "clientip", "clientaddress", "requesteripaddress")
)
"""Keys of tags and metadata whose value names a person, without case and punctuation."""
_NAMESPACE = uuid5(NAMESPACE_OID, "flywheel import")
_MAX_COUNT = 2**63 - 1


class Rejected(NamedTuple):
    """A part of a row (a span) that cannot be read, while the rest of the row can."""

    reason: str
    detail: str
    payload: bytes


class PassedOver(NamedTuple):
    """A part of a row that is no model call and no judgement: nothing is lost by leaving it."""

    reason: str


Outcome = Interaction | Assessment | Rejected | PassedOver


def _nothing(key: str) -> list[JsonObject]:
    return []


@dataclass(frozen=True)
class Source:
    """What holds for every row of an import.

    Args:
        workload: whose calls these are.
        workloads: others a row may name itself (`flywheel.workload` of a span).
        label_name: the name under which demonstrations (corrections) are filed.
        subject_secret: key of the HMAC for people's identifiers; without it they are dropped.
        assumed_time: when calls were made that do not say; without it they are refused.
        now: when they are imported.
        joined: what an earlier pass found for a key: a batch's request, a span's log events.
    """

    workload: str
    workloads: frozenset[str] = frozenset()
    label_name: str = "demonstration"
    subject_secret: bytes = b""
    assumed_time: datetime | None = None
    now: datetime = field(default_factory=utcnow)
    joined: Callable[[str], list[JsonObject]] = _nothing


class Format(Protocol):
    """What each format's module offers."""

    NAME: str

    def looks_like(self, row: JsonObject) -> bool:
        """Whether a row is of this format."""

    def read(self, row: JsonObject, source: Source) -> list[Outcome]:
        """What a row comes to; BadRecordError where all of it cannot be read."""


def parse_json(raw: bytes | str) -> JsonValue:
    """The JSON in a row.

    Raises:
        BadRecordError: `bad_json`, or `bad_encoding` where it is not UTF-8.
    """
    try:
        value: JsonValue = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        reason = "bad_encoding" if isinstance(raw, bytes) and not _is_utf8(raw) else "bad_json"
        raise BadRecordError(reason, str(error)) from error
    return value


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def canonical(value: JsonValue) -> bytes:
    """The value as bytes that do not depend on whitespace or the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", errors="surrogatepass")


def derived_id(*parts: str | bytes) -> str:
    """A UUID (version 5) of what identifies a call in its log; the same every time."""
    digest = sha256()
    for part in parts:
        data = part.encode("utf-8", errors="surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return str(uuid5(_NAMESPACE, digest.hexdigest()))


def pseudonym(identifier: JsonValue, source: Source) -> str | None:
    """HMAC-SHA256 of a person's identifier, as the gateway makes it; None without a secret."""
    if not isinstance(identifier, str | int) or identifier == "" or isinstance(identifier, bool):
        return None
    if not source.subject_secret:
        return None
    data = str(identifier).encode("utf-8", errors="surrogatepass")
    return hmac.new(source.subject_secret, data, sha256).hexdigest()


def person_of(tags: Mapping[str, JsonValue]) -> JsonValue:
    """The identifier of a person that tags carry, if they do."""
    named = (value for key, value in tags.items() if _is_personal(key))
    return next((value for value in named if value not in (None, "")), None)


def without_people(tags: Mapping[str, JsonValue]) -> JsonObject:
    """The tags less those that name a person. Only by their keys: values are not looked into."""
    return {key: value for key, value in tags.items() if not _is_personal(key)}


def _is_personal(key: str) -> bool:
    return "".join(filter(str.isalnum, key)).lower() in _PERSONAL


def text(value: JsonValue) -> str | None:
    """A text that says something."""
    return value if isinstance(value, str) and value else None


def object_of(value: JsonValue) -> JsonObject:
    """The object, or an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def objects_of(value: JsonValue) -> list[JsonObject]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: JsonValue) -> int | None:
    """A number of tokens; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT
    return value if isinstance(value, int) and is_count else None


def number(value: JsonValue) -> float | None:
    """A finite number; booleans are 0 and 1, text that is a number counts."""
    if not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def maybe_json(value: JsonValue) -> JsonValue:
    """What a string holds where it holds a JSON object or list; else the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        parsed: JsonValue = from_json(value, allow_inf_nan=False)
    except ValueError:
        return value
    return parsed


def first_of(row: Mapping[str, JsonValue], *names: str) -> JsonValue:
    """The first of these fields that is there and not null."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def own_uuid(value: JsonValue) -> str | None:
    """A UUID as a log gave it, in the one way of writing it."""
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def interaction(source: Source, name: str, fields: Mapping[str, object]) -> Interaction:
    """The record.

    Args:
        source: the import.
        name: the format's.
        fields: with `interaction_id` and `started_at`; None stands for absent.

    Raises:
        BadRecordError: `invalid_record`.
    """
    known = {key: value for key, value in fields.items() if value is not None}
    begun = known["started_at"]
    assert isinstance(begun, datetime)
    try:
        return Interaction.model_validate(
            {
                "workload": source.workload,
                "conversation_id": known["interaction_id"],
                "arm": "baseline",
                "source": f"import:{name}",
                "ingested_at": source.now,
                "event_date": begun.date(),
                **known,
            }
        )
    except ValidationError as error:
        raise BadRecordError("invalid_record", sentences(error)) from error


def assessment(source: Source, fields: Mapping[str, object]) -> Assessment:
    """The judgement.

    Raises:
        BadRecordError: `invalid_record`, `empty_correction`.
    """
    created_at = fields["created_at"]
    assert isinstance(created_at, datetime)
    known = {key: value for key, value in fields.items() if value is not None}
    try:
        return Assessment.model_validate(
            {"workload": source.workload, "event_date": created_at.date(), **known}
        )
    except ValidationError as error:
        reason = "empty_correction" if "correction needs" in str(error) else "invalid_record"
        raise BadRecordError(reason, sentences(error)) from error


def sentences(error: ValidationError) -> str:
    """The mistakes without the values: quarantine keeps those once, in the original bytes."""
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
