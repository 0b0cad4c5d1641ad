"""Clients that are wrong, slow or ill-meaning: refused with a reason, and nobody else notices."""

import gzip
import json
import logging
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel.capture.importers import Source
from flywheel.capture.importers.live import JoinBuffer, OtlpReceiver
from flywheel.capture.importers.live.wire import OtlpEndpoints
from tests.serve.gateway.harness import TOKEN, RunningGateway, eventually
from tests.serve.gateway.raw import connect, parse, read_all, request, send
from tests.serve.gateway.upstream import ScriptedServer, hanging

ASKING = b'{"model":"triage","messages":[{"role":"user","content":"My knee hurts."}]}'
JUDGING = b'{"interaction_id":"i","name":"helpful","value":1}'
EMPTY_CHUNK = b"0\r\n\r\n"


@pytest.fixture
def impatient(tmp_path: Path, upstream: ScriptedServer) -> Iterator[RunningGateway]:
    timeouts: Any = {"header_timeout_s": 0.3, "body_timeout_s": 0.3}
    receiver = OtlpReceiver(
        lambda records: True, lambda: Source(workload="triage"), JoinBuffer(tmp_path)
    )
    telemetry = OtlpEndpoints(receiver)
    with RunningGateway(tmp_path, [upstream.url], telemetry=telemetry, **timeouts) as running:
        yield running


def error_of(body: bytes) -> dict[str, str]:
    error: dict[str, str] = json.loads(body)["error"]
    return error


