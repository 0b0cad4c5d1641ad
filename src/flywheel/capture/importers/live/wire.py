"""POST /v1/traces and /v1/logs, from any OpenTelemetry exporter that speaks OTLP/HTTP.

Input: protobuf or JSON, gzip'd or not. Output: 200 once everything accepted is kept durably, with
the parts that could not be read counted as a partial success. Whoever mounts it gives the receiver,
so that nothing here knows a gateway. Source: OTLP specification 1.x, "OTLP/HTTP".
"""

import asyncio
import json
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiohttp import web

from flywheel.capture.importers.live.buffer import NotKeptError
from flywheel.capture.importers.live.receiver import OtlpReceiver, reasons
from flywheel.capture.importers.log_events import LogEvent, logs_of_json, logs_of_protobuf
from flywheel.capture.importers.row import Rejected, object_of, parse_json
from flywheel.capture.importers.spans import Span, spans_of_json, spans_of_protobuf
from flywheel.errors import BadRecordError
from flywheel.records import JsonObject

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 3, 8, 14
"""google.rpc.Code."""
_MESSAGE_LIMIT = 1000
_GZIP = 20
"""Bytes of the shortest gzip stream. aiohttp gives nothing, and no error, for a shorter one."""

Take = Callable[[bytes, bool], list[Rejected]]
"""Takes a body, which is JSON or not; gives what could not be read."""


