from pathlib import Path

import pytest

from flywheel.errors import PromotionError, UpstreamUnavailableError
from flywheel.promote import HttpModelServer
from flywheel.records import Message
from tests.loopback import AdminPort, Replica
from tests.promote.conftest import BASE, MakeAdapter

HELLO = [Message(role="user", content="Hello")]


async def test_an_adapter_is_loaded_answers_and_is_unloaded(
    replicas: tuple[Replica, Replica], trained: MakeAdapter
) -> None:
    adapter, server = trained(1), HttpModelServer(replicas[0].url + "/v1/")
    await server.load(adapter.name, Path(adapter.path))
    assert await server.models() == [BASE, adapter.name]
    answer = await server.complete(HELLO, model=adapter.name, max_tokens=4)
    assert (answer.text, answer.model) == ("fine", adapter.name)
    await server.unload(adapter.name)
    await server.unload(adapter.name)
    assert await server.models() == [BASE]


async def test_a_second_load_is_success_although_the_server_says_400(
    replicas: tuple[Replica, Replica], trained: MakeAdapter
) -> None:
    adapter, server = trained(1), HttpModelServer(replicas[0].url)
    await server.load(adapter.name, Path(adapter.path))
    await server.load(adapter.name, Path(adapter.path))
    assert replicas[0].loads == [adapter.name]


async def test_a_refused_load_says_what_the_server_said(
    replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    server = HttpModelServer(replicas[0].url)
    with pytest.raises(PromotionError, match="'triage-1' cannot be found"):
        await server.load("triage-1", tmp_path / "nowhere")


async def test_a_server_without_adapter_endpoints_is_told_how_to_get_them(
    gateway: AdminPort, tmp_path: Path
) -> None:
    replica = NoAdapters(BASE).start()
    try:
        with pytest.raises(PromotionError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            await HttpModelServer(replica.url).load("triage-1", tmp_path)
    finally:
        replica.stop()


async def test_a_server_that_is_down_is_worth_a_retry(
    replicas: tuple[Replica, Replica], tmp_path: Path
) -> None:
    replicas[0].stop()
    with pytest.raises(UpstreamUnavailableError, match=replicas[0].url):
        await HttpModelServer(replicas[0].url).load("triage-1", tmp_path)


async def test_an_unknown_model_does_not_complete(replicas: tuple[Replica, Replica]) -> None:
    with pytest.raises(PromotionError, match="did not answer as triage-1: HTTP 404"):
        await HttpModelServer(replicas[0].url).complete(HELLO, model="triage-1", max_tokens=4)


class NoAdapters(Replica):
    """vLLM without --enable-lora: FastAPI's 404 for the route."""

    def app(self):  # type: ignore[no-untyped-def]
        from aiohttp import web

        async def missing(request: web.Request) -> web.Response:
            return web.json_response({"detail": "Not Found"}, status=404)

        app = web.Application()
        app.add_routes(
            [web.get("/v1/models", self._models), web.post("/v1/load_lora_adapter", missing)]
        )
        return app
