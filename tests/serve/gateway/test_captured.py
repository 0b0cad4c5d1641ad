"""What the gateway keeps of a call, seen where it ends: in the lake."""

import hmac
import json
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from flywheel.capture import Spool, drain
from tests.capture.tiny_disk import fill
from tests.serve.gateway.harness import BASE, RunningGateway, eventually, workload
from tests.serve.gateway.upstream import (
    ScriptedServer,
    answering,
    chunk,
    hanging,
    replying,
    streaming,
)

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_person_is_kept_as_a_key_and_never_by_name(
    gateway: RunningGateway, upstream: ScriptedServer, tmp_path: Path
) -> None:
    client = gateway.openai.chat.completions
    client.create(model="triage", messages=HELLO, user="grace@example.org")
    client.create(model="triage", messages=HELLO, safety_identifier="grace@example.org")
    header = {"x-flywheel-user": "grace@example.org"}
    client.create(model="triage", messages=HELLO, extra_headers=header)
    expected = hmac.new(b"a-secret", b"grace@example.org", sha256).hexdigest()
    assert upstream.seen[0].body["user"] == "grace@example.org", "the model server still gets it"
    gateway.spool.seal()
    on_disk = b"".join(path.read_bytes() for path in gateway.spool_dir.glob("*.seg"))
    assert on_disk.count(expected.encode()) == 3
    assert b"grace" not in on_disk
    rows = gateway.interactions()
    assert [row.subject_key for row in rows] == [expected] * 3
    assert "grace" not in "".join(row.model_dump_json() for row in rows)


def test_without_a_secret_no_key_is_stored_either(tmp_path: Path, upstream: ScriptedServer) -> None:
    with RunningGateway(tmp_path, [upstream.url]) as gateway:
        gateway.openai.chat.completions.create(model="triage", messages=HELLO, user="grace")
        [row] = gateway.interactions()
    assert row.subject_key is None
    assert "grace" not in row.model_dump_json()


def test_a_conversation_is_named_by_header_or_metadata(gateway: RunningGateway) -> None:
    client = gateway.openai.chat.completions
    header = {"x-flywheel-conversation-id": "c-1"}
    client.create(model="triage", messages=HELLO, extra_headers=header)
    client.create(model="triage", messages=HELLO, metadata={"conversation_id": "c-2"})
    client.create(model="triage", messages=HELLO)
    rows = gateway.interactions()
    assert [row.conversation_id for row in rows[:2]] == ["c-1", "c-2"]
    assert rows[2].conversation_id == rows[2].interaction_id


def test_a_trace_is_continued(gateway: RunningGateway, upstream: ScriptedServer) -> None:
    parent = "b7ad6b7169203331"
    header = {"traceparent": f"00-{TRACE}-{parent}-01"}
    gateway.openai.chat.completions.create(model="triage", messages=HELLO, extra_headers=header)
    [row] = gateway.interactions()
    assert (row.trace_id, row.parent_span_id) == (TRACE, parent)
    assert upstream.seen[0].headers["traceparent"] == f"00-{TRACE}-{row.span_id}-01"


@pytest.mark.parametrize("broken", ["", "00-1-2-3", f"00-{'0' * 32}-{'1' * 16}-01", "ff" + TRACE])
def test_a_broken_trace_is_ignored(gateway: RunningGateway, broken: str) -> None:
    header = {"traceparent": broken}
    gateway.openai.chat.completions.create(model="triage", messages=HELLO, extra_headers=header)
    assert gateway.interactions()[0].trace_id is None


