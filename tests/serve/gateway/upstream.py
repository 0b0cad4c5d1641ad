"""A model server on loopback that does what a test tells it to, and remembers what it was sent."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.loopback import LoopbackServer

Script = Callable[["ScriptedServer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    headers: dict[str, str]
    raw: bytes
    body: dict[str, Any]


class ScriptedServer(LoopbackServer):
    """POST /v1/… answers by `script`."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script: Script = script or answering("Rest it.")
        self.seen: list[Seen] = []
        self.gone = 0
        """Clients that went away before the end of an answer."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=100 << 20)
        app.router.add_post("/v1/{path:.+}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(headers, raw, json.loads(raw)))
        return await self.script(self, request, self.seen[-1].body)


def completion(content: str, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def chunk(content: str | None, model: str, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"role": "assistant", "content": content}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def answering(content: str, *, delay_s: float = 0) -> Script:
    """Answers whole or as a stream, as it is asked; a word a chunk."""

    async def script(
        server: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        await asyncio.sleep(delay_s)
        if not body.get("stream"):
            return web.json_response(completion(content, body["model"]))
        words = [chunk(f"{word} ", body["model"]) for word in content.split()]
        last = chunk(None, body["model"], "stop")
        return await send(server, request, [*words, last, DONE], pause_s=delay_s)

    return script


def streaming(chunks: Sequence[bytes], *, pause_s: float = 0, breaks: bool = False) -> Script:
    """Sends these bytes as events, then ends or breaks the connection."""

    async def script(
        server: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        return await send(server, request, chunks, pause_s=pause_s, breaks=breaks)

    return script


async def send(
    server: ScriptedServer,
    request: web.Request,
    chunks: Sequence[bytes],
    *,
    pause_s: float = 0,
    breaks: bool = False,
) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await reply.prepare(request)
    try:
        for part in chunks:
            await reply.write(part)
            await asyncio.sleep(pause_s)
    except ConnectionResetError:
        server.gone += 1
        raise
    if breaks:
        assert request.transport is not None
        request.transport.abort()
    return reply


def replying(body: bytes, *, status: int = 200, content_type: str = "application/json") -> Script:
    """Answers with these bytes."""

    async def script(
        server: ScriptedServer, request: web.Request, body_: dict[str, Any]
    ) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type=content_type)

    return script


def hanging() -> Script:
    """Never answers; notices when nobody waits any more."""

    async def script(
        server: ScriptedServer, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.01)
        server.gone += 1
        return web.Response()

    return script
