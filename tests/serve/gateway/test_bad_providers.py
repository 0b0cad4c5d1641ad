"""Model servers that answer wrong, late or without end: a reason for the client, a row to keep."""

import gzip
import json
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from flywheel.records import Interaction
from flywheel.workload import Workload
from tests.serve.gateway.harness import RunningGateway, workload
from tests.serve.gateway.raw import RawReply, RawUpstream, Sent, request, saying, send
from tests.serve.gateway.upstream import DONE, ScriptedServer, chunk, completion, streaming

ASKING = b'{"model":"triage","messages":[{"role":"user","content":"My knee hurts."}]}'
STREAMING = ASKING[:-1] + b',"stream":true}'
JSON = b"Content-Type: application/json"
EVENTS = b"Content-Type: text/event-stream"
CHUNKED = b"Transfer-Encoding: chunked"
ANSWER = json.dumps(completion("Rest it.", "base-model")).encode()
STREAM = chunk("Rest", "base-model") + chunk(None, "base-model", "stop") + DONE


def impatient() -> list[Workload]:
    """One that gives its model server half a second."""
    engine = {"first_byte_timeout_s": 0.5, "read_timeout_s": 0.5, "retries": 0}
    return [workload(gateway={"providers": {"engine": engine}})]


def ask(
    home: Path, answer: Sent, body: bytes = ASKING, *, stays: bool = False
) -> tuple[RawReply, list[Interaction], RunningGateway]:
    """One call to a gateway before a server that sends these bytes; then the lake."""
    with (
        RawUpstream(lambda _: answer, stays=stays) as upstream,
        RunningGateway(home, [upstream.url], workloads=impatient()) as gateway,
    ):
        started = time.monotonic()
        reply = send(gateway.url, request(body))
        assert time.monotonic() - started < 5
        with urllib.request.urlopen(f"{gateway.url}/healthz", timeout=5) as healthy:
            assert healthy.status == 200
        rows = gateway.interactions()
        counters = gateway.spool.counters
        assert (counters.accepted, counters.spooled, counters.dropped) == (1, 1, {})
        assert len(rows) + len(gateway.quarantine()) == 1
        assert gateway.gateway.metrics.in_flight == 0
    return reply, rows, gateway


def endless_header() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-endless: "
    for _ in range(200):
        yield b"x" * 1000


def endless_headers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    for number in range(20_000):
        yield b"x-%d: y\r\n" % number


