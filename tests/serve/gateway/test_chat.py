import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, RateLimitError

from tests.serve.gateway.harness import BASE, RunningGateway, release, workload
from tests.serve.gateway.raw import connect, request
from tests.serve.gateway.upstream import (
    DONE,
    ScriptedServer,
    answering,
    chunk,
    replying,
    streaming,
)

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A request below the OpenAI client, which would not send these."""
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, dict(reply.headers), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_alias_reaches_the_model_server_as_the_base_model_before_any_release(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    reply = gateway.openai.chat.completions.with_raw_response.create(model="triage", messages=HELLO)
    assert reply.parse().choices[0].message.content == "Rest it."
    assert upstream.seen[0].body == {"model": BASE, "messages": HELLO}
    assert reply.headers["x-flywheel-adapter"] == "none"
    assert reply.headers["x-flywheel-arm"] == "baseline"


def test_the_alias_reaches_the_model_server_as_the_released_adapter(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    gateway.gateway.routes.apply(release(1, "triage-abc"))
    reply = gateway.openai.chat.completions.with_raw_response.create(model="triage", messages=HELLO)
    assert upstream.seen[0].body["model"] == "triage-abc"
    assert reply.headers["x-flywheel-adapter"] == "triage-abc"
    assert reply.headers["x-flywheel-arm"] == "champion"
    [row] = gateway.interactions()
    assert row.interaction_id == reply.headers["x-flywheel-interaction-id"]
    assert (row.request_model, row.response_model) == ("triage", "triage-abc")
    assert (row.adapter, row.arm) == ("triage-abc", "champion")


def test_only_the_model_is_changed_on_the_way(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    body = {
        "model": "triage",
        "messages": [{"role": "user", "content": [{"type": "image_url", "é": "\u2028"}]}],
        "logit_bias": {"50256": -100},
        "temperature": 0.1,
        "unknown": [None, 12345678901234567890, 1e-9],
        "metadata": {"model": "triage"},
    }
    post(f"{gateway.url}/v1/chat/completions", json.dumps(body).encode(), **{"X-Trace": "kept"})
    seen = upstream.seen[0]
    assert seen.body == {**body, "model": BASE}
    assert list(seen.body) == list(body)
    assert seen.headers["x-trace"] == "kept"


def test_headers_of_this_hop_and_of_flywheel_do_not_travel_on(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    gateway.openai.chat.completions.create(
        model="triage",
        messages=HELLO,
        extra_headers={"x-flywheel-user": "grace", "Cookie": "a=b", "Accept-Encoding": "gzip"},
    )
    headers = upstream.seen[0].headers
    assert not [name for name in headers if name.startswith("x-flywheel")]
    assert "cookie" not in headers
    assert headers["accept-encoding"] == "identity"
    assert headers["authorization"] == "Bearer none"


def test_a_stream_arrives_chunk_by_chunk_and_is_captured_whole(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = answering("Rest it for two days.", delay_s=0.02)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    assert stream.response.headers["x-flywheel-interaction-id"]
    assert stream.response.headers["x-flywheel-arm"] == "baseline"
    parts = [part.choices[0].delta.content for part in stream]
    assert parts == ["Rest ", "it ", "for ", "two ", "days. ", None]
    [row] = gateway.interactions()
    assert row.response is not None
    assert row.response.text == "Rest it for two days. "
    assert (row.status, row.finish_reason) == ("ok", "stop")
    assert row.time_to_first_token_ms is not None and row.duration_ms is not None
    assert 20 <= row.time_to_first_token_ms < row.duration_ms


def test_a_chunk_is_not_held_back(gateway: RunningGateway, upstream: ScriptedServer) -> None:
    """The second chunk comes after ten seconds: the first must be here long before."""
    upstream.script = streaming([chunk("now", BASE), chunk("later", BASE)], pause_s=10)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    assert next(iter(stream)).choices[0].delta.content == "now"
    stream.close()


def test_a_character_split_between_chunks_arrives_and_is_captured_whole(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    data = chunk("größer", BASE) + chunk(None, BASE, "stop") + b"data: [DONE]\n\n"
    cut = data.index("ö".encode()) + 1
    upstream.script = streaming([data[:cut], data[cut:-5], data[-5:]], pause_s=0.02)
    stream = gateway.openai.chat.completions.create(model="triage", messages=HELLO, stream=True)
    assert [part.choices[0].delta.content for part in stream] == ["größer", None]
    [row] = gateway.interactions()
    assert row.response is not None and row.response.text == "größer"


async def test_the_asynchronous_client_streams_and_calls_at_once(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    import asyncio

    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:

        async def whole() -> str | None:
            reply = await client.chat.completions.create(model="triage", messages=HELLO)
            return reply.choices[0].message.content

        async def streamed() -> str:
            stream = await client.chat.completions.create(
                model="triage", messages=HELLO, stream=True
            )
            return "".join([part.choices[0].delta.content or "" async for part in stream])

        answers = await asyncio.gather(
            *[whole() for _ in range(20)], *[streamed() for _ in range(20)]
        )
    assert answers == ["Rest it."] * 20 + ["Rest it. "] * 20
    rows = await asyncio.to_thread(gateway.interactions)
    assert len({row.interaction_id for row in rows}) == 40
    assert {row.status for row in rows} == {"ok"}


def test_tool_calls_travel_both_ways(gateway: RunningGateway, upstream: ScriptedServer) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    upstream.script = replying(json.dumps({"model": "m", "choices": [choice]}).encode())
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    reply = gateway.openai.chat.completions.create(model="triage", messages=HELLO, tools=tools)
    assert reply.choices[0].message.tool_calls is not None
    assert reply.choices[0].message.tool_calls[0].id == "a"
    [row] = gateway.interactions()
    assert row.tools == tuple(tools)
    assert row.response is not None and row.response.tool_calls == [call]


@pytest.mark.parametrize(
    ("status", "kind"), [(400, BadRequestError), (429, RateLimitError), (500, APIStatusError)]
)
def test_an_error_of_the_model_server_comes_back_as_it_sent_it(
    gateway: RunningGateway, upstream: ScriptedServer, status: int, kind: type[APIStatusError]
) -> None:
    body = {"error": {"message": "prompt too long", "type": "bad", "param": None, "code": "x"}}
    upstream.script = replying(json.dumps(body).encode(), status=status)
    with pytest.raises(kind) as caught:
        gateway.openai.chat.completions.create(model="triage", messages=HELLO)
    assert caught.value.status_code == status
    assert caught.value.body == body["error"]
    assert caught.value.response.headers["x-flywheel-interaction-id"]
    [row] = gateway.interactions()
    assert (row.status, row.error_type, row.error_message) == ("error", "bad", "prompt too long")


def test_a_page_of_html_is_passed_on_and_kept_in_quarantine(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = replying(b"<html>\xff</html>", content_type="text/html")
    url = f"{gateway.url}/v1/chat/completions"
    status, headers, body = post(url, b'{"model":"triage","messages":[]}')
    assert (status, body) == (200, b"<html>\xff</html>")
    assert headers["Content-Type"] == "text/html"
    [kept] = gateway.quarantine()
    assert kept.reason == "bad_response"


def test_an_unknown_model_is_404_and_names_the_ones_there_are(gateway: RunningGateway) -> None:
    with pytest.raises(NotFoundError) as caught:
        gateway.openai.chat.completions.create(model="gpt-9", messages=HELLO)
    assert "model 'gpt-9' is not served here; served: triage" in str(caught.value)
    assert caught.value.code == "model_not_found"
    assert caught.value.response.headers["x-flywheel-interaction-id"]
    assert caught.value.response.headers["x-flywheel-arm"] == "none"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the body is not JSON"),
        (b'{"model":"triage",', "the body is not JSON"),
        (b'{"model":"triage","t":NaN}', "the body is not JSON"),
        (b'{"model":"\xff"}', "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'["triage"]', "the body must be a JSON object"),
        (b"{}", "`model` is required"),
        (b'{"model":7}', "`model` is required"),
    ],
    ids=["empty", "cut", "NaN", "not UTF-8", "deep", "list", "no model", "number"],
)
def test_a_body_that_is_no_request_is_400_and_says_why(
    gateway: RunningGateway, upstream: ScriptedServer, body: bytes, sentence: str
) -> None:
    status, headers, reply = post(f"{gateway.url}/v1/chat/completions", body)
    assert status == 400
    assert sentence in json.loads(reply)["error"]["message"]
    assert headers["x-flywheel-interaction-id"]
    assert upstream.seen == []


def test_a_body_over_the_limit_is_413(tmp_path: Path, upstream: ScriptedServer) -> None:
    with RunningGateway(tmp_path, [upstream.url], max_body_bytes=1000) as gateway:
        body = json.dumps({"model": "triage", "messages": [], "x": "y" * 2000}).encode()
        status, _, reply = post(f"{gateway.url}/v1/chat/completions", body)
        assert status == 413
        assert "1000" in json.loads(reply)["error"]["message"]
        status, _, _ = post(f"{gateway.url}/v1/feedback", body)
        assert status == 413


def test_models_lists_the_aliases(tmp_path: Path, upstream: ScriptedServer) -> None:
    both = [workload("triage"), workload("coding")]
    with RunningGateway(tmp_path, [upstream.url], workloads=both) as gateway:
        assert [model.id for model in gateway.openai.models.list()] == ["coding", "triage"]


def test_another_path_is_404_in_the_same_shape(gateway: RunningGateway) -> None:
    with pytest.raises(NotFoundError, match="POST /v1/moderations is not served"):
        gateway.openai.moderations.create(model="triage", input="x")


def test_the_head_of_a_stream_leaves_with_its_first_chunk_and_its_end_with_the_last(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    """A head alone would wake the client before there is anything to read."""
    upstream.script = streaming([chunk("Rest ", BASE), DONE], pause_s=0.2)
    body = json.dumps({"model": "triage", "stream": True, "messages": HELLO}).encode()
    with connect(gateway.url) as sock:
        sock.sendall(request(body))
        pieces = []
        while piece := sock.recv(1 << 16):
            pieces.append(piece)
    assert pieces[0].startswith(b"HTTP/1.1 200") and b"data: " in pieces[0]
    assert pieces[-1].endswith(b"0\r\n\r\n")
    assert b"[DONE]" in b"".join(pieces)
