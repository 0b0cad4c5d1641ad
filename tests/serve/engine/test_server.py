"""What the server does when clients go away, come in crowds, or it is told to end."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import ClientSession
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    InternalServerError,
    OpenAI,
    RateLimitError,
)

from flywheel.errors import ConfigError
from flywheel.serve.engine import Engine, Server, running
from tests.serve.engine.harness import BASE, Served, tiny_engine, tiny_options

LONG_ANSWER = {"ignore_eos": True}


async def until(holds: Callable[[], bool]) -> None:
    """Waits for the engine's threads; the test's own timeout ends it."""
    while not holds():
        await asyncio.sleep(0.005)


async def get(url: str) -> tuple[int, str]:
    async with ClientSession() as session, session.get(url) as reply:
        return reply.status, await reply.text()


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_a_client_that_goes_away_frees_its_slot(
    tiny_model: Path, store: Path, is_streamed: bool
) -> None:
    """1,900 tokens are asked for; far fewer are computed before the row is dropped."""
    body = {
        "model": BASE,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1900,
        "stream": is_streamed,
        "ignore_eos": True,
    }
    with tiny_engine(tiny_model, store) as served:
        meter = served.engine.meter
        async with ClientSession() as session:

            async def ask() -> None:
                async with session.post(f"{served.url}/v1/chat/completions", json=body) as reply:
                    await reply.read()

            asking = asyncio.create_task(ask())
            await until(lambda: meter.completion_tokens > 3)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await until(lambda: served.engine.scheduler.running == 0)
        assert meter.cancelled == 1
        assert meter.completion_tokens < 1900


async def test_one_choice_in_the_queue_is_dropped_when_its_client_goes_away(
    tiny_model: Path, store: Path
) -> None:
    with tiny_engine(tiny_model, store, max_batch=1) as served:
        client = AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)

        def asked(tokens: int) -> "asyncio.Task[object]":
            return asyncio.create_task(
                client.completions.create(
                    model=BASE, prompt="A", max_tokens=tokens, extra_body=LONG_ANSWER
                )
            )

        first = asked(150)
        await until(lambda: served.engine.scheduler.running == 1)
        second = asked(150)
        await until(lambda: served.engine.scheduler.waiting == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await until(lambda: served.engine.scheduler.waiting == 0)
        await first
        await client.close()
        assert served.engine.meter.cancelled == 1


async def test_a_full_queue_is_429_with_retry_after(tiny_model: Path, store: Path) -> None:
    with tiny_engine(tiny_model, store, max_batch=1, max_queue=2) as served:
        client = AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)

        async def ask() -> object:
            return await client.completions.create(
                model=BASE, prompt="A", max_tokens=150, extra_body=LONG_ANSWER
            )

        first = asyncio.create_task(ask())
        await until(lambda: served.engine.scheduler.running == 1)
        waiting = [asyncio.create_task(ask()) for _ in range(2)]
        await until(lambda: served.engine.scheduler.waiting == 2)
        with pytest.raises(RateLimitError) as refused:
            await ask()
        assert refused.value.response.headers["retry-after"] == "1"
        await asyncio.gather(first, *waiting)
        await client.close()


async def test_a_crowd_is_answered_in_full(served: Served, async_client: AsyncOpenAI) -> None:
    """Thirty at once on six slots, each with its own length: everybody gets exactly that."""

    async def ask(tokens: int) -> int:
        reply = await async_client.completions.create(
            model=BASE, prompt="crowd " * tokens, max_tokens=tokens, extra_body=LONG_ANSWER
        )
        assert reply.usage is not None
        return reply.usage.completion_tokens

    wanted = [1 + at % 17 for at in range(30)]
    assert await asyncio.gather(*map(ask, wanted)) == wanted
    await until(lambda: served.engine.scheduler.running == 0)


async def test_a_long_prompt_does_not_hold_up_an_answer_being_written(
    tiny_model: Path, store: Path
) -> None:
    """A step takes 16 prompt tokens, so 1,600 take 100 steps: the other row has a token in each."""
    with tiny_engine(tiny_model, store, step_tokens=16) as served:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            stream = await client.completions.create(
                model=BASE, prompt="A", max_tokens=400, stream=True, extra_body=LONG_ANSWER
            )
            long = asyncio.create_task(
                client.completions.create(model=BASE, prompt="b" * 1600, max_tokens=1)
            )
            meanwhile = 0
            async for _ in stream:
                meanwhile += not long.done()
            await long
        assert meanwhile > 20


async def test_metrics_count_requests_tokens_and_rows(tiny_model: Path, store: Path) -> None:
    with tiny_engine(tiny_model, store) as served:
        with OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
            client.completions.create(model=BASE, prompt="AB", max_tokens=5, extra_body=LONG_ANSWER)
            with pytest.raises(APIStatusError):
                client.completions.create(model="nobody", prompt="AB")
        status, text = await get(f"{served.url}/metrics")
        lines = text.splitlines()
        assert status == 200
        for line in (
            'flywheel_engine_requests_total{route="/v1/completions",status="200"} 1',
            'flywheel_engine_requests_total{route="/v1/completions",status="404"} 1',
            "flywheel_engine_prompt_tokens_total 2",
            "flywheel_engine_completion_tokens_total 5",
            "flywheel_engine_queued_rows 0",
            "flywheel_engine_running_rows 0",
            "flywheel_engine_step_seconds_count 5",
            'flywheel_engine_batch_rows_bucket{le="1"} 5',
            'flywheel_engine_batch_rows_bucket{le="+Inf"} 5',
        ):
            assert line in lines


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz"])
async def test_health_is_ok_while_steps_succeed(served: Served, path: str) -> None:
    assert (await get(served.url + path))[0] == 200


async def test_one_model_can_be_asked_for_by_name(served: Served, names: list[str]) -> None:
    status, body = await get(f"{served.url}/v1/models/{names[0]}")
    assert (status, json.loads(body)["id"]) == (200, names[0])
    status, body = await get(f"{served.url}/v1/models/nobody")
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


async def test_an_unknown_route_and_a_wrong_method_answer_in_openais_shape(served: Served) -> None:
    for path, expected in (("/v1/nothing", 404), ("/v1/completions", 405)):
        status, body = await get(served.url + path)
        assert status == expected
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_a_step_that_fails_fails_its_requests_and_not_the_engine(
    tiny_model: Path, store: Path
) -> None:
    """A cache that cannot grow stands for a device out of memory: short prompts still fit."""
    with tiny_engine(tiny_model, store) as served:
        model = served.engine.model
        grow = model.cache.reserve

        def out_of_memory(length: int) -> None:
            if length > 256:
                raise RuntimeError("out of memory")
            grow(length)

        model.cache.reserve = out_of_memory  # type: ignore[method-assign]
        async with AsyncOpenAI(
            base_url=f"{served.url}/v1", api_key="none", max_retries=0
        ) as client:
            with pytest.raises(InternalServerError, match="out of memory"):
                await client.completions.create(model=BASE, prompt="a" * 400, max_tokens=4)
            reply = await client.completions.create(
                model=BASE, prompt="a", max_tokens=4, extra_body=LONG_ANSWER
            )
        assert reply.usage is not None and reply.usage.completion_tokens == 4
        assert served.engine.meter.failed_steps >= 1
        assert (await get(f"{served.url}/readyz"))[0] == 200


async def test_an_engine_that_ends_tells_those_it_was_answering(
    tiny_model: Path, store: Path
) -> None:
    engine = Engine(tiny_options(tiny_model, store))
    engine.start()
    with running(engine) as url:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.completions.create(
                model=BASE, prompt="A", max_tokens=1900, stream=True, extra_body=LONG_ANSWER
            )
            await anext(stream)
            await asyncio.to_thread(engine.close)
            with pytest.raises(APIError, match="shutting down"):
                async for _ in stream:
                    pass
        assert (await get(f"{url}/readyz"))[0] == 503


async def test_a_server_that_stops_lets_the_answers_being_written_end(
    tiny_model: Path, store: Path
) -> None:
    with Engine(tiny_options(tiny_model, store)) as engine:
        server = Server(engine)
        await server.start()
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            writing = asyncio.create_task(
                client.completions.create(
                    model=BASE, prompt="A", max_tokens=150, extra_body=LONG_ANSWER
                )
            )
            await until(lambda: engine.scheduler.running == 1)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
            with pytest.raises(InternalServerError, match="shutting down"):
                await client.completions.create(model=BASE, prompt="A", max_tokens=1)
            reply = await writing
            await stopping
        assert reply.usage is not None and reply.usage.completion_tokens == 150


async def test_a_port_in_use_is_one_clear_error(served: Served) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match="--port 0"):
        await Server(served.engine, port=port).start()
