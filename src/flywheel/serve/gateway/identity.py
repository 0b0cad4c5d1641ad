"""Who and what a call belongs to: conversation, trace, data subject.

Input: a request's headers and body. Output: identifiers that may be stored. The identifier of a
person is never among them: it becomes an HMAC, or nothing where the deployment has no secret.
"""

import hmac
import os
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from flywheel.records import JsonObject
from flywheel.serve.gateway.replies import is_clean

CONVERSATION_HEADER = "x-flywheel-conversation-id"
USER_HEADER = "x-flywheel-user"
IDENTITY_PARAMS = ("user", "safety_identifier")
"""Fields of OpenAI's request body that name a person; they are sent on and never spooled."""

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class Trace(NamedTuple):
    """Where a call stands in a distributed trace (W3C Trace Context)."""

    trace_id: str
    span_id: str
    """Of the gateway's own span: the parent of whatever the model server records."""
    parent_span_id: str
    flags: str

    @property
    def header(self) -> str:
        """The traceparent sent upstream."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def read_trace(traceparent: str | None) -> Trace | None:
    """The trace a caller is in; None without a valid header, as the specification asks."""
    found = _TRACEPARENT.fullmatch(traceparent.strip()) if traceparent else None
    if found is None:
        return None
    version, trace_id, parent_id, flags = found.groups()
    if version == "ff" or trace_id == "0" * 32 or parent_id == "0" * 16:
        return None
    return Trace(trace_id, os.urandom(8).hex(), parent_id, flags)


def read_conversation(headers: Mapping[str, str], body: JsonObject) -> str | None:
    """The conversation a caller names: in the header if that is text, else in the metadata."""
    named = headers.get(CONVERSATION_HEADER)
    if named and not is_clean(named):
        named = None
    metadata = body.get("metadata")
    if not named and isinstance(metadata, dict):
        in_body = metadata.get("conversation_id")
        named = in_body if isinstance(in_body, str) else None
    return named or None


def read_subject(headers: Mapping[str, str], body: JsonObject, secret: bytes) -> str | None:
    """The subject_key of the person a call is about; None without a secret or a person."""
    if not secret:
        return None
    named = headers.get(USER_HEADER)
    for name in IDENTITY_PARAMS:
        value = body.get(name)
        if not named and isinstance(value, str):
            named = value
    return pseudonym(named, secret) if named else None


def pseudonym(identifier: str, secret: bytes) -> str:
    """HMAC-SHA256 of an identifier, in hex."""
    return hmac.new(secret, identifier.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def without_identity(raw: bytes, body: JsonObject) -> JsonObject | bytes:
    """What of a request may be spooled: the bytes as they came where they name nobody."""
    if not any(name in body for name in IDENTITY_PARAMS):
        return raw
    return {name: value for name, value in body.items() if name not in IDENTITY_PARAMS}