def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it_and_is_captured(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = streaming([chunk(f"{n} ", BASE) for n in range(1000)], pause_s=0.01)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    taken = [next(iter(stream)).choices[0].delta.content for _ in range(3)]
    stream.close()
    eventually(lambda: upstream.gone == 1)
    eventually(lambda: gateway.spool.counters.spooled == 1)
    [row] = gateway.interactions()
    assert (row.status, row.error_type) == ("cancelled", "client_disconnected")
    assert row.response is not None
    assert row.response.text.startswith("".join(str(part) for part in taken))
    assert gateway.gateway.metrics.requests["triage", "baseline", 499] == 1


async def test_a_client_that_leaves_before_the_answer_cancels_it_and_is_captured(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = hanging()
    timeout = aiohttp.ClientTimeout(total=0.5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with pytest.raises(TimeoutError):
            await session.post(
                f"{gateway.url}/v1/chat/completions", json={"model": "triage", "messages": HELLO}
            )
    eventually(lambda: upstream.gone == 1)
    eventually(lambda: gateway.spool.counters.spooled == 1)
    [row] = gateway.interactions()
    assert (row.status, row.response) == ("cancelled", None)
    assert gateway.gateway.metrics.in_flight == 0


def test_a_client_that_leaves_after_the_done_line_was_served(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """The OpenAI client stops reading there; a model server may keep the connection open."""
    last = chunk(None, BASE, "stop")
    upstream.script = streaming(
        [chunk("Rest", BASE), last + b"data: [DONE]\n\n", b": bye\n\n"] * 50
    )
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    assert len(list(stream)) == 2
    [row] = gateway.interactions()
    assert row.status == "ok"


def test_a_stream_that_speaks_of_done_is_not_done(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = streaming(
        [chunk("\ndata: [DONE]\n", BASE), chunk(" more", BASE, "stop"), b"data: [DONE]\n\n"],
        pause_s=0.02,
    )
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in stream)
    [row] = gateway.interactions()
    assert row.response is not None and row.response.text == text == "\ndata: [DONE]\n more"


def test_a_model_server_that_breaks_off_is_an_error_to_the_client_and_in_the_lake(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = streaming([chunk("Rest ", BASE)], pause_s=0.05, breaks=True)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="the model server broke off"):
        list(stream)
    [row] = gateway.interactions()
    assert (row.status, row.error_type) == ("error", "upstream_disconnected")
    assert row.response is not None and row.response.text == "Rest "


def test_a_model_server_that_is_too_slow_is_504_and_captured(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    upstream.script = hanging()
    impatient = workload(gateway={"providers": {"engine": {"first_byte_timeout_s": 0.2}}})
    with RunningGateway(tmp_path, [upstream.url], workloads=[impatient]) as gateway:
        with pytest.raises(openai.InternalServerError) as caught:
            gateway.openai.chat.completions.create(model="triage", messages=HELLO)
        [row] = gateway.interactions()
    assert caught.value.status_code == 504
    assert (row.status, row.error_type) == ("error", "upstream_timeout")


def test_everything_answered_before_a_drain_is_in_it(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """Also the stream whose [DONE] the client has only just read."""
    for count in range(1, 6):
        stream = gateway.openai.chat.completions.create(
            model="triage", messages=HELLO, stream=count % 2 == 0
        )
        if count % 2 == 0:
            list(stream)
        assert gateway.drain().interactions == 1


def test_a_share_of_conversations_is_captured_whole_with_its_probability(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    sampled = workload(capture={"sample": 0.3})
    with RunningGateway(tmp_path, [upstream.url], workloads=[sampled]) as gateway:
        for conversation in range(60):
            for _ in range(2):
                gateway.openai.chat.completions.create(
                    model="triage",
                    messages=HELLO,
                    metadata={"conversation_id": f"c-{conversation}"},
                )
        rows = gateway.interactions()
    kept = [row.conversation_id for row in rows]
    assert {kept.count(name) for name in kept} == {2}
    assert 5 < len(set(kept)) < 35
    assert {row.inclusion_prob for row in rows} == {0.3}


def test_a_workload_without_capture_is_served_and_not_kept(
    tmp_path: Path, upstream: ScriptedServer
) -> None:
    private = workload(capture={"enabled": False})
    with RunningGateway(tmp_path, [upstream.url], workloads=[private]) as gateway:
        gateway.openai.chat.completions.create(model="triage", messages=HELLO)
        assert gateway.spool.counters.accepted == 0


def test_with_the_spool_full_calls_are_answered_losses_counted_and_readiness_gone(
    tmp_path: Path, upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=2000)
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        for _ in range(8):
            gateway.openai.chat.completions.create(model="triage", messages=HELLO)
        counters = gateway.spool.counters
        assert counters.accepted == 8
        assert counters.dropped["spool_full"] >= 5
        assert "dropped a record: spool_full" in caplog.text
        lost = counters.dropped["spool_full"]
        assert f'flywheel_capture_dropped_total{{reason="spool_full"}} {lost}' in metrics(gateway)
        assert not gateway.gateway.is_ready
        gateway.drain()
        eventually(lambda: gateway.gateway.is_ready)


def test_with_the_disk_full_calls_are_answered_and_captured_once_there_is_room_again(
    tmp_path: Path, tiny_disk: Path, upstream: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tiny_disk / "spool", queue_bytes=10_000)
    with RunningGateway(tmp_path, [upstream.url], spool=spool) as gateway:
        ballast = fill(tiny_disk)
        for _ in range(40):
            gateway.openai.chat.completions.create(model="triage", messages=HELLO)
        eventually(lambda: not gateway.gateway.is_ready)
        counters = gateway.spool.counters
        assert counters.accepted == 40
        lost = sum(counters.dropped.values())
        assert lost > 0
        assert "No space left on device" in caplog.text
        ballast.unlink()
        eventually(lambda: gateway.gateway.is_ready)
        gateway.openai.chat.completions.create(model="triage", messages=HELLO)
        report = drain(spool.folder.path, gateway.lake)
        assert report.interactions == 41 - lost


def metrics(gateway: RunningGateway) -> list[str]:
    with urllib.request.urlopen(f"{gateway.url}/metrics") as reply:
        return str(reply.read().decode()).splitlines()


def test_metrics_count_calls_and_the_capture_counters_add_up(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    for _ in range(3):
        gateway.openai.chat.completions.create(model="triage", messages=HELLO)
    upstream.script = replying(json.dumps({"error": {"message": "no"}}).encode(), status=400)
    with pytest.raises(openai.BadRequestError):
        gateway.openai.chat.completions.create(model="triage", messages=HELLO)
    upstream.script = answering("Rest it.")
    list(gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True))
    gateway.spool.seal()
    page = dict(line.rsplit(" ", 1) for line in metrics(gateway) if not line.startswith("#"))
    labels = 'workload="triage",arm="baseline"'
    assert page[f'flywheel_gateway_requests_total{{{labels},code="200"}}'] == "4"
    assert page[f'flywheel_gateway_requests_total{{{labels},code="400"}}'] == "1"
    assert page['flywheel_gateway_request_duration_seconds_count{workload="triage"}'] == "5"
    assert page['flywheel_gateway_first_token_seconds_count{workload="triage"}'] == "1"
    assert page["flywheel_capture_accepted_total"] == page["flywheel_capture_spooled_total"] == "5"
    assert page["flywheel_gateway_ready"] == "1"