GONE: dict[str, bytes | Callable[[], Iterator[bytes]]] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "nothing": b"",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "endless header": endless_header,
    "endless headers": endless_headers,
    "length is no number": saying(ANSWER, JSON, b"Content-Length: x"),
    "two lengths": saying(ANSWER, JSON, b"Content-Length: 3"),
    "length too long": saying(ANSWER, JSON, length=len(ANSWER) + 10),
    "chunk is no number": saying(b"zz\r\n" + ANSWER, JSON, CHUNKED),
    "cut chunk": saying(b"ffff\r\n" + ANSWER, JSON, CHUNKED),
    "not gzip": saying(ANSWER, JSON, b"Content-Encoding: gzip"),
    "gzip bomb with a lie": saying(b"\x1f\x8b" + b"\xff" * 50, JSON, b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("name", GONE)
def test_an_answer_that_is_no_http_or_not_whole_is_502_and_captured(
    tmp_path: Path, name: str
) -> None:
    answer = GONE[name]
    reply, [row], _ = ask(tmp_path, answer() if callable(answer) else answer)
    assert reply.status in (502, 503)
    error = json.loads(reply.body)["error"]
    assert error["type"] == "upstream_error"
    assert len(reply.body) < 2000
    assert row.status == "error"
    assert row.error_type in ("upstream_disconnected", "upstream_unavailable")


def test_a_length_that_is_too_short_cuts_the_answer_and_the_next_call_is_answered(
    tmp_path: Path,
) -> None:
    """What is over must not be read as the head of the next answer (response splitting)."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    answer = saying(ANSWER + forged, JSON, length=len(ANSWER))
    with (
        RawUpstream(lambda _: answer, stays=True) as upstream,
        RunningGateway(tmp_path, [upstream.url], workloads=impatient()) as gateway,
    ):
        for _ in range(3):
            reply = send(gateway.url, request(ASKING))
            assert reply.status in (200, 502, 503)
            assert b"forged" not in reply.body
        assert len(gateway.interactions()) == 3


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html><body>Bad \xff gateway</body></html>", [b"Content-Type: text/html"]),
        (b"<html>", [JSON]),
        (ANSWER[:-20], [JSON]),
        (b"[" * 100_000, [JSON]),
        (b'{"choices":[{"message":{"role":"assistant","content":"\\ud800"}}]}', [JSON]),
        (b'{"choices":' + b"1" * 5000 + b"}", [JSON]),
        (b"null", [JSON]),
        (b"", [JSON]),
        (gzip.compress(b"garbage"), [JSON, b"Content-Encoding: gzip"]),
    ],
    ids=["HTML", "HTML as JSON", "cut", "deep", "surrogate", "digits", "null", "empty", "gzip"],
)
def test_a_body_that_is_no_completion_comes_back_as_it_is_and_is_kept(
    tmp_path: Path, body: bytes, headers: Sequence[bytes]
) -> None:
    """`ask` looks that it is one record: in the lake, or in quarantine with its reason."""
    reply, _, _ = ask(tmp_path, saying(body, *headers))
    assert reply.status == 200
    packed = b"Content-Encoding: gzip" in headers
    assert reply.body == (gzip.decompress(body) if packed else body)


@pytest.mark.parametrize(
    "headers",
    [
        [b"x-latin: caf\xe9"],
        [b"x-control: a\x01b"],
        [b"x-flywheel-interaction-id: forged", b"X-Flywheel-Arm: forged"],
        [b"Content-Type: caf\xe9/\xff"],
        [b"Set-Cookie: a=b\xff"],
        [b"Retry-After: \xff", b"x-ratelimit-reset: \xb2"],
    ],
    ids=["latin-1", "control", "ours", "content type", "cookie", "numbers"],
)
def test_a_header_that_is_no_text_is_left_out_and_ours_cannot_be_forged(
    tmp_path: Path, headers: Sequence[bytes]
) -> None:
    reply, [row], _ = ask(tmp_path, saying(ANSWER, *headers))
    assert b"forged" not in reply.head
    assert b"caf\xe9" not in reply.head
    if reply.status == 200:
        assert reply.body == ANSWER
        assert f"x-flywheel-interaction-id: {row.interaction_id}".encode() in reply.head.lower()
    else:
        assert reply.status == 502


@pytest.mark.parametrize("status", [b"503 \xff\xfe", b"429 a\x1b[31m", b"404 " + b"x" * 5000])
def test_a_reason_that_is_no_text_costs_no_record(tmp_path: Path, status: bytes) -> None:
    """Regression: it was stored as a lone surrogate, which no spool can write."""
    second = {"base_url": "http://127.0.0.1:9/v1", "retries": 0}
    engine = {"retries": 0}
    section = {
        "providers": {"engine": engine, "second": second},
        "routes": {"triage": {"targets": [{}, {"provider": "second", "model": "m"}]}},
    }
    with (
        RawUpstream(lambda _: saying(b"{}", JSON, status=status)) as upstream,
        RunningGateway(tmp_path, [upstream.url], workloads=[workload(gateway=section)]) as gateway,
    ):
        reply = send(gateway.url, request(ASKING))
        assert reply.status in (502, 503)
        assert len(reply.body) < 2000
        [row] = gateway.interactions()
        assert len(row.tags["attempts"]) == 2  # type: ignore[arg-type]
        assert gateway.spool.counters.dropped == {}


@pytest.mark.parametrize("status", [b"999 Odd", b"600 Odd", b"204 No Content", b"304 Same"])
def test_an_odd_status_is_passed_on_or_502(tmp_path: Path, status: bytes) -> None:
    reply, _, _ = ask(tmp_path, saying(b"", JSON, status=status))
    assert reply.status in (int(status[:3]), 502, 503)


CUT_STREAMS = {
    "in the middle": saying(b"40\r\n" + STREAM[:64] + b"\r\n", EVENTS, CHUNKED),
    "in a chunk": saying(b"fff\r\n" + STREAM[:64], EVENTS, CHUNKED),
    "by length": saying(STREAM[:64], EVENTS, length=len(STREAM)),
}


@pytest.mark.parametrize("answer", CUT_STREAMS.values(), ids=CUT_STREAMS)
def test_a_stream_that_breaks_off_says_so_in_the_stream(tmp_path: Path, answer: bytes) -> None:
    reply, [row], _ = ask(tmp_path, answer, STREAMING)
    assert reply.status == 200
    assert b"upstream_disconnected" in reply.body
    assert (row.status, row.error_type) == ("error", "upstream_disconnected")


def test_a_stream_that_just_ends_is_incomplete(tmp_path: Path) -> None:
    """Its HTTP is right, so that only the record can say that no finish_reason came."""
    _, [row], _ = ask(tmp_path, saying(chunk("Rest", "base-model"), EVENTS), STREAMING)
    assert (row.status, row.error_type) == ("error", "incomplete_stream")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\n", "upstream_timeout"),
        (saying(b"", EVENTS, CHUNKED), "upstream_timeout"),
        (saying(ANSWER[:20], JSON, length=len(ANSWER)), "upstream_disconnected"),
        (saying(b"40\r\n" + STREAM[:64] + b"\r\n", EVENTS, CHUNKED), "upstream_disconnected"),
    ],
    ids=["head", "first chunk", "whole", "stream"],
)
def test_a_server_that_falls_silent_is_given_up_after_its_timeout(
    tmp_path: Path, answer: bytes, kind: str
) -> None:
    """first_byte_timeout_s and read_timeout_s of the provider, here half a second each."""
    body = STREAMING if EVENTS in answer else ASKING
    reply, [row], gateway = ask(tmp_path, answer, body, stays=True)
    assert reply.status in (200, 502, 504)
    assert (row.status, row.error_type) == ("error", kind)
    assert gateway.gateway.metrics.upstream_failures[kind] == 1


@pytest.mark.parametrize("cut", range(1, 4))
def test_a_chunk_cut_within_a_character_arrives_and_is_stored_whole(
    gateway: RunningGateway, upstream: ScriptedServer, cut: int
) -> None:
    event = chunk("🦵", "base-model")
    at = event.index("🦵".encode()) + cut
    upstream.script = streaming([event[:at], event[at:], chunk(None, "m", "stop"), DONE])
    stream = gateway.openai.chat.completions.create(
        model="triage", messages=[{"role": "user", "content": "?"}], stream=True
    )
    assert "".join(one.choices[0].delta.content or "" for one in stream) == "🦵"
    [row] = gateway.interactions()
    assert row.response is not None and row.response.content == "🦵"


def test_events_of_ten_megabytes_pass_and_are_stored(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """The spool takes records up to its queue's size, 64 MiB; what is larger is counted."""
    event = chunk("é" * (5 << 20), "base-model")
    pieces = [event[at : at + (1 << 20)] for at in range(0, len(event), 1 << 20)]
    upstream.script = streaming([*pieces, chunk(None, "m", "stop"), DONE])
    reply = send(gateway.url, request(STREAMING), timeout_s=30)
    assert reply.status == 200
    assert len(reply.body) > 10 << 20
    [row] = gateway.interactions()
    assert row.response is not None and row.response.content == "é" * (5 << 20)
