"""OTLP log records -> GenAI events: JSON or protobuf, as files hold them and exporters send them.

Input: `{"resourceLogs": […]}` or an ExportLogsServiceRequest. Output: every record; those that are
events of the GenAI conventions (`gen_ai.user.message`, `gen_ai.choice`, …) hold the content of the
span they were written in.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pydantic import JsonValue

from flywheel.capture.importers.row import object_of, objects_of, text
from flywheel.capture.importers.spans import (
    attributes_of,
    from_wire,
    hex_of,
    integer_of,
    value_of,
    wire_value,
)
from flywheel.errors import BadRecordError, MissingExtraError
from flywheel.records import JsonObject

if TYPE_CHECKING:
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_PREFIX = "gen_ai."


class LogEvent(NamedTuple):
    """One log record."""

    trace_id: str
    span_id: str
    name: str
    time_ns: int
    body: JsonValue
    attributes: JsonObject

    @property
    def key(self) -> str:
        """What it shares with its span."""
        return f"{self.trace_id}:{self.span_id}"

    @property
    def is_genai(self) -> bool:
        """Whether it is an event of the GenAI conventions."""
        return self.name.startswith(_PREFIX)

    @property
    def has_span(self) -> bool:
        """Whether it was written within a span."""
        return bool(self.trace_id.strip("0") and self.span_id.strip("0"))

    def as_json(self) -> JsonObject:
        """The record for its span, and for quarantine."""
        return {
            "name": self.name,
            "time_ns": self.time_ns,
            "body": self.body,
            "attributes": self.attributes,
        }


def log_events(document: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """GenAI events of a document, each under `trace:span`."""
    for event in logs_of_json(document):
        if event.is_genai:
            yield event.key, event.as_json()


def logs_of_json(document: JsonObject) -> Iterator[LogEvent]:
    """The log records of one document."""
    for resource_logs in objects_of(document.get("resourceLogs")):
        for scope_logs in objects_of(resource_logs.get("scopeLogs")):
            for record in objects_of(scope_logs.get("logRecords")):
                attributes = attributes_of(record.get("attributes"))
                times = (record.get("timeUnixNano"), record.get("observedTimeUnixNano"))
                yield LogEvent(
                    trace_id=hex_of(record.get("traceId")),
                    span_id=hex_of(record.get("spanId")),
                    name=text(record.get("eventName")) or _named(attributes),
                    time_ns=next(filter(None, map(integer_of, times)), 0),
                    body=value_of(object_of(record.get("body"))),
                    attributes=attributes,
                )


def logs_of_protobuf(data: bytes) -> Iterator[LogEvent]:
    """The log records of one ExportLogsServiceRequest.

    Raises:
        BadRecordError: `bad_protobuf`.
        MissingExtraError: the package that reads it is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    except ImportError as error:
        raise MissingExtraError("opentelemetry-proto", "gateway") from error
    try:
        request = ExportLogsServiceRequest.FromString(data)
    except DecodeError as error:
        raise BadRecordError("bad_protobuf", f"not an ExportLogsServiceRequest: {error}") from error
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            yield from map(_wire_event, scope_logs.log_records)


def _wire_event(record: "LogRecord") -> LogEvent:
    attributes = from_wire(record.attributes)
    return LogEvent(
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        name=record.event_name or _named(attributes),
        time_ns=record.time_unix_nano or record.observed_time_unix_nano,
        body=wire_value(record.body),
        attributes=attributes,
    )


def _named(attributes: JsonObject) -> str:
    """The name as it was written before log records had a field for it."""
    return text(attributes.get("event.name")) or ""