class _RefusedError(Exception):
    """What to answer instead of 200."""

    def __init__(self, status: int, code: int, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class _Signal(NamedTuple):
    """What tells traces from logs on the wire."""

    key: str
    """Of the list in a JSON document."""
    rejected: str
    """The field of a partial success in JSON."""


_SPANS = _Signal("resourceSpans", "rejectedSpans")
_LOGS = _Signal("resourceLogs", "rejectedLogRecords")


class OtlpEndpoints:
    """The handlers.

    Args:
        receiver: keeps what comes.
        max_bytes: of a request, decompressed: a gzip bomb is stopped while it unpacks.
    """

    def __init__(self, receiver: OtlpReceiver, *, max_bytes: int = 16 << 20) -> None:
        self.receiver, self._max_bytes = receiver, max_bytes

    async def traces(self, request: web.Request) -> web.Response:
        """Answers POST /v1/traces."""
        return await self._answer(request, _SPANS, self._take_spans)

    async def logs(self, request: web.Request) -> web.Response:
        """Answers POST /v1/logs."""
        return await self._answer(request, _LOGS, self._take_logs)

    async def run(self) -> None:
        """Joins what waits, until it is cancelled."""
        await self.receiver.run()

    def counts(self) -> dict[tuple[str, str], int]:
        """Parts by signal and what became of them."""
        return {
            (signal, outcome): count
            for signal, counters in self.receiver.counters.items()
            for outcome, count in counters._asdict().items()
        }

    async def _answer(self, request: web.Request, signal: _Signal, take: Take) -> web.Response:
        kind = request.content_type
        try:
            if kind not in (PROTOBUF, JSON):
                raise _RefusedError(
                    415, _INVALID_ARGUMENT, f"content-type {kind!r:.80}; valid: {PROTOBUF}, {JSON}"
                )
            body = await self._body(request)
            rejected = await asyncio.to_thread(_taken, take, body, is_json=kind == JSON)
        except _RefusedError as error:
            return _refusal(kind, error)
        return _accepted(kind, signal, rejected)

    def _take_spans(self, body: bytes, is_json: bool) -> list[Rejected]:
        spans: Sequence[Span]
        spans = [*(spans_of_json(_document(body, _SPANS)) if is_json else spans_of_protobuf(body))]
        return self.receiver.take_spans(spans)

    def _take_logs(self, body: bytes, is_json: bool) -> list[Rejected]:
        records: Sequence[LogEvent]
        records = [*(logs_of_json(_document(body, _LOGS)) if is_json else logs_of_protobuf(body))]
        return self.receiver.take_logs(records)

    async def _body(self, request: web.Request) -> bytes:
        """The body, decompressed, never more of it in memory than the limit and a chunk.

        aiohttp may have decompressed it already, as its server does unless told otherwise; what
        still begins as gzip does is decompressed here.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity", ""):
            message = f"content-encoding {encoding!r:.80}; valid: gzip, identity"
            raise _RefusedError(415, _INVALID_ARGUMENT, message)
        body = bytearray()
        unpacker = None
        try:
            async for chunk in request.content.iter_any():
                if not body and unpacker is None and chunk[:2] == b"\x1f\x8b":
                    unpacker = zlib.decompressobj(31)
                room = self._max_bytes + 1 - len(body)
                body += unpacker.decompress(chunk, room) if unpacker else chunk
                if len(body) > self._max_bytes:
                    raise self._too_large()
            is_cut = unpacker is not None and not unpacker.eof
            if is_cut or (encoding == "gzip" and (request.content_length or _GZIP) < _GZIP):
                raise _RefusedError(400, _INVALID_ARGUMENT, "the gzip stream is cut off")
        except (zlib.error, web.HTTPException, web.RequestPayloadError) as error:
            message = f"the body cannot be read: {error}"
            raise _RefusedError(400, _INVALID_ARGUMENT, message) from error
        return bytes(body)

    def _too_large(self) -> _RefusedError:
        message = f"over {self._max_bytes} bytes decompressed; export smaller batches"
        return _RefusedError(413, _RESOURCE_EXHAUSTED, message)


def _taken(take: Take, body: bytes, *, is_json: bool) -> list[Rejected]:
    try:
        return take(body, is_json)
    except BadRecordError as error:
        raise _RefusedError(400, _INVALID_ARGUMENT, str(error)) from error
    except NotKeptError as error:
        raise _RefusedError(503, _UNAVAILABLE, f"{error}; send them again") from error


def _document(body: bytes, signal: _Signal) -> JsonObject:
    document = parse_json(body)
    if not isinstance(document, dict) or not isinstance(document.get(signal.key, []), list):
        raise BadRecordError("not_otlp", f"not an object with a list of {signal.key}")
    return object_of(document)


def _accepted(kind: str, signal: _Signal, rejected: list[Rejected]) -> web.Response:
    """ExportTraceServiceResponse or ExportLogsServiceResponse; empty where all was taken."""
    message = reasons(rejected)[:_MESSAGE_LIMIT]
    if kind == JSON:
        partial = {signal.rejected: str(len(rejected)), "errorMessage": message}
        body = {"partialSuccess": partial} if rejected else {}
        return web.Response(body=json.dumps(body).encode(), content_type=JSON)
    # Both are the same on the wire: field 1, a message of a count (1) and a text (2).
    data = message.encode("utf-8", errors="replace")
    inner = b"\x08" + _varint(len(rejected)) + b"\x12" + _varint(len(data)) + data
    packed = b"\x0a" + _varint(len(inner)) + inner if rejected else b""
    return web.Response(body=packed, content_type=PROTOBUF)


def _refusal(kind: str, error: _RefusedError) -> web.Response:
    """A google.rpc.Status, in the encoding of the request; JSON where that is unknown."""
    headers = {"retry-after": "1"} if error.status == 503 else {}
    message = error.message[:_MESSAGE_LIMIT]
    if kind == PROTOBUF:
        data = message.encode("utf-8", errors="replace")
        body = b"\x08" + _varint(error.code) + b"\x12" + _varint(len(data)) + data
    else:
        kind, body = JSON, json.dumps({"code": error.code, "message": message}).encode()
    return web.Response(status=error.status, body=body, content_type=kind, headers=headers)


def _varint(value: int) -> bytes:
    """A number as protobuf writes it. The Status message is in a package nothing else needs."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