def assert_serves(gateway: RunningGateway) -> None:
    """Another client is answered at once."""
    started = time.monotonic()
    with urllib.request.urlopen(f"{gateway.url}/v1/models", timeout=5) as reply:
        assert reply.status == 200
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
def test_a_body_over_the_limit_is_413_even_when_it_does_not_say_how_long_it_is(
    tmp_path: Path, upstream: ScriptedServer, path: str
) -> None:
    piece = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    chunked = request(piece * 30 + EMPTY_CHUNK, path, headers=[b"Transfer-Encoding: chunked"])
    bomb = gzip.compress(b"[" * (50 << 20))
    assert len(bomb) < 100_000
    packed = request(bomb, path, headers=[b"Content-Encoding: gzip"])
    with RunningGateway(tmp_path, [upstream.url], max_body_bytes=100_000) as gateway:
        for data in (chunked, packed):
            reply = send(gateway.url, data)
            assert (reply.status, error_of(reply.body)["code"]) == (413, "body_too_large")
            assert "100000" in error_of(reply.body)["message"]
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        (b"gzip", gzip.compress(ASKING), 200),
        (b"gzip", b"garbage", 400),
        (b"gzip", gzip.compress(ASKING)[:-20], 400),
        (b"deflate", b"\xff" * 50, 400),
        (b"no-such-thing", ASKING, 200),
    ],
    ids=["gzip", "garbage", "cut", "deflate", "unknown"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
def test_a_packed_body_is_unpacked_or_refused(
    gateway: RunningGateway, path: str, encoding: bytes, body: bytes, status: int
) -> None:
    """Regression: what could not be unpacked was a 500."""
    reply = send(gateway.url, request(body, path, headers=[b"Content-Encoding: " + encoding]))
    assert reply.status == (422 if path == "/v1/feedback" and status == 200 else status)


def test_a_head_that_does_not_come_closes_the_connection_and_nobody_else_waits(
    impatient: RunningGateway,
) -> None:
    """header_timeout_s, for the first request of a connection and for a further one."""
    silent, slow, later = (connect(impatient.url) for _ in range(3))
    with silent, slow, later:
        slow.sendall(b"GET /v1/models HTTP/1.1\r\nHost: ")
        later.sendall(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert parse(later.recv(4096)).status == 200
        later.sendall(b"GET /heal")
        assert_serves(impatient)
        started = time.monotonic()
        assert [read_all(sock) for sock in (silent, slow, later)] == [b"", b"", b""]
        assert time.monotonic() - started < 3


def test_dripping_bytes_into_a_head_does_not_keep_it_open(impatient: RunningGateway) -> None:
    with connect(impatient.url) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        deadline = time.monotonic() + 5
        with pytest.raises(OSError, match=r"reset|pipe"):
            while time.monotonic() < deadline:
                sock.sendall(b"x-a: b\r\n")
                time.sleep(0.05)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/v1/feedback", "/v1/traces", "/v1/logs"]
)
def test_a_body_that_does_not_come_is_408_and_nobody_else_waits(
    impatient: RunningGateway, upstream: ScriptedServer, path: str
) -> None:
    json_ = b"Content-Type: application/json"
    cut = request(ASKING, path, headers=[json_])[:-10]
    unended = request(b"5\r\nabc", path, headers=[json_, b"Transfer-Encoding: chunked"])
    for data in (cut, unended):
        with connect(impatient.url) as sock:
            sock.sendall(data)
            assert_serves(impatient)
            reply = parse(sock.recv(4096))
            assert (reply.status, error_of(reply.body)["code"]) == (408, "body_timeout")
    assert upstream.seen == []


@pytest.mark.parametrize(
    "line",
    [
        b"x-flywheel-conversation-id: a\rx-evil: b",
        b"x-flywheel-conversation-id: a\r\n x-evil: b",
        b"x-flywheel-conversation-id: a\0x-evil",
        b"x-flywheel-user: a\x01x-evil",
        b"x-flywheel-interaction-id : x-evil",
        b"x other: x-evil",
    ],
    ids=["CR", "folded", "NUL", "control", "space before colon", "space in name"],
)
def test_a_header_that_is_none_is_refused_without_being_quoted_or_logged(
    gateway: RunningGateway,
    upstream: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
    line: bytes,
) -> None:
    """Regression: aiohttp's own reply quoted it, and a traceback was logged for each."""
    reply = send(gateway.url, request(ASKING, headers=[line]))
    assert (reply.status, error_of(reply.body)["code"]) == (400, "invalid_http")
    assert b"evil" not in reply.head + reply.body
    assert upstream.seen == []
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("name", [b"x-flywheel-conversation-id", b"x-flywheel-user", b"x-other"])
def test_a_header_that_is_not_utf8_costs_neither_the_call_nor_its_record(
    gateway: RunningGateway, upstream: ScriptedServer, name: bytes
) -> None:
    """Regression: the first lost the record, the second was a 500."""
    reply = send(gateway.url, request(ASKING, headers=[name + b": jalape\xf1o"]))
    assert reply.status == 200
    assert name.decode() not in upstream.seen[0].headers
    assert b"jalape" not in reply.head
    [row] = gateway.interactions()
    assert row.conversation_id == row.interaction_id or name != b"x-flywheel-conversation-id"
    assert (row.subject_key is not None) == (name == b"x-flywheel-user")


def test_what_the_body_says_never_becomes_a_header(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    body = {
        "model": "triage",
        "messages": [],
        "user": "a\r\nx-evil: 1",
        "metadata": {"conversation_id": "a\r\nx-evil: 1\0"},
    }
    reply = send(gateway.url, request(json.dumps(body).encode()))
    assert reply.status == 200
    assert b"evil" not in reply.head
    assert not any("evil" in name + value for name, value in upstream.seen[0].headers.items())
    assert gateway.interactions()[0].conversation_id == "a\r\nx-evil: 1\0"
    unknown = send(gateway.url, request(b'{"model":"a\\r\\nx-evil: 1"}'))
    assert unknown.status == 404
    assert b"evil" not in unknown.head


BOMBS = {
    "deep": b'{"model":"triage","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"model":"triage","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "digits": b'{"model":"triage","x":' + b"1" * (10 << 20) + b"}",
    "exponent": b'{"model":"triage","x":[{"y":1e999}]}',
    "negative exponent": b'{"model":"triage","x":-1E+999999999}',
    "lone surrogate": b'{"model":"triage","x":"\\ud800"}',
    "lone surrogate name": b'{"model":"triage","\\udfff":1}',
    "not UTF-8": b'{"model":"triage","x":"\xff"}',
    "overlong UTF-8": b'{"model":"triage","x":"\xc0\x80"}',
    "UTF-16": '{"model":"triage"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"model":"triage"}',
    "two documents": b'{"model":"triage"}{}',
    "NaN": b'{"model":"triage","x":NaN}',
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/feedback"])
def test_json_that_is_none_or_cannot_be_sent_on_is_refused_fast(
    gateway: RunningGateway, upstream: ScriptedServer, body: bytes, path: str
) -> None:
    """Regression: 1e999 was sent on as `Infinity`, which no model server can read."""
    started = time.monotonic()
    reply = send(gateway.url, request(body, path))
    assert time.monotonic() - started < 5
    assert reply.status in ((400, 422) if path == "/v1/feedback" else (400,))
    assert len(reply.body) < 2000
    assert upstream.seen == []
    assert gateway.spool.counters.accepted == 0


def test_numbers_that_only_look_too_large_are_sent_on(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    reply = send(gateway.url, request(b'{"model":"triage","x":["Infinity 1e999",1e-999,0e999]}'))
    assert reply.status == 200
    assert upstream.seen[0].body["x"] == ["Infinity 1e999", 0.0, 0.0]


def test_of_a_field_that_comes_twice_the_last_is_meant_by_everybody(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """A check before the gateway and the model server behind it must not read different ones."""
    reply = send(gateway.url, request(b'{"model":"other","model":"triage","x":1,"x":2}'))
    assert reply.status == 200
    assert upstream.seen[0].raw.count(b'"x"') == 1
    assert upstream.seen[0].body["x"] == 2


def test_a_model_of_a_megabyte_is_not_said_back(gateway: RunningGateway) -> None:
    reply = send(gateway.url, request(b'{"model":"' + b"m" * (1 << 20) + b'"}'))
    assert reply.status == 404
    assert len(reply.body) < 500


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 4000])
def test_feedback_that_is_no_number_is_422(gateway: RunningGateway, value: bytes) -> None:
    body = b'{"interaction_id":"i","name":"helpful","value":' + value + b"}"
    reply = send(gateway.url, request(body, "/v1/feedback"))
    assert reply.status == 422
    assert "finite" in error_of(reply.body)["message"]
    assert gateway.spool.counters.accepted == 0


def test_feedback_with_a_thousand_mistakes_gets_a_short_answer(gateway: RunningGateway) -> None:
    fields = {f"{'x' * 1000}{number}": 1 for number in range(1000)}
    body = json.dumps({"interaction_id": "i", "name": "n", "value": 1, **fields}).encode()
    reply = send(gateway.url, request(body, "/v1/feedback"))
    assert reply.status == 422
    assert "and 990 more" in error_of(reply.body)["message"]
    assert len(reply.body) < 20_000


def test_the_admin_port_says_no_as_politely(gateway: RunningGateway) -> None:
    token = b"Authorization: Bearer " + TOKEN.encode()
    large = b'{"workload":"' + b"w" * (2 << 20) + b'"}'
    for body, header, status in (
        (b"garbage", b"Content-Encoding: gzip", 400),
        (large, b"X-Other: 1", 413),
        (b"\xff", b"X-Other: 1", 422),
        (b"[" * 100_000, b"X-Other: 1", 422),
    ):
        reply = send(gateway.admin_url, request(body, "/admin/releases", headers=[token, header]))
        assert reply.status == status
        assert len(reply.body) < 3000
        assert error_of(reply.body)["type"] == "invalid_request_error"
    refused = send(gateway.admin_url, request(b"", headers=[b"Authorization: Bearer \xff"]))
    assert refused.status == 401


def test_a_client_that_closes_its_side_is_taken_for_gone(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """Declared: a half-closed connection cannot be told from one whose client went away."""
    upstream.script = hanging()
    with connect(gateway.url) as sock:
        sock.sendall(request(ASKING))
        eventually(lambda: len(upstream.seen) == 1)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    eventually(lambda: upstream.gone == 1)
    [row] = gateway.interactions()
    assert (row.status, row.error_type) == ("cancelled", "client_disconnected")


@pytest.mark.parametrize(
    "line",
    [
        b"POST /v1/%FF%00%0D%0Ax-evil:%201 HTTP/1.1",
        b"GET /v1/models/%FF%00%0D%0Ax-evil:%201 HTTP/1.1",
        b"OPTIONS /v1/models HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1",
    ],
)
def test_a_strange_path_or_method_is_404_in_the_same_shape(
    gateway: RunningGateway, line: bytes
) -> None:
    """Regression: with %0A in it, it was aiohttp's page."""
    reply = send(gateway.url, line + b"\r\nHost: gateway\r\nConnection: close\r\n\r\n")
    assert reply.status == 404
    assert error_of(reply.body)["code"] == "not_found"
    assert b"evil" not in reply.head


def test_what_is_refused_is_counted_and_what_is_taken_is_captured(gateway: RunningGateway) -> None:
    for data in (request(ASKING), request(b"{"), request(JUDGING, "/v1/feedback")):
        send(gateway.url, data)
    metrics = gateway.gateway.metrics
    assert metrics.in_flight == 0
    assert (sum(metrics.requests.values()), metrics.refused[400]) == (1, 1)
    assert metrics.feedback[202] == 1
    assert gateway.spool.counters.accepted == 2
