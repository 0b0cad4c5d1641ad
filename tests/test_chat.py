"""OpenAIChatModel against a real server on loopback that answers what the test says."""

import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from flywheel.chat import OpenAIChatModel
from flywheel.errors import BadRequestError, UnknownModelError, UpstreamUnavailableError
from flywheel.records import JsonObject, Message

ASKED = [Message(role="system", content="Triage."), Message(role="user", content="My knee hurts.")]
GOOD: dict[str, object] = {
    "id": "chat-1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Rest it."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


@dataclass
class Scripted:
    """A server whose answers are given beforehand; the last one repeats."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)
    content_type: str = "application/json"
    requests: list[JsonObject] = field(default_factory=list)

    def say(self, *answers: tuple[int, object]) -> None:
        self.answers = [
            (status, body if isinstance(body, str) else json.dumps(body))
            for status, body in answers
        ]

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        status, body = self.answers[min(len(self.requests), len(self.answers)) - 1]
        # The client's own back-off would take seconds; a server may ask for less.
        headers = {"retry-after-ms": "1"}
        return web.Response(
            status=status, text=body, content_type=self.content_type, headers=headers
        )


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    scripted = Scripted("")
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", scripted.handle)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield scripted
    await runner.cleanup()


@pytest.fixture
async def chat(server: Scripted) -> AsyncIterator[OpenAIChatModel]:
    model = OpenAIChatModel(server.url, max_retries=2)
    yield model
    await model.close()


async def test_an_answer_comes_back_with_its_model_and_usage(
    server: Scripted, chat: OpenAIChatModel
) -> None:
    server.say((200, GOOD))
    answer = await chat.complete(ASKED, model="m", temperature=0.5, max_tokens=9, seed=3)
    assert (answer.text, answer.model, answer.finish_reason) == ("Rest it.", "m", "stop")
    assert (answer.input_tokens, answer.output_tokens) == (7, 3)
    assert server.requests == [
        {
            "model": "m",
            "messages": [message.model_dump() for message in ASKED],
            "temperature": 0.5,
            "max_tokens": 9,
            "seed": 3,
        }
    ]


async def test_no_seed_is_sent_when_none_is_given(server: Scripted, chat: OpenAIChatModel) -> None:
    server.say((200, GOOD))
    await chat.complete(ASKED, model="m")
    assert "seed" not in server.requests[0]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_server_that_cannot_now_is_asked_again(
    server: Scripted, chat: OpenAIChatModel, status: int
) -> None:
    server.say((status, {"error": {"message": "busy"}}), (200, GOOD))
    answer = await chat.complete(ASKED, model="m")
    assert answer.text == "Rest it."
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_never_can_is_unavailable_and_tells_its_status(
    server: Scripted, chat: OpenAIChatModel, status: int
) -> None:
    server.say((status, {"error": {"message": "too busy"}}))
    with pytest.raises(UpstreamUnavailableError, match="too busy") as caught:
        await chat.complete(ASKED, model="m")
    assert caught.value.status == status
    assert caught.value.url == server.url
    assert len(server.requests) == 3, "the first and two retries"


async def test_a_refused_request_is_not_asked_again(
    server: Scripted, chat: OpenAIChatModel
) -> None:
    error = {"message": "the prompt is longer than the context", "code": "context_length_exceeded"}
    server.say((400, {"error": error}))
    with pytest.raises(BadRequestError, match="longer than the context") as caught:
        await chat.complete(ASKED, model="m")
    assert caught.value.code == "context_length_exceeded"
    assert len(server.requests) == 1


async def test_a_model_that_is_not_served_is_named(server: Scripted, chat: OpenAIChatModel) -> None:
    server.say((404, {"error": {"message": "The model `ghost` does not exist.", "code": 404}}))
    with pytest.raises(UnknownModelError, match="ghost") as caught:
        await chat.complete(ASKED, model="ghost")
    assert caught.value.model == "ghost"


async def test_a_path_that_is_not_there_is_not_taken_for_a_missing_model(
    server: Scripted,
) -> None:
    chat = OpenAIChatModel(server.url + "/wrong", max_retries=0)
    with pytest.raises(BadRequestError, match="base URL") as caught:
        await chat.complete(ASKED, model="m")
    assert not isinstance(caught.value, UnknownModelError)
    await chat.close()


async def test_a_server_that_is_down_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    chat = OpenAIChatModel(url, max_retries=0)
    with pytest.raises(UpstreamUnavailableError, match=r"is not available: .*onnect"):
        await chat.complete(ASKED, model="m")
    await chat.close()


async def test_a_server_that_does_not_answer_in_time_is_unavailable() -> None:
    """The socket listens and nobody accepts: the connection stands, and no answer ever comes."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        chat = OpenAIChatModel(
            f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout_s=0.2, max_retries=0
        )
        with pytest.raises(UpstreamUnavailableError, match="timed out|imeout"):
            await chat.complete(ASKED, model="m")
        await chat.close()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("not json at all", id="not-json"),
        pytest.param("", id="empty"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="a-list"),
        pytest.param({"object": "chat.completion", "model": "m"}, id="no-choices"),
        pytest.param({**GOOD, "choices": []}, id="empty-choices"),
        pytest.param({**GOOD, "choices": None}, id="null-choices"),
        pytest.param({**GOOD, "choices": [{"index": 0}]}, id="no-message"),
        pytest.param({**GOOD, "choices": [{"index": 0, "message": "hi"}]}, id="message-is-text"),
        pytest.param({"error": {"message": "out of memory"}}, id="an-error-with-status-200"),
    ],
)
async def test_an_answer_that_is_no_completion_is_told_with_what_came(
    server: Scripted, chat: OpenAIChatModel, body: object
) -> None:
    server.say((200, body))
    with pytest.raises(UpstreamUnavailableError, match="not a chat completion"):
        await chat.complete(ASKED, model="m")


async def test_a_page_instead_of_json_is_told(server: Scripted, chat: OpenAIChatModel) -> None:
    server.content_type = "text/html"
    server.say((200, "<html>log in first</html>"))
    with pytest.raises(UpstreamUnavailableError, match=r"not a chat completion.*log in first"):
        await chat.complete(ASKED, model="m")


async def test_an_answer_without_text_is_empty_and_usage_may_be_missing(
    server: Scripted, chat: OpenAIChatModel
) -> None:
    """A model that only calls tools, or says nothing: content is null, and that is an answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None},
        "finish_reason": "stop",
    }
    server.say((200, {**GOOD, "choices": [choice], "usage": None}))
    answer = await chat.complete(ASKED, model="m")
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("", None, None)


async def test_only_what_a_message_carried_is_sent(server: Scripted, chat: OpenAIChatModel) -> None:
    """A null `tool_calls` that was not there before makes some servers refuse the request."""
    server.say((200, GOOD))
    await chat.complete([Message(role="user", content="Hi")], model="m")
    assert server.requests[0]["messages"] == [{"role": "user", "content": "Hi"}]
