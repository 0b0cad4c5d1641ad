"""An instrumented OpenAI client: the same client, and every call in the lake."""

import gc
import gzip
import hmac
import logging
import threading
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from pydantic import BaseModel

from flywheel.capture import (
    Instrumentation,
    Spool,
    drain,
    instrument,
    last_interaction_id,
    uninstrument,
)
from flywheel.capture.folder import SpoolFolder
from flywheel.capture.sdk.seen import decoded
from flywheel.capture.segment import Damage, decode_header, read_frames
from flywheel.errors import ConfigError
from flywheel.lake import Lake
from flywheel.records import Exchange
from tests.capture.sdk_server import TOOL_CALL, WORDS, Provider

MESSAGES: Any = [{"role": "user", "content": "My knee hurts."}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.go_on.set()
    server.stop()


@pytest.fixture
def client(provider: Provider) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{provider.url}/v1", api_key="sk", max_retries=0) as made:
        yield made


@pytest.fixture
def watch(client: OpenAI, tmp_path: Path) -> Iterator[Instrumentation]:
    with instrument(client, workload="triage", spool=tmp_path / "spool") as handle:
        yield handle


Recorded = Callable[[], list[Exchange]]


@pytest.fixture
def recorded(watch: Instrumentation, tmp_path: Path) -> Recorded:
    """What is on disk once the handle is flushed."""
    return lambda: read_spool(watch, tmp_path / "spool")


def read_spool(handle: Instrumentation, folder: Path) -> list[Exchange]:
    assert handle.flush()
    found = []
    for path in SpoolFolder(folder).segments():
        data = path.read_bytes()
        for frame in read_frames(data, decode_header(data)[1]):
            assert not isinstance(frame, Damage)
            found.append(Exchange.model_validate_json(frame.payload))
    return found


def ask(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **options)


def test_a_call_ends_in_the_lake_as_the_gateway_would_have_put_it(
    client: OpenAI, watch: Instrumentation, tmp_path: Path
) -> None:
    ask(client, temperature=0, metadata={"conversation_id": "conv-1"})
    ask(client, stream=True, stream_options={"include_usage": True}).close()
    list(ask(client, stream=True, tools=TOOLS))
    ask(client, tools=TOOLS)
    lake = Lake(str(tmp_path / "lake"))
    report = drain(tmp_path / "spool", lake)
    assert (report.interactions, report.quarantined) == (4, 0)
    rows = lake.query(
        "SELECT conversation_id, response, status, input_tokens, output_tokens, source, provider,"
        " request_model, response_model, arm FROM interactions ORDER BY started_at"
    ).to_pylist()
    whole, closed, streamed_tool, tool = rows
    assert whole["conversation_id"] == "conv-1" and whole["status"] == "ok"
    assert (whole["input_tokens"], whole["output_tokens"]) == (9, 3)
    assert (whole["source"], whole["provider"], whole["arm"]) == ("sdk", "127.0.0.1", "baseline")
    assert (whole["request_model"], whole["response_model"]) == ("gpt-4o-mini", "gpt-4o-mini")
    assert closed["status"] == "cancelled"
    for row in (streamed_tool, tool):
        assert TOOL_CALL["function"]["arguments"].split('"')[3] in row["response"]  # type: ignore[index]
        assert row["status"] == "ok"


def test_the_client_gives_the_very_answers_it_gave_before(
    client: OpenAI, provider: Provider, tmp_path: Path
) -> None:
    before = ask(client), list(ask(client, stream=True))
    with instrument(client, workload="triage", spool=tmp_path / "spool"):
        assert isinstance(client, OpenAI) and type(client).__name__ == "OpenAI"
        after = ask(client), list(ask(client, stream=True))
    assert after == before and type(after[0]) is type(before[0])
    assert provider.requests[0] == provider.requests[2]
    left, right = provider.headers[0], provider.headers[2]
    assert {n: v for n, v in left.items() if not n.startswith("x-stainless")} == {
        n: v for n, v in right.items() if not n.startswith("x-stainless")
    }


def test_a_stream_is_read_by_its_reader_alone_and_as_it_comes(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.go_on.clear()
    stream = ask(client, stream=True)
    first = [next(stream), next(stream)]  # the server waits: nobody may read ahead
    assert first[1].choices[0].delta.content == WORDS[0] and recorded() == []
    provider.go_on.set()
    rest = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(filter(None, rest)) == "".join(WORDS[1:])
    (exchange,) = recorded()
    assert exchange.status == "ok" and exchange.streamed and exchange.http_status == 200
    assert exchange.response.endswith("data: [DONE]\n\n") and "❄" in exchange.response
    assert exchange.time_to_first_token_ms is not None
    assert exchange.time_to_first_token_ms <= exchange.duration_ms


def test_a_stream_that_is_closed_is_recorded_as_cancelled(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.go_on.clear()
    with ask(client, stream=True) as stream:
        next(stream)
    (exchange,) = recorded()
    assert (exchange.status, exchange.error_type) == ("cancelled", "client_disconnected")
    assert "assistant" in exchange.response and exchange.error_message is not None


def test_a_stream_whose_reader_raises_is_recorded_as_cancelled(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.go_on.clear()
    with pytest.raises(ZeroDivisionError), ask(client, stream=True) as stream:
        for _ in stream:
            raise ZeroDivisionError
    assert [exchange.status for exchange in recorded()] == ["cancelled"]


@pytest.mark.parametrize("chunks_read", [0, 1])
def test_a_stream_that_is_dropped_is_recorded_when_it_is_collected(
    client: OpenAI, provider: Provider, recorded: Recorded, chunks_read: int
) -> None:
    provider.go_on.clear()
    stream = ask(client, stream=True)
    for _ in range(chunks_read):
        next(stream)
    del stream
    gc.collect()
    assert [exchange.status for exchange in recorded()] == ["cancelled"]


def test_a_stream_that_breaks_raises_as_ever_and_is_recorded(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.breaks_after = 3
    with pytest.raises(openai.APIConnectionError):
        list(ask(client, stream=True))
    (exchange,) = recorded()
    assert (exchange.status, exchange.error_type) == ("error", "upstream_disconnected")
    assert WORDS[0] in exchange.response


def test_a_compressed_stream_is_recorded_in_plain(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.is_gzipped = True
    assert len(list(ask(client, stream=True))) == len(WORDS) + 3
    (exchange,) = recorded()
    assert exchange.response.startswith('data: {"id"') and exchange.tags == {}
    assert exchange.status == "ok"


def test_an_error_of_the_provider_raises_as_ever_and_each_try_is_recorded(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.statuses = [500, 503]
    with pytest.raises(openai.InternalServerError, match="not now"):
        ask(client)
    ask(client.with_options(max_retries=1))
    found = [(exchange.status, exchange.http_status) for exchange in recorded()]
    assert found == [("error", 500), ("error", 503), ("ok", 200)]


def test_a_provider_that_is_not_there_raises_as_ever_and_is_recorded(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    provider.stop()
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    (exchange,) = recorded()
    assert (exchange.status, exchange.error_type) == ("error", "upstream_unavailable")
    assert exchange.http_status is None and exchange.response == ""


class Triage(BaseModel):
    urgency: str


def test_raw_responses_parse_and_the_stream_helper_work_and_are_recorded(
    client: OpenAI, provider: Provider, recorded: Recorded
) -> None:
    create = client.chat.completions
    raw = create.with_raw_response.create(model="m", messages=MESSAGES)
    assert raw.parse().choices[0].message.content == "Rest it."
    assert raw.headers["x-flywheel-interaction-id"] == last_interaction_id()
    assert raw.http_response.elapsed.total_seconds() > 0
    with create.with_streaming_response.create(model="m", messages=MESSAGES) as response:
        assert b"Rest it." in b"".join(response.iter_bytes())
    with create.with_streaming_response.create(model="m", messages=MESSAGES) as response:
        assert response.status_code == 200  # and nobody reads it
    provider.content = '{"urgency": "soon"}'
    parsed = create.parse(model="m", messages=MESSAGES, response_format=Triage)
    assert parsed.choices[0].message.parsed == Triage(urgency="soon")
    with create.stream(model="m", messages=MESSAGES) as events:
        final = [event for event in events if event.type == "content.done"]
    assert final[0].content == "".join(WORDS)
    statuses = [exchange.status for exchange in recorded()]
    assert statuses == ["ok", "ok", "cancelled", "ok", "ok"]


def test_responses_and_embeddings_are_recorded_with_their_operation(
    client: OpenAI, recorded: Recorded
) -> None:
    assert client.responses.create(model="m", input="My knee.").output_text == "Rest it."
    events = [event.type for event in client.responses.create(model="m", input="x", stream=True)]
    assert events[-1] == "response.completed"
    with client.responses.stream(model="m", input="x") as stream:
        assert stream.get_final_response().output_text == "Rest it."
    assert client.embeddings.create(model="e", input="x").data[0].embedding
    assert client.models.list().data == []
    found = [(exchange.operation, exchange.status, exchange.streamed) for exchange in recorded()]
    assert found == [
        ("responses", "ok", False),
        ("responses", "ok", True),
        ("responses", "ok", True),
        ("embeddings", "ok", False),
    ]


def test_copies_are_recorded_too_and_twice_is_once(
    client: OpenAI, watch: Instrumentation, recorded: Recorded, tmp_path: Path
) -> None:
    assert instrument(client, workload="triage", spool=tmp_path / "other") is watch
    ask(client.with_options(timeout=5).copy(max_retries=1))
    assert instrument(client.copy(), workload="triage") is watch
    ask(client)
    assert len(recorded()) == 2 and not (tmp_path / "other").exists()


def test_an_uninstrumented_client_is_what_it_was_and_its_copies_are_silent(
    client: OpenAI, tmp_path: Path
) -> None:
    handle = instrument(client, workload="triage", spool=tmp_path / "spool")
    other = client.copy()
    uninstrument(client)
    uninstrument(client)
    assert type(client) is OpenAI and not any("flywheel" in name for name in vars(client))
    ask(client)
    ask(other)
    assert handle.counters.accepted == 0
    again = instrument(other, workload="triage", spool=tmp_path / "spool")
    ask(other)
    assert [e.workload for e in read_spool(again, tmp_path / "spool")] == ["triage"]
    again.close()


def test_two_clients_over_one_connection_pool_keep_their_workloads(
    provider: Provider, tmp_path: Path
) -> None:
    with openai.DefaultHttpxClient() as pool:
        clients = [
            OpenAI(base_url=f"{provider.url}/v1", api_key="sk", http_client=pool) for _ in range(3)
        ]
        handles = [
            instrument(one, workload=name, spool=tmp_path / "spool")
            for one, name in zip(clients, ("triage", "billing"), strict=False)
        ]
        for one in clients:
            ask(one)
        found = read_spool(handles[0], tmp_path / "spool")
        assert [exchange.workload for exchange in found] == ["triage", "billing"]
        for handle in handles:
            handle.close()


def test_a_person_is_kept_as_an_hmac_and_flywheels_headers_go_nowhere(
    client: OpenAI, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_SUBJECT_KEY_SECRET", "a-secret")
    headers = {"x-flywheel-user": "Ann", "x-flywheel-conversation-id": "conv-9"}
    headers["traceparent"] = f"00-{'a' * 32}-{'b' * 16}-01"
    with instrument(client, workload="triage", spool=tmp_path / "spool") as handle:
        ask(client, user="Bob")
        ask(client, extra_headers=headers)
        bob, ann = read_spool(handle, tmp_path / "spool")
    assert bob.subject_key == hmac.new(b"a-secret", b"Bob", sha256).hexdigest()
    assert "Bob" not in bob.request and provider.requests[0]["user"] == "Bob"
    assert ann.subject_key == hmac.new(b"a-secret", b"Ann", sha256).hexdigest()
    assert ann.conversation_id == "conv-9"
    assert (ann.trace_id, ann.parent_span_id) == ("a" * 32, "b" * 16)
    assert not any(name.startswith("x-flywheel") for name in provider.headers[1])


def test_conversation_and_subject_may_be_asked_for_at_each_call(
    client: OpenAI, tmp_path: Path
) -> None:
    turns = iter(["conv-1", "conv-2"])
    spool = Spool(tmp_path / "spool")
    with (
        spool,
        instrument(
            client, workload="t", spool=spool, conversation_id=lambda: next(turns), subject="Ann"
        ) as handle,
    ):
        ask(client)
        ask(client)
        found = read_spool(handle, tmp_path / "spool")
        assert handle.counters.spooled == handle.counters.accepted == 2
        assert spool.is_writable
    assert [exchange.conversation_id for exchange in found] == ["conv-1", "conv-2"]
    assert found[0].subject_key is None  # no secret, no key


def test_whatever_capture_trips_over_the_call_does_not_notice(
    client: OpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise RuntimeError("no conversation here")

    folder = tmp_path / "spool"
    with instrument(client, workload="t", spool=folder, conversation_id=broken) as handle:
        for _ in range(3):
            assert ask(client).choices[0].message.content == "Rest it."
            assert len(list(ask(client, stream=True))) == len(WORDS) + 3
        assert handle.counters.dropped == {"sdk_error": 6} and handle.counters.accepted == 6
    assert caplog.text.count("could not be captured") == 1


def test_a_spool_that_is_gone_costs_records_and_no_answer(
    client: OpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    with instrument(client, workload="t", spool=folder) as handle:
        folder.rmdir()
        folder.write_text("a file where the folder was")
        assert ask(client).choices[0].message.content == "Rest it."
        handle.flush()
        assert handle.counters.dropped == {"sdk_error": 1}
    assert caplog.text.count("could not be captured") == 1


def test_a_spool_that_cannot_be_written_to_is_told_at_once(client: OpenAI, tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written to"):
        instrument(client, workload="t", spool=tmp_path / "spool")
    assert type(client) is OpenAI


def test_what_is_no_client_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no client of openai"):
        instrument(object(), workload="t", spool=tmp_path / "spool")  # type: ignore[arg-type]


def test_answers_of_a_gateway_are_left_to_the_gateway(
    client: OpenAI, provider: Provider, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    provider.extra_headers = {"x-flywheel-interaction-id": "given-by-the-gateway"}
    with caplog.at_level(logging.WARNING):
        ask(client)
        list(ask(client, stream=True))
    assert recorded() == [] and last_interaction_id() == "given-by-the-gateway"
    assert caplog.text.count("come from a gateway") == 1


def test_the_last_interaction_is_the_one_feedback_refers_to(
    client: OpenAI, recorded: Recorded
) -> None:
    ask(client)
    (exchange,) = recorded()
    assert last_interaction_id() == exchange.interaction_id


def test_an_answer_beyond_the_limit_is_counted_and_not_kept(
    client: OpenAI, watch: Instrumentation, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flywheel.capture.sdk.seen.MAX_ANSWER_BYTES", 100)
    assert len(list(ask(client, stream=True))) == len(WORDS) + 3
    assert watch.flush() and watch.counters.dropped == {"too_large": 1}


def test_azure_and_a_client_of_the_older_httpx_are_recorded(
    provider: Provider, tmp_path: Path
) -> None:
    httpx = pytest.importorskip("httpx")
    azure = openai.AzureOpenAI(
        azure_endpoint=provider.url, azure_deployment="d", api_key="k", api_version="1"
    )
    with (
        azure,
        httpx.Client() as old,
        OpenAI(base_url=f"{provider.url}/v1", api_key="k", http_client=old) as client,
    ):
        found: list[Exchange] = []
        for one in (azure, client):
            with instrument(one, workload="t", spool=tmp_path / "spool") as handle:
                ask(one.with_options(max_retries=1))
                list(ask(one, stream=True))
                found = read_spool(handle, tmp_path / "spool")
        assert [exchange.status for exchange in found] == ["ok"] * 4


def test_threads_at_once_lose_nothing_and_the_counters_add_up(
    client: OpenAI, watch: Instrumentation, recorded: Recorded
) -> None:
    """Some close their streams, some drop them into cycles that a collector finds elsewhere."""

    def work() -> None:
        for number in range(8):
            ask(client)
            stream = ask(client, stream=True)
            if number % 2:
                next(stream)
                cycle: list[Any] = [stream]
                cycle.append(cycle)
            else:
                list(stream)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    found = recorded()
    assert len({exchange.interaction_id for exchange in found}) == len(found) == 96
    assert watch.counters.accepted == watch.counters.spooled == 96
    assert watch.counters.pending == 0 and watch.counters.dropped == {}


@given(st.binary(max_size=2000), st.sampled_from(["", "gzip", "deflate", "br", "odd"]), st.data())
def test_a_body_that_was_cut_off_is_decoded_as_far_as_it_came(
    body: bytes, encoding: str, data: st.DataObject
) -> None:
    packed = body
    if encoding in ("gzip", "deflate"):
        packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    cut = data.draw(st.integers(0, len(packed)))
    assert decoded(packed, encoding) == body or encoding == "br"
    assert body.startswith(decoded(packed[:cut], encoding)) or encoding == "br"
