"""OTLP -> spans: JSON or protobuf, as files hold it and exporters send it.

Input: `{"resourceSpans": […]}` as JSON (ids in hex, 64-bit integers as text: OTLP's own mapping),
or an ExportTraceServiceRequest. Output: Span records. Log records are `log_events`'.
"""

import base64
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from flywheel.capture.importers.row import first_of, object_of, objects_of, text
from flywheel.errors import BadRecordError, MissingExtraError
from flywheel.records import JsonObject

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

ERROR = 2
"""STATUS_CODE_ERROR."""


class Event(NamedTuple):
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: JsonObject


class Span(NamedTuple):
    """One operation."""

    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    start_ns: int
    end_ns: int
    attributes: JsonObject
    events: tuple[Event, ...] = ()
    status_code: int = 0
    status_message: str = ""
    resource: JsonObject = {}
    scope: str = ""

    @property
    def key(self) -> str:
        """What it shares with its log records."""
        return f"{self.trace_id}:{self.span_id}"

    def as_json(self) -> JsonObject:
        """The span for quarantine."""
        return {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "parentSpanId": self.parent_span_id,
            "name": self.name,
            "startTimeUnixNano": self.start_ns,
            "endTimeUnixNano": self.end_ns,
            "attributes": self.attributes,
            "events": [{"name": e.name, "attributes": e.attributes} for e in self.events],
            "status": {"code": self.status_code, "message": self.status_message},
        }


def at(nanoseconds: int) -> datetime | None:
    """A time, aware, in UTC; None for 0, which is how OTLP says that there is none."""
    if not 0 < nanoseconds < 2**63:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)


def spans_of_json(document: JsonObject) -> Iterator[Span]:
    """The spans of one document."""
    for resource_spans in objects_of(document.get("resourceSpans")):
        resource = attributes_of(object_of(resource_spans.get("resource")).get("attributes"))
        for scope_spans in objects_of(resource_spans.get("scopeSpans")):
            scope = text(object_of(scope_spans.get("scope")).get("name")) or ""
            for span in objects_of(scope_spans.get("spans")):
                yield _span(span, resource, scope)


def _span(span: JsonObject, resource: JsonObject, scope: str) -> Span:
    status = object_of(span.get("status"))
    code = status.get("code")
    return Span(
        trace_id=hex_of(span.get("traceId")),
        span_id=hex_of(span.get("spanId")),
        parent_span_id=hex_of(span.get("parentSpanId")),
        name=text(span.get("name")) or "",
        start_ns=integer_of(span.get("startTimeUnixNano")),
        end_ns=integer_of(span.get("endTimeUnixNano")),
        attributes=attributes_of(span.get("attributes")),
        events=tuple(
            Event(
                text(event.get("name")) or "",
                integer_of(event.get("timeUnixNano")),
                attributes_of(event.get("attributes")),
            )
            for event in objects_of(span.get("events"))
        ),
        status_code=ERROR if code in (ERROR, "STATUS_CODE_ERROR") else 0,
        status_message=text(status.get("message")) or "",
        resource=resource,
        scope=scope,
    )


def hex_of(value: JsonValue) -> str:
    """A trace's or a span's id; empty where it is no text."""
    return value.lower() if isinstance(value, str) else ""


def integer_of(value: JsonValue) -> int:
    """A 64-bit integer, which JSON carries as text; 0 where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return 0
    try:
        found = int(value)
    except ValueError:
        return 0
    return found if abs(found) < 2**64 else 0


def attributes_of(pairs: JsonValue) -> JsonObject:
    """A list of KeyValue as an object."""
    return {
        key: value_of(object_of(pair.get("value")))
        for pair in objects_of(pairs)
        if isinstance(key := pair.get("key"), str)
    }


def value_of(value: JsonObject) -> JsonValue:
    """What an AnyValue holds."""
    if "intValue" in value:
        return integer_of(value["intValue"])
    if "doubleValue" in value:
        double = value["doubleValue"]
        return double if isinstance(double, int | float) else None  # "NaN" and "Infinity"
    if "arrayValue" in value:
        items = objects_of(object_of(value["arrayValue"]).get("values"))
        return [value_of(item) for item in items]
    if "kvlistValue" in value:
        return attributes_of(object_of(value["kvlistValue"]).get("values"))
    return first_of(value, "stringValue", "boolValue", "bytesValue")


def spans_of_protobuf(data: bytes) -> Iterator[Span]:
    """The spans of one ExportTraceServiceRequest (or TracesData, which is the same on the wire).

    Raises:
        BadRecordError: `bad_protobuf`.
        MissingExtraError: the package that reads it is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )
    except ImportError as error:
        raise MissingExtraError("opentelemetry-proto", "gateway") from error
    try:
        request = ExportTraceServiceRequest.FromString(data)
    except DecodeError as error:
        raise BadRecordError(
            "bad_protobuf", f"not an ExportTraceServiceRequest: {error}"
        ) from error
    for resource_spans in request.resource_spans:
        resource = from_wire(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield _wire_span(span, resource, scope_spans.scope.name)


def _wire_span(span: "WireSpan", resource: JsonObject, scope: str) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=from_wire(span.attributes),
        events=tuple(
            Event(event.name, event.time_unix_nano, from_wire(event.attributes))
            for event in span.events
        ),
        status_code=int(span.status.code),
        status_message=span.status.message,
        resource=resource,
        scope=scope,
    )


def from_wire(pairs: "Iterable[KeyValue]") -> JsonObject:
    """The same from protobuf."""
    return {pair.key: wire_value(pair.value) for pair in pairs}


def wire_value(value: "AnyValue") -> JsonValue:
    """What an AnyValue of protobuf holds."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [wire_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return from_wire(value.kvlist_value.values)
    if kind == "double_value":
        return value.double_value if math.isfinite(value.double_value) else None
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    plain: JsonValue = getattr(value, kind) if kind else None
    return plain
