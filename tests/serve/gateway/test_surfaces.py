"""OpenAI's other endpoints through the gateway, with the clients people use."""

import json
from typing import Any

import pytest
from aiohttp import web
from openai import AsyncOpenAI
from pydantic import BaseModel

from flywheel.serve.gateway.surface import CHAT, SURFACES
from tests.serve.gateway.harness import RunningGateway
from tests.serve.gateway.upstream import Script, ScriptedServer, answering, replying, send

HELLO: Any = [{"role": "user", "content": "My knee hurts."}]


class Triage(BaseModel):
    urgency: str


def sse(*events: dict[str, Any], names: bool = False) -> list[bytes]:
    return [
        (f"event: {event['type']}\n" if names else "").encode()
        + b"data: "
        + json.dumps(event).encode()
        + b"\n\n"
        for event in events
    ]


def streamed(events: list[bytes]) -> Script:
    async def script(server: ScriptedServer, request: web.Request, body: Any) -> web.StreamResponse:
        return await send(server, request, events)

    return script


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "base-model",
        "status": status,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": '{"urgency": "urgent"}', "annotations": []}
                ],
            },
        ],
        "usage": {
            "input_tokens": 7,
            "output_tokens": 5,
            "total_tokens": 12,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens_details": {"reasoning_tokens": 1},
        },
        **more,
    }


def test_a_text_completion_is_captured_as_a_conversation_of_one_turn(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    body = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "base-model",
        "choices": [
            {"index": 0, "text": " rest it.", "finish_reason": "stop", "logprobs": None},
            {"index": 1, "text": " cool it.", "finish_reason": "stop", "logprobs": None},
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10},
    }
    upstream.script = replying(json.dumps(body).encode())
    reply = gateway.openai.completions.create(model="triage", prompt="My knee hurts:", n=2)
    assert [choice.text for choice in reply.choices] == [" rest it.", " cool it."]
    [row] = gateway.interactions()
    assert upstream.seen[0].body["model"] == "base-model"
    assert (row.operation, row.input_tokens, row.output_tokens) == ("text_completion", 4, 6)
    assert [message.text for message in row.messages] == ["My knee hurts:"]
    assert row.response is not None
    assert (row.response.text, row.alternatives[0].text) == (" rest it.", " cool it.")
    assert row.request_params == {"n": 2}


def test_a_streamed_text_completion_is_put_together(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    choice = {"index": 0, "finish_reason": None, "logprobs": None}
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "base-model"}
    upstream.script = streamed(
        [
            *sse(
                {**chunk, "choices": [{**choice, "text": " rest"}]},
                {**chunk, "choices": [{**choice, "text": " it.", "finish_reason": "stop"}]},
            ),
            b"data: [DONE]\n\n",
        ]
    )
    stream = gateway.openai.completions.create(model="triage", prompt="Knee:", stream=True)
    assert "".join(part.choices[0].text for part in stream) == " rest it."
    [row] = gateway.interactions()
    assert row.response is not None
    assert (row.response.text, row.status, row.finish_reason) == (" rest it.", "ok", "stop")


def test_embeddings_are_captured_without_their_vectors(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = replying(
        json.dumps(
            {
                "object": "list",
                "model": "base-model",
                "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
                "usage": {"prompt_tokens": 3, "total_tokens": 3},
            }
        ).encode()
    )
    reply = gateway.openai.embeddings.create(
        model="triage", input=["knee", "hip"], encoding_format="float"
    )
    assert reply.data[0].embedding == [0.25, -0.5]
    [row] = gateway.interactions()
    assert (row.operation, row.status, row.response) == ("embeddings", "ok", None)
    assert [message.text for message in row.messages] == ["knee", "hip"]
    assert (row.input_tokens, row.output_tokens) == (3, None)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_response_is_captured_as_chat(
    gateway: RunningGateway, upstream: ScriptedServer, is_streamed: bool
) -> None:
    if is_streamed:
        begun = response("in_progress", output=[])
        delta = {"type": "response.output_text.delta", "delta": "{", "item_id": "msg_1"}
        where = {"output_index": 0, "content_index": 0, "logprobs": [], "sequence_number": 1}
        upstream.script = streamed(
            sse(
                {"type": "response.created", "response": begun, "sequence_number": 0},
                {**delta, **where},
                {"type": "response.completed", "response": response(), "sequence_number": 2},
                names=True,
            )
        )
    else:
        upstream.script = replying(json.dumps(response()).encode())
    given: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "My knee hurts."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "swollen"},
    ]
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    asked: dict[str, Any] = {"model": "triage", "input": given, "tools": [tool]}
    asked["instructions"] = "Be brief."
    if is_streamed:
        kinds = [e.type for e in gateway.openai.responses.create(**asked, stream=True)]
        assert kinds[-1] == "response.completed"
    else:
        reply = gateway.openai.responses.create(**asked)
        assert reply.output_text == '{"urgency": "urgent"}'
    [row] = gateway.interactions()
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "tool"]
    assert row.messages[1].text == "My knee hurts."
    calls = row.messages[2].tool_calls
    assert calls == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    ]
    assert row.tools is not None
    assert row.tools[0]["function"] == {"name": "look", "parameters": {"type": "object"}}
    assert row.response is not None
    assert row.response.text == '{"urgency": "urgent"}'
    assert (row.operation, row.status, row.finish_reason) == ("responses", "ok", "stop")
    assert (row.input_tokens, row.cached_input_tokens, row.reasoning_tokens) == (7, 2, 1)
    assert row.turn_index == 1


