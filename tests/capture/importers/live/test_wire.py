"""POST /v1/traces and /v1/logs over a real socket."""

import gzip
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from flywheel.capture import Spool, drain, read_status
from flywheel.capture.importers.live import JoinBuffer, Kept, OtlpReceiver
from flywheel.capture.importers.live.wire import JSON, PROTOBUF, OtlpEndpoints
from flywheel.capture.importers.row import Source
from flywheel.capture.parsed import Refused, keep
from flywheel.lake import Lake
from flywheel.records import Interaction, QuarantineRecord
from tests.capture.importers import rows

DATA = Path(__file__).parents[1] / "data"
RECORDED = (DATA / "openai_v2-2.4b0.pb").read_bytes()
LIMIT = 200_000


class Sink:
    """Remembers, or refuses."""

    def __init__(self) -> None:
        self.records: list[Kept] = []
        self.is_full = False

    def __call__(self, records: Sequence[Kept]) -> bool:
        if not self.is_full:
            self.records += records
        return not self.is_full


class Answer:
    def __init__(self, status: int, kind: str, body: bytes, retry_after: str | None) -> None:
        self.status, self.kind, self.body, self.retry_after = status, kind, body, retry_after

    @property
    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


async def post(
    endpoint: OtlpEndpoints,
    body: bytes,
    kind: str = PROTOBUF,
    *,
    encoding: str | None = None,
    auto_decompress: bool = True,
    path: str = "/v1/traces",
) -> Answer:
    app = web.Application()
    app.router.add_post("/v1/traces", endpoint.traces)
    app.router.add_post("/v1/logs", endpoint.logs)
    headers = {"content-type": kind} | ({"content-encoding": encoding} if encoding else {})
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(auto_decompress=auto_decompress)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(server.make_url(path), data=body, headers=headers) as reply,
        ):
            return Answer(
                reply.status,
                reply.content_type,
                await reply.read(),
                reply.headers.get("retry-after"),
            )
    finally:
        await server.close()


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def endpoint(sink: Sink, tmp_path: Path) -> OtlpEndpoints:
    receiver = OtlpReceiver(sink, lambda: Source(workload="triage"), JoinBuffer(tmp_path))
    return OtlpEndpoints(receiver, max_bytes=LIMIT)


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("is_zipped", [True, False])
async def test_what_an_exporter_sent_arrives(
    endpoint: OtlpEndpoints, sink: Sink, is_zipped: bool, auto_decompress: bool
) -> None:
    body = gzip.compress(RECORDED) if is_zipped else RECORDED
    encoding = "gzip" if is_zipped else None
    answer = await post(endpoint, body, encoding=encoding, auto_decompress=auto_decompress)
    assert (answer.status, answer.kind) == (200, PROTOBUF)
    assert not ExportTraceServiceResponse.FromString(answer.body).HasField("partial_success")
    assert len(sink.records) == 7
    assert endpoint.receiver.counters["spans"]._asdict() == {
        "received": 7,
        "accepted": 7,
        "rejected": 0,
        "passed_over": 0,
        "lost": 0,
    }


async def test_json_is_answered_in_json(endpoint: OtlpEndpoints, sink: Sink) -> None:
    answer = await post(endpoint, json.dumps(rows.OTLP).encode(), JSON + "; charset=utf-8")
    assert (answer.status, answer.kind, answer.json) == (200, JSON, {})
    [call] = sink.records
    assert isinstance(call, Interaction) and call.workload == "triage"


