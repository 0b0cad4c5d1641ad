"""Real servers on loopback, small: a model server with vLLM's adapter API, a gateway's admin port.

Each runs in a thread of its own with its own event loop, so that tests, subprocesses and flows
reach it alike, and `stop` really closes the port.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from aiohttp import web

from flywheel.records import Release

TOKEN = "a-token"


class LoopbackServer:
    """An aiohttp application on a free loopback port; `start` again takes the same port."""

    def __init__(self) -> None:
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def app(self) -> web.Application:
        raise NotImplementedError

    def start(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop = self._thread = None

    def _serve(self, ready: threading.Event) -> None:
        loop = asyncio.new_event_loop()
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self._loop = loop
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()


class Replica(LoopbackServer):
    """What vLLM 0.33 says to adapter requests, with an answer that is a function of the model."""

    def __init__(self, base_model: str) -> None:
        super().__init__()
        self.base_model = base_model
        self.adapters: dict[str, str] = {}
        self.loads: list[str] = []
        self.answer: Callable[[str, list[dict[str, str]]], str] = lambda model, messages: "fine"
        self.answers_as: str | None = None
        self.unload_hangs = False
        self.questions = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/load_lora_adapter", self._load),
                web.post("/v1/unload_lora_adapter", self._unload),
                web.post("/v1/chat/completions", self._chat),
            ]
        )
        return app

    async def _models(self, request: web.Request) -> web.Response:
        names = [self.base_model, *self.adapters]
        return web.json_response({"object": "list", "data": [{"id": name} for name in names]})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body["lora_name"], body["lora_path"]
        if name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            return _refuse(400, message, "InvalidUserInput")
        if not (Path(path) / "adapter_config.json").is_file():
            return _refuse(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self.loads.append(name)
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if self.unload_hangs:
            await asyncio.sleep(60)
        if self.adapters.pop(name, None) is None:
            return _refuse(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.questions += 1
        model = body["model"]
        if model != self.base_model and model not in self.adapters:
            return _refuse(404, f"The model `{model}` does not exist.", "NotFoundError")
        message = {"role": "assistant", "content": self.answer(model, body["messages"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answered = self.answers_as or model
        head = {"id": "chat-1", "object": "chat.completion", "created": 0, "model": answered}
        return web.json_response({**head, "choices": [choice], "usage": usage})


class AdminPort(LoopbackServer):
    """A gateway's admin port: keeps the latest release of each workload, by its epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.served: dict[str, Release] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/admin/releases", self._list),
                web.post("/admin/releases", self._push),
                web.get("/admin/spool", self._spool),
            ]
        )
        return app

    async def _list(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _refuse(401, "a bearer token is needed", "unauthorized")
        releases = [release.model_dump(mode="json") for release in self.served.values()]
        return web.json_response({"data": releases})

    async def _push(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _refuse(401, "a bearer token is needed", "unauthorized")
        release = Release.model_validate_json(await request.text())
        known = self.served.get(release.workload)
        if known is not None and known.epoch > release.epoch:
            return _refuse(409, f"at epoch {known.epoch} already", "epoch_conflict")
        self.served[release.workload] = release
        return web.json_response({"epoch": release.epoch})

    async def _spool(self, request: web.Request) -> web.Response:
        return web.json_response({"accepted": 3, "spooled": 3, "pending": 0, "dropped": {}})


def _refuse(status: int, message: str, kind: str) -> web.Response:
    error = {"message": message, "type": kind, "code": status}
    return web.Response(
        status=status, text=json.dumps({"error": error}), content_type="application/json"
    )
