"""An instrumented AsyncOpenAI client."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from flywheel.capture import Instrumentation, instrument, last_interaction_id
from flywheel.records import Exchange
from tests.capture.sdk_server import TOOL_CALL, WORDS, Provider
from tests.capture.test_sdk import MESSAGES, TOOLS, read_spool


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider().start()
    yield server
    server.go_on.set()
    server.stop()


@pytest.fixture
async def client(provider: Provider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="sk", max_retries=0) as made:
        yield made


@pytest.fixture
def watch(client: AsyncOpenAI, tmp_path: Path) -> Iterator[Instrumentation]:
    with instrument(client, workload="triage", spool=tmp_path / "spool") as handle:
        yield handle


async def recorded(watch: Instrumentation, tmp_path: Path) -> list[Exchange]:
    """In a thread: waiting for the disk must not stop the loop that serves nobody meanwhile."""
    return await asyncio.to_thread(read_spool, watch, tmp_path / "spool")


async def ask(client: AsyncOpenAI, **options: Any) -> Any:
    return await client.chat.completions.create(model="m", messages=MESSAGES, **options)


async def test_calls_streams_and_tools_are_recorded(
    client: AsyncOpenAI, watch: Instrumentation, tmp_path: Path
) -> None:
    whole = await ask(client)
    assert whole.choices[0].message.content == "Rest it."
    words = [c.choices[0].delta.content async for c in await ask(client, stream=True) if c.choices]
    assert "".join(filter(None, words)) == "".join(WORDS)
    tool = await ask(client, tools=TOOLS)
    assert tool.choices[0].message.tool_calls[0].id == TOOL_CALL["id"]
    found = await recorded(watch, tmp_path)
    assert [(e.status, e.streamed) for e in found] == [("ok", False), ("ok", True), ("ok", False)]
    assert found[1].response.endswith("data: [DONE]\n\n")


async def test_a_stream_comes_as_it_comes(
    client: AsyncOpenAI, provider: Provider, watch: Instrumentation, tmp_path: Path
) -> None:
    provider.go_on.clear()
    stream = await ask(client, stream=True)
    await anext(stream)
    second = await anext(stream)
    assert second.choices[0].delta.content == WORDS[0]
    assert await recorded(watch, tmp_path) == []
    provider.go_on.set()
    assert len([chunk async for chunk in stream]) == len(WORDS) + 1
    assert [e.status for e in await recorded(watch, tmp_path)] == ["ok"]


async def test_a_closed_a_dropped_and_a_cancelled_call_are_recorded_as_cancelled(
    client: AsyncOpenAI, provider: Provider, watch: Instrumentation, tmp_path: Path
) -> None:
    provider.go_on.clear()
    async with await ask(client, stream=True) as stream:
        await anext(stream)
    dropped = await ask(client, stream=True)
    await anext(dropped)
    del dropped
    gc.collect()
    await asyncio.sleep(0)

    async def read_for_ever() -> None:
        async for _ in await ask(client, stream=True):
            pass

    task = asyncio.create_task(read_for_ever())
    while len(provider.requests) < 3:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await recorded(watch, tmp_path)
    assert [exchange.status for exchange in found] == ["cancelled"] * 3


async def test_a_call_that_breaks_raises_as_ever_and_is_recorded(
    client: AsyncOpenAI, provider: Provider, watch: Instrumentation, tmp_path: Path
) -> None:
    provider.statuses = [429]
    with pytest.raises(openai.RateLimitError):
        await ask(client)
    provider.breaks_after = 2
    with pytest.raises(openai.APIConnectionError):
        _ = [chunk async for chunk in await ask(client, stream=True)]
    with pytest.raises(openai.APITimeoutError):
        provider.breaks_after = None
        provider.go_on.clear()
        timed = client.with_options(timeout=0.2)
        _ = [chunk async for chunk in await ask(timed, stream=True)]
    found = [(e.status, e.error_type) for e in await recorded(watch, tmp_path)]
    assert found == [
        ("error", None),
        ("error", "upstream_disconnected"),
        ("error", "upstream_disconnected"),
    ]


class Triage(BaseModel):
    urgency: str


async def test_raw_parse_stream_helper_responses_and_copies(
    client: AsyncOpenAI, provider: Provider, watch: Instrumentation, tmp_path: Path
) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert raw.headers["x-flywheel-interaction-id"] == last_interaction_id()
    provider.content = '{"urgency": "soon"}'
    parsed = await client.with_options(timeout=9).chat.completions.parse(
        model="m", messages=MESSAGES, response_format=Triage
    )
    assert parsed.choices[0].message.parsed == Triage(urgency="soon")
    async with client.chat.completions.stream(model="m", messages=MESSAGES) as events:
        assert [e async for e in events if e.type == "content.done"]
    streaming = client.chat.completions.with_streaming_response
    async with streaming.create(model="m", messages=MESSAGES) as response:
        assert b"soon" in b"".join([part async for part in response.iter_bytes()])
    async with client.responses.stream(model="m", input="x") as stream:
        assert (await stream.get_final_response()).output_text == provider.content
    assert (await client.embeddings.create(model="e", input="x")).data[0].embedding
    found = [(e.operation, e.status) for e in await recorded(watch, tmp_path)]
    assert found == [("chat", "ok")] * 4 + [("responses", "ok"), ("embeddings", "ok")]


async def test_tasks_at_once_each_know_their_own_interaction(
    client: AsyncOpenAI, watch: Instrumentation, tmp_path: Path
) -> None:
    async def one(number: int) -> tuple[str | None, str]:
        await ask(client, metadata={"conversation_id": f"conv-{number}"})
        return last_interaction_id(), f"conv-{number}"

    known = await asyncio.gather(*(one(number) for number in range(20)))
    found = {e.interaction_id: e.conversation_id for e in await recorded(watch, tmp_path)}
    assert found == dict(known)