@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
async def test_a_span_that_cannot_be_read_is_a_partial_success(
    kind: str, endpoint: OtlpEndpoints, sink: Sink
) -> None:
    document = rows.otlp(rows.GENAI, startTimeUnixNano="0")
    body = json.dumps(document).encode()
    if kind == PROTOBUF:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        request = ExportTraceServiceRequest.FromString(RECORDED)
        request.resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano = 0
        body = request.SerializeToString()
    answer = await post(endpoint, body, kind)
    assert answer.status == 200
    if kind == JSON:
        partial = answer.json["partialSuccess"]
        assert isinstance(partial, dict) and partial["rejectedSpans"] == "1"
        assert "missing_timestamp" in partial["errorMessage"]
    else:
        reply = ExportTraceServiceResponse.FromString(answer.body).partial_success
        assert (reply.rejected_spans, "missing_timestamp" in reply.error_message) == (1, True)
        assert len(sink.records) == 7
    assert endpoint.receiver.counters["spans"].rejected == 1
    [refused] = [one for one in sink.records if isinstance(one, Refused)]
    assert (refused.source, refused.reason) == ("otlp", "missing_timestamp")
    assert b"startTimeUnixNano" in refused.payload


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status", "told"),
    [
        (b"{", JSON, None, 400, "bad_json"),
        (b"[" * 100_000, JSON, None, 400, "bad_json"),
        (b"[]", JSON, None, 400, "resourceSpans"),
        (b"\xff\xff\xff", PROTOBUF, None, 400, "bad_protobuf"),
        (b"x", "text/plain", None, 415, "valid: application/x-protobuf, application/json"),
        (b"x", PROTOBUF, "zstd-but-worse", 415, "valid: gzip, identity"),
        (b"x" * (LIMIT + 1), PROTOBUF, None, 413, "export smaller batches"),
    ],
)
async def test_what_cannot_be_taken_is_refused_with_a_sentence(
    body: bytes,
    kind: str,
    encoding: str | None,
    status: int,
    told: str,
    endpoint: OtlpEndpoints,
    sink: Sink,
) -> None:
    answer = await post(endpoint, body, kind, encoding=encoding)
    assert answer.status == status
    assert told.encode() in answer.body
    assert answer.kind == (kind if kind == PROTOBUF else JSON)
    assert sink.records == []


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("bomb", [b"\x00" * (300 << 20), b'{"a":"' + b"x" * (300 << 20)])
async def test_a_gzip_bomb_is_stopped_while_it_unpacks(
    bomb: bytes, auto_decompress: bool, endpoint: OtlpEndpoints
) -> None:
    """300 MB in 300 KB: refused after the limit's worth of it."""
    answer = await post(
        endpoint,
        gzip.compress(bomb, compresslevel=1)[:400_000],
        encoding="gzip",
        auto_decompress=auto_decompress,
    )
    assert answer.status == 413


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("damage", [slice(0, -30), slice(0, 12)])
async def test_a_gzip_stream_that_is_cut_off_is_refused(
    damage: slice, auto_decompress: bool, endpoint: OtlpEndpoints, sink: Sink
) -> None:
    answer = await post(
        endpoint,
        gzip.compress(RECORDED)[damage],
        encoding="gzip",
        auto_decompress=auto_decompress,
    )
    assert answer.status == 400
    assert sink.records == []


async def test_a_sink_that_cannot_keep_them_asks_for_them_again(
    endpoint: OtlpEndpoints, sink: Sink
) -> None:
    sink.is_full = True
    answer = await post(endpoint, RECORDED)
    assert (answer.status, answer.retry_after) == (503, "1")
    assert endpoint.receiver.counters["spans"].lost == 7
    sink.is_full = False
    assert (await post(endpoint, RECORDED)).status == 200
    counters = endpoint.receiver.counters["spans"]
    total = counters.accepted + counters.rejected + counters.passed_over + counters.lost
    assert counters.received == total == 14


async def test_live_spans_go_through_the_spool_into_the_lake_once(
    tmp_path: Path, lake: Lake
) -> None:
    with Spool(tmp_path / "spool") as spool:
        receiver = OtlpReceiver(
            partial(keep, spool), lambda: Source(workload="triage"), JoinBuffer(tmp_path / "spool")
        )
        for _ in range(2):  # as an exporter does that lost the answer
            assert (await post(OtlpEndpoints(receiver), RECORDED)).status == 200
    report = drain(tmp_path / "spool", lake)
    assert (report.interactions, report.duplicates) == (7, 7)


async def test_a_span_that_cannot_be_read_is_in_quarantine_once_and_counted(
    tmp_path: Path, lake: Lake
) -> None:
    body = json.dumps(rows.otlp(rows.GENAI, startTimeUnixNano="0")).encode()
    with Spool(tmp_path / "spool") as spool:
        receiver = OtlpReceiver(
            partial(keep, spool), lambda: Source(workload="triage"), JoinBuffer(tmp_path / "spool")
        )
        for _ in range(2):
            assert (await post(OtlpEndpoints(receiver), body, JSON)).status == 200
    report = drain(tmp_path / "spool", lake)
    assert (report.records, report.quarantined, report.duplicates) == (2, 1, 1)
    [row] = lake.fetch(QuarantineRecord, "SELECT * FROM quarantine")
    assert (row.source, row.reason) == ("otlp", "missing_timestamp")
    assert b"My knee hurts." in row.payload
    totals = read_status(tmp_path / "spool").totals
    assert (totals.adds_up, totals.drained) == (True, 2)


