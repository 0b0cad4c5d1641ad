"""POST /v1/traces: spans live, from any OpenTelemetry exporter that speaks OTLP/HTTP.

Input: protobuf or JSON, gzip'd or not. Output: 200 once everything accepted is in the sink, with
the spans that could not be read counted as a partial success. Spans that are no model calls are
accepted and left. Whoever mounts it gives the sink, so that nothing here knows a gateway; the sink
answers True when the records are kept, and may block until they are: it runs in a thread.
Source: OTLP specification 1.x, "OTLP/HTTP".
"""

import asyncio
import json
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiohttp import web

from flywheel.capture.importers.otlp import read_span
from flywheel.capture.importers.row import PassedOver, Rejected, Source, object_of, parse_json
from flywheel.capture.importers.spans import Span, spans_of_json, spans_of_protobuf
from flywheel.errors import BadRecordError
from flywheel.records import Assessment, Interaction

logger = logging.getLogger(__name__)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 3, 8, 14
"""google.rpc.Code."""
_MESSAGE_LIMIT = 1000
_GZIP = 20
"""Bytes of the shortest gzip stream. aiohttp gives nothing, and no error, for a shorter one."""

Sink = Callable[[Sequence[Interaction | Assessment]], bool]


class _RefusedError(Exception):
    """What to answer instead of 200."""

    def __init__(self, status: int, code: int, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class TraceCounters(NamedTuple):
    """Spans since the start: `received == accepted + rejected + passed_over + lost`."""

    received: int = 0
    accepted: int = 0
    rejected: int = 0
    """Could not be read, and the exporter was told; OTLP forbids it to send them again."""
    passed_over: int = 0
    """No model calls."""
    lost: int = 0
    """The sink did not take them; the exporter was told to send them again."""


class TracesEndpoint:
    """The handler.

    Args:
        sink: keeps records; False when it cannot now.
        source: makes the facts of an import for a request, with the time now.
        max_bytes: of a request, decompressed: a gzip bomb is stopped while it unpacks.
    """

    def __init__(
        self, sink: Sink, source: Callable[[], Source], *, max_bytes: int = 16 << 20
    ) -> None:
        self._sink, self._source, self._max_bytes = sink, source, max_bytes
        self.counters = TraceCounters()

    async def __call__(self, request: web.Request) -> web.Response:
        """Answers one request."""
        kind = request.content_type
        try:
            if kind not in (PROTOBUF, JSON):
                raise _RefusedError(
                    415, _INVALID_ARGUMENT, f"content-type {kind!r:.80}; valid: {PROTOBUF}, {JSON}"
                )
            body = await self._body(request)
            rejected = await asyncio.to_thread(self._keep, body, is_json=kind == JSON)
        except _RefusedError as error:
            return _refusal(kind, error)
        return _accepted(kind, rejected)

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

    def _keep(self, body: bytes, *, is_json: bool) -> list[Rejected]:
        """Reads the spans and hands them to the sink; what could not be read."""
        source = self._source()
        try:
            spans = list(_json_spans(body) if is_json else spans_of_protobuf(body))
        except BadRecordError as error:
            raise _RefusedError(400, _INVALID_ARGUMENT, str(error)) from error
        kept: list[Interaction | Assessment] = []
        rejected: list[Rejected] = []
        passed_over = 0
        for span in spans:
            outcomes = read_span(span, source)
            kept += [out for out in outcomes if isinstance(out, Interaction | Assessment)]
            rejected += [out for out in outcomes if isinstance(out, Rejected)]
            passed_over += any(isinstance(out, PassedOver) for out in outcomes)
        accepted = len(spans) - len(rejected) - passed_over
        is_kept = not kept or self._sink(kept)
        self._count(len(spans), accepted if is_kept else 0, len(rejected), passed_over)
        if not is_kept:
            message = "the spans could not be stored now; send them again"
            raise _RefusedError(503, _UNAVAILABLE, message)
        if rejected:
            logger.warning("%d spans were refused: %s", len(rejected), _reasons(rejected))
        return rejected

    def _count(self, received: int, accepted: int, rejected: int, passed_over: int) -> None:
        before = self.counters
        self.counters = TraceCounters(
            before.received + received,
            before.accepted + accepted,
            before.rejected + rejected,
            before.passed_over + passed_over,
            before.lost + received - accepted - rejected - passed_over,
        )


def _json_spans(body: bytes) -> list[Span]:
    document = parse_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("resourceSpans", []), list):
        raise BadRecordError("no_spans", "not an object with a list of resourceSpans")
    return list(spans_of_json(object_of(document)))


def _accepted(kind: str, rejected: list[Rejected]) -> web.Response:
    """ExportTraceServiceResponse; empty where every span was taken."""
    message = _reasons(rejected)
    if kind == JSON:
        partial = {"rejectedSpans": str(len(rejected)), "errorMessage": message}
        body = {"partialSuccess": partial} if rejected else {}
        return web.Response(body=json.dumps(body).encode(), content_type=JSON)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    reply = ExportTraceServiceResponse()
    if rejected:
        reply.partial_success.rejected_spans = len(rejected)
        reply.partial_success.error_message = message
    return web.Response(body=reply.SerializeToString(), content_type=PROTOBUF)


def _reasons(rejected: list[Rejected]) -> str:
    return "; ".join(sorted({f"{one.reason}: {one.detail}" for one in rejected}))[:_MESSAGE_LIMIT]


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
