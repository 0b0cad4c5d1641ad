"""One call as an instrumented client saw it, and its Exchange.

Input: the bytes of a request and of its answer. Output: an Exchange like the gateway's. What is
done here while the call runs is as little as can be; `to_exchange` runs in the recorder's thread.
"""

import base64
import hmac
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from flywheel.capture.parse import IDENTITY_PARAMS
from flywheel.records import Exchange, JsonObject, Status, new_id, utcnow

CONVERSATION_HEADER = "x-flywheel-conversation-id"
USER_HEADER = "x-flywheel-user"
MAX_ANSWER_BYTES = 64 << 20
"""A longer answer is not kept: the call is counted as dropped (`too_large`)."""

OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/completions": "text_completion",
}
"""What is captured, by the end of the URL's path; whatever else a client sends is not looked at."""
_ENDS = (b"\ndata: [DONE]", b"\nevent: response.completed", b"\nevent: response.incomplete")
"""Lines after which a stream has nothing more to say, whether or not its reader reads on."""
_PROVIDERS = {"api.openai.com": "openai"}


def operation_of(path: str) -> str | None:
    """Which of the operations a URL is, None for any other."""
    for end, operation in OPERATIONS.items():
        if path.endswith(end):
            return operation
    return None


class Outcome(NamedTuple):
    """How a call ended."""

    status: Status
    error_type: str | None = None
    error_message: str | None = None


@dataclass(slots=True)
class Seen:
    """A call in flight, and what of its answer has come."""

    workload: str
    operation: str
    host: str
    request: bytes
    conversation_id: str | None
    subject: str | None
    traceparent: str | None
    hand_in: Callable[["Seen"], None]
    """Takes it when it is over. It must neither wait nor raise: a garbage collector may call it."""
    interaction_id: str = field(default_factory=new_id)
    started_at: datetime = field(default_factory=utcnow)
    mark: float = field(default_factory=time.perf_counter)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    encoding: str = ""
    """Of the chunks: the answer's Content-Encoding, empty for plain bytes."""
    is_streamed: bool = False
    is_too_large: bool = False
    http_status: int | None = None
    first_byte_ms: float | None = None
    duration_ms: float = 0.0
    is_over: bool = False
    outcome: Outcome = Outcome("ok")
    """As it looked when it was over."""

    @property
    def elapsed_ms(self) -> float:
        """Since the request was made."""
        return (time.perf_counter() - self.mark) * 1000

    def took(self, chunk: bytes) -> None:
        """Keeps a chunk that is on its way to the caller."""
        if self.first_byte_ms is None:
            self.first_byte_ms = self.elapsed_ms
        self.size += len(chunk)
        if self.size > MAX_ANSWER_BYTES:
            self.is_too_large = True
            self.chunks.clear()
        else:
            self.chunks.append(chunk)

    def end(self) -> None:
        """The answer is whole."""
        self._over(Outcome("ok"))

    def fail(self, error: BaseException, kind: str) -> None:
        """It broke; what is no Exception (a cancelled task, Ctrl-C) is the caller who left."""
        if isinstance(error, Exception):
            self._over(Outcome("error", kind, f"{type(error).__name__}: {error}"))
        else:
            self.leave(type(error).__name__)

    def leave(self, reason: str) -> None:
        """The caller wants no more of it."""
        self._over(Outcome("cancelled", "client_disconnected", reason))

    def _over(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.duration_ms = self.elapsed_ms
        self.outcome = outcome
        self.hand_in(self)


def to_exchange(seen: Seen, secret: bytes) -> Exchange:
    """The record of a call that is over.

    Args:
        seen: the call.
        secret: key of the HMAC of a person's identifier; empty stores none.
    """
    request, body = _request(seen.request)
    data = decoded(b"".join(seen.chunks), seen.encoding)
    response, is_base64 = _text(data)
    outcome = _outcome(seen, data)
    trace = _trace(seen.traceparent)
    model = str(body["model"]) if body.get("model") is not None else None
    return Exchange(
        interaction_id=seen.interaction_id,
        workload=seen.workload,
        conversation_id=seen.conversation_id or _conversation(body),
        trace_id=trace[0],
        parent_span_id=trace[1],
        started_at=seen.started_at,
        duration_ms=seen.duration_ms,
        time_to_first_token_ms=seen.first_byte_ms if seen.is_streamed else None,
        operation=seen.operation,
        provider=_PROVIDERS.get(seen.host, seen.host) or None,
        request_model=model or "",
        served_model=model,
        arm="baseline",
        request=request,
        response=response,
        streamed=seen.is_streamed,
        http_status=seen.http_status,
        status=outcome.status,
        error_type=outcome.error_type,
        error_message=outcome.error_message,
        subject_key=_subject_key(seen.subject, body, secret),
        tags={"response_encoding": "base64"} if is_base64 else {},
        source="sdk",
    )


def decoded(data: bytes, encoding: str) -> bytes:
    """A body without its Content-Encoding, as far as it came; as it is where it cannot be read."""
    if encoding in ("", "identity") or not data:
        return data
    if encoding in ("gzip", "x-gzip", "deflate"):
        for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # with a header, and raw deflate
            try:
                return zlib.decompressobj(bits).decompress(data, MAX_ANSWER_BYTES)
            except zlib.error:
                continue
        return data
    # The client's own library knows what else it asked for.
    library: Any = sys.modules.get("httpx2") or sys.modules["httpx"]
    try:
        content = library.Response(
            200, headers={"content-encoding": encoding}, content=data
        ).content
    except library.DecodingError:  # cut off
        return data
    return bytes(content)


def _outcome(seen: Seen, data: bytes) -> Outcome:
    """A stream that came to its own end is whole, however its reader then took leave of it."""
    is_whole = seen.is_streamed and any(end in data for end in _ENDS)
    if seen.http_status is None or (seen.outcome.status != "ok" and not is_whole):
        is_refused = (seen.http_status or 0) >= 400 and seen.outcome.status == "cancelled"
        return Outcome("error") if is_refused else seen.outcome
    return Outcome("ok" if seen.http_status < 400 else "error")


def _request(raw: bytes) -> tuple[str, JsonObject]:
    """The body to keep, without the fields that name a person, and the body to look into."""
    body = from_json(raw)
    if not isinstance(body, dict):
        return raw.decode(), {}
    if any(name in body for name in IDENTITY_PARAMS):
        kept = {name: value for name, value in body.items() if name not in IDENTITY_PARAMS}
        return to_json(kept).decode(), body
    return raw.decode(), body


def _text(data: bytes) -> tuple[str, bool]:
    """The answer as text, or as base64 where it is none."""
    try:
        return data.decode(), False
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":  # cut off inside a character
            return data[: error.start].decode(), False
    return base64.b64encode(data).decode(), True


def _conversation(body: Mapping[str, object]) -> str | None:
    metadata = body.get("metadata")
    named = metadata.get("conversation_id") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) and named else None


def _subject_key(subject: str | None, body: Mapping[str, object], secret: bytes) -> str | None:
    if not secret:
        return None
    named = subject
    for name in IDENTITY_PARAMS:
        value = body.get(name)
        if not named and isinstance(value, str):
            named = value
    return hmac.new(secret, named.encode(), sha256).hexdigest() if named else None


def _trace(traceparent: str | None) -> tuple[str | None, str | None]:
    """Trace and parent span of a W3C traceparent; the client has no span of its own here."""
    parts = (traceparent or "").split("-")
    if len(parts) < 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None, None
    return parts[1], parts[2]