EVENTS = {
    "resourceLogs": [
        {
            "scopeLogs": [
                {
                    "logRecords": [
                        {
                            "traceId": rows.TRACE_ID,
                            "spanId": rows.SPAN_ID,
                            "eventName": "gen_ai.user.message",
                            "body": {
                                "kvlistValue": {"values": [rows.attribute("content", "Hello.")]}
                            },
                        },
                        {"eventName": "gen_ai.choice", "body": {"stringValue": "whose?"}},
                        {"body": {"stringValue": "GET / 200"}},
                    ]
                }
            ]
        }
    ]
}


@pytest.mark.parametrize("is_zipped", [True, False])
@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
async def test_log_records_arrive_in_either_encoding(
    kind: str, is_zipped: bool, endpoint: OtlpEndpoints, sink: Sink
) -> None:
    """Three: one of a span, one outside any, one that is no event of a model call."""
    body = json.dumps(EVENTS).encode()
    if kind == PROTOBUF:
        body = wire_logs().SerializeToString()
    data, encoding = (gzip.compress(body), "gzip") if is_zipped else (body, None)
    answer = await post(endpoint, data, kind, encoding=encoding, path="/v1/logs")
    assert (answer.status, answer.kind) == (200, kind)
    if kind == JSON:
        partial_success = answer.json["partialSuccess"]
        assert isinstance(partial_success, dict)
        assert partial_success["rejectedLogRecords"] == "1"
        assert "log_outside_span" in partial_success["errorMessage"]
    else:
        reply = ExportLogsServiceResponse.FromString(answer.body).partial_success
        assert (reply.rejected_log_records, "log_outside_span" in reply.error_message) == (1, True)
    assert endpoint.receiver.counters["logs"]._asdict() == {
        "received": 3,
        "accepted": 1,
        "rejected": 1,
        "passed_over": 1,
        "lost": 0,
    }
    [refused] = sink.records
    assert isinstance(refused, Refused) and b"whose?" in refused.payload


def wire_logs() -> ExportLogsServiceRequest:
    """The same in protobuf, two of them named as before log records had a field for it."""
    request = ExportLogsServiceRequest()
    found = request.resource_logs.add().scope_logs.add().log_records
    one = found.add(
        trace_id=bytes.fromhex(rows.TRACE_ID), span_id=bytes.fromhex(rows.SPAN_ID), time_unix_nano=5
    )
    one.attributes.add(key="event.name").value.string_value = "gen_ai.user.message"
    one.body.kvlist_value.values.add(key="content").value.string_value = "Hello."
    other = found.add(event_name="gen_ai.choice")
    other.body.string_value = "whose?"
    found.add().body.string_value = "GET / 200"
    return request


@pytest.mark.parametrize(
    ("body", "kind", "status", "told"),
    [
        (b"{", JSON, 400, "bad_json"),
        (b'{"resourceLogs": 3}', JSON, 400, "resourceLogs"),
        (b"\xff\xff\xff", PROTOBUF, 400, "bad_protobuf"),
        (b"x" * (LIMIT + 1), PROTOBUF, 413, "export smaller batches"),
        (b"x", "text/plain", 415, "valid: application/x-protobuf"),
    ],
)
async def test_log_records_that_cannot_be_taken_are_refused_with_a_sentence(
    body: bytes, kind: str, status: int, told: str, endpoint: OtlpEndpoints, sink: Sink
) -> None:
    answer = await post(endpoint, body, kind, path="/v1/logs")
    assert (answer.status, told.encode() in answer.body, sink.records) == (status, True, [])


async def test_a_gzip_bomb_of_log_records_is_stopped_while_it_unpacks(
    endpoint: OtlpEndpoints,
) -> None:
    bomb = gzip.compress(b"\x00" * (300 << 20), compresslevel=1)[:400_000]
    answer = await post(endpoint, bomb, encoding="gzip", path="/v1/logs")
    assert answer.status == 413


async def test_log_records_are_asked_for_again_while_they_cannot_be_kept(
    sink: Sink, tmp_path: Path
) -> None:
    buffer = JoinBuffer(tmp_path, max_bytes=0)
    endpoint = OtlpEndpoints(OtlpReceiver(sink, lambda: Source(workload="triage"), buffer))
    answer = await post(endpoint, wire_logs().SerializeToString(), path="/v1/logs")
    assert (answer.status, answer.retry_after) == (503, "1")
    assert b"at its cap" in answer.body
    assert endpoint.receiver.counters["logs"].lost == 2