def test_a_response_that_broke_off_keeps_what_was_written(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = streamed(
        sse({"type": "response.output_text.delta", "delta": "Half"}, names=True)
    )
    list(gateway.openai.responses.create(model="triage", input="x", stream=True))
    [row] = gateway.interactions()
    assert row.response is not None
    assert (row.response.text, row.status, row.error_type) == ("Half", "error", "incomplete_stream")


def test_a_response_with_a_tool_call_is_a_tool_call(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    call = {"type": "function_call", "id": "f", "call_id": "c", "name": "n", "arguments": "{}"}
    upstream.script = replying(json.dumps(response(output=[call])).encode())
    gateway.openai.responses.create(model="triage", input="x")
    [row] = gateway.interactions()
    assert row.response is not None
    assert row.response.tool_calls is not None
    assert row.response.tool_calls[0]["id"] == "c"
    assert row.finish_reason == "tool_calls"


def test_parse_gives_an_object_through_the_gateway(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = answering('{"urgency": "urgent"}')
    reply = gateway.openai.chat.completions.parse(
        model="triage", messages=HELLO, response_format=Triage
    )
    assert reply.choices[0].message.parsed == Triage(urgency="urgent")
    upstream.script = replying(json.dumps(response()).encode())
    other = gateway.openai.responses.parse(model="triage", input="x", text_format=Triage)
    assert other.output_parsed == Triage(urgency="urgent")


async def test_the_asynchronous_client_streams_with_its_helper(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    upstream.script = answering("Rest it.")
    async with (
        AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(model="triage", messages=HELLO) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == "Rest it. "


def test_langchain_invokes_and_streams_through_the_gateway(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    chat = pytest.importorskip("langchain_openai", reason="langchain-openai is a dev extra")
    model = chat.ChatOpenAI(
        model="triage", base_url=f"{gateway.url}/v1", api_key="none", max_retries=0
    )
    upstream.script = answering("Rest it.")
    assert model.invoke("My knee hurts.").content == "Rest it."
    assert "".join(str(part.content) for part in model.stream("Again")).strip() == "Rest it."
    assert [row.status for row in gateway.interactions()] == ["ok", "ok"]


def test_images_and_unknown_fields_pass_untouched_both_ways(
    gateway: RunningGateway, upstream: ScriptedServer
) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "x": 1}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    messages: Any = [{"role": "user", "content": [part, sound]}]
    gateway.openai.chat.completions.create(
        model="triage",
        messages=messages,
        logprobs=True,
        extra_body={"guided_json": {"type": "object"}, "top_k": 3},
    )
    seen = upstream.seen[0].body
    assert seen["messages"] == messages
    assert (seen["guided_json"], seen["top_k"]) == ({"type": "object"}, 3)
    [row] = gateway.interactions()
    assert row.messages[0].content == [part, sound]
    assert row.request_params["top_k"] == 3


def test_one_model_is_looked_up(gateway: RunningGateway) -> None:
    assert gateway.openai.models.retrieve("triage").owned_by == "flywheel"


@pytest.mark.parametrize("cut", range(1, 40))
def test_the_end_of_a_stream_is_found_wherever_it_is_cut(cut: int) -> None:
    text = b'data: {"x": "data: [DONE]"}\n\ndata: [DONE]\n\n'
    end = CHAT.end_of_stream()
    found = [end.is_in(text[at : at + cut]) for at in range(0, len(text), cut)]
    first = found.index(True)
    assert b"\ndata: [DONE]" in text[: (first + 1) * cut]
    assert b"\ndata: [DONE]" not in text[: first * cut]


def test_a_responses_last_event_counts_only_when_it_is_whole() -> None:
    surface = next(one for one in SURFACES if one.operation == "responses")
    end = surface.end_of_stream()
    chunks = [b"event: x\ndata: {}\n\n", b"event: respon", b"se.completed\nda", b"ta: {}\n", b"\n"]
    assert [end.is_in(chunk) for chunk in chunks] == [False, False, False, False, True]
