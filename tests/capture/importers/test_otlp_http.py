"""POST /v1/traces over a real socket."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from flywheel.capture import Spool, drain
from flywheel.capture.importers.otlp_http import JSON, PROTOBUF, TracesEndpoint
from flywheel.capture.importers.row import Source
from flywheel.lake import Lake
from flywheel.records import Assessment, Interaction
from tests.capture.importers import rows

DATA = Path(__file__).with_name("data")
RECORDED = (DATA / "openai_v2-2.4b0.pb").read_bytes()
LIMIT = 200_000


class Kept:
    """A sink that remembers, or refuses."""

    def __init__(self) -> None:
        self.records: list[Interaction | Assessment] = []
        self.is_full = False

    def __call__(self, records: Sequence[Interaction | Assessment]) -> bool:
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
    endpoint: TracesEndpoint,
    body: bytes,
    kind: str = PROTOBUF,
    *,
    encoding: str | None = None,
    auto_decompress: bool = True,
) -> Answer:
    app = web.Application()
    app.router.add_post("/v1/traces", endpoint.__call__)
    headers = {"content-type": kind} | ({"content-encoding": encoding} if encoding else {})
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(auto_decompress=auto_decompress)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(server.make_url("/v1/traces"), data=body, headers=headers) as reply,
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
def sink() -> Kept:
    return Kept()


@pytest.fixture
def endpoint(sink: Kept) -> TracesEndpoint:
    return TracesEndpoint(sink, lambda: Source(workload="triage"), max_bytes=LIMIT)


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("is_zipped", [True, False])
async def test_what_an_exporter_sent_arrives(
    endpoint: TracesEndpoint, sink: Kept, is_zipped: bool, auto_decompress: bool
) -> None:
    body = gzip.compress(RECORDED) if is_zipped else RECORDED
    encoding = "gzip" if is_zipped else None
    answer = await post(endpoint, body, encoding=encoding, auto_decompress=auto_decompress)
    assert (answer.status, answer.kind) == (200, PROTOBUF)
    assert not ExportTraceServiceResponse.FromString(answer.body).HasField("partial_success")
    assert len(sink.records) == 7
    assert endpoint.counters._asdict() == {
        "received": 7,
        "accepted": 7,
        "rejected": 0,
        "passed_over": 0,
        "lost": 0,
    }


async def test_json_is_answered_in_json(endpoint: TracesEndpoint, sink: Kept) -> None:
    answer = await post(endpoint, json.dumps(rows.OTLP).encode(), JSON + "; charset=utf-8")
    assert (answer.status, answer.kind, answer.json) == (200, JSON, {})
    [call] = sink.records
    assert isinstance(call, Interaction) and call.workload == "triage"


@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
async def test_a_span_that_cannot_be_read_is_a_partial_success(
    kind: str, endpoint: TracesEndpoint, sink: Kept
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
        assert len(sink.records) == 6
    assert endpoint.counters.rejected == 1


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
    endpoint: TracesEndpoint,
    sink: Kept,
) -> None:
    answer = await post(endpoint, body, kind, encoding=encoding)
    assert answer.status == status
    assert told.encode() in answer.body
    assert answer.kind == (kind if kind == PROTOBUF else JSON)
    assert sink.records == []


@pytest.mark.parametrize("auto_decompress", [True, False])
@pytest.mark.parametrize("bomb", [b"\x00" * (300 << 20), b'{"a":"' + b"x" * (300 << 20)])
async def test_a_gzip_bomb_is_stopped_while_it_unpacks(
    bomb: bytes, auto_decompress: bool, endpoint: TracesEndpoint
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
    damage: slice, auto_decompress: bool, endpoint: TracesEndpoint, sink: Kept
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
    endpoint: TracesEndpoint, sink: Kept
) -> None:
    sink.is_full = True
    answer = await post(endpoint, RECORDED)
    assert (answer.status, answer.retry_after) == (503, "1")
    assert endpoint.counters.lost == 7
    sink.is_full = False
    assert (await post(endpoint, RECORDED)).status == 200
    counters = endpoint.counters
    total = counters.accepted + counters.rejected + counters.passed_over + counters.lost
    assert counters.received == total == 14


async def test_live_spans_go_through_the_spool_into_the_lake_once(
    tmp_path: Path, lake: Lake
) -> None:
    with Spool(tmp_path / "spool") as spool:

        def keep(records: Sequence[Interaction | Assessment]) -> bool:
            return all(
                [
                    spool.append("interaction", record)
                    if isinstance(record, Interaction)
                    else spool.append("assessment", record)
                    for record in records
                ]
            )

        endpoint = TracesEndpoint(keep, lambda: Source(workload="triage"))
        for _ in range(2):  # as an exporter does that lost the answer
            assert (await post(endpoint, RECORDED)).status == 200
    report = drain(tmp_path / "spool", lake)
    assert (report.interactions, report.duplicates) == (7, 7)
