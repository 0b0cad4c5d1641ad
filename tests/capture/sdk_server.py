"""A provider on loopback that answers as OpenAI does, as slowly or as badly as a test wants."""

import asyncio
import gzip
import json
import threading
from typing import Any

from aiohttp import web

from tests.loopback import LoopbackServer

TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Łódź"}'},
}
WORDS = ["Rest ", "it, ", "and ", "keep ", "it ", "cool ❄."]


class Provider(LoopbackServer):
    """Chat, responses and embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        """Of the next answers; 200 when empty."""
        self.content = "Rest it."
        self.extra_headers: dict[str, str] = {}
        self.is_gzipped = False
        self.breaks_after: int | None = None
        self.go_on = threading.Event()
        """A stream waits for it after its first word."""
        self.go_on.set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/openai/deployments/d/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/v1/models", self._models)
        return app

    async def _understand(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.requests.append(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return body

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._understand(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            error = {"message": "not now", "type": "server_error", "code": None}
            return web.json_response({"error": error}, status=status, headers={"Retry-After": "0"})
        if body.get("stream"):
            return await self._chat_stream(request, body)
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if "tools" in body and "response_format" not in body:
            message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
        return web.json_response(
            {**head, "choices": [choice], "usage": usage}, headers=self.extra_headers
        )

    async def _chat_stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", **self.extra_headers}
        events = list(_chunks("tools" in body)) + ["[DONE]"]
        if self.is_gzipped:
            data = "".join(f"data: {event}\n\n" for event in events).encode()
            reply = web.Response(
                body=gzip.compress(data), headers={**headers, "Content-Encoding": "gzip"}
            )
            return reply
        stream = web.StreamResponse(headers=headers)
        await stream.prepare(request)
        for number, event in enumerate(events):
            if number == self.breaks_after:
                assert request.transport is not None
                request.transport.abort()
                return stream
            await stream.write(f"data: {event}\n\n".encode())
            while number == 1 and not self.go_on.is_set():
                await asyncio.sleep(0.005)
        return stream

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        body = await self._understand(request)
        part = {"type": "output_text", "text": self.content, "annotations": []}
        item = {
            "id": "m-1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }
        response = {
            "id": "r-1",
            "object": "response",
            "created_at": 1,
            "model": "gpt-4o-mini",
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
        }
        if not body.get("stream"):
            return web.json_response(response)
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        begun = {**response, "status": "in_progress", "output": []}
        created = {"type": "response.created", "response": begun, "sequence_number": 0}
        done = {"type": "response.completed", "response": response, "sequence_number": 1}
        for event in (created, done):
            await stream.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return stream

    async def _embeddings(self, request: web.Request) -> web.Response:
        await self._understand(request)
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return web.json_response({"object": "list", "data": data, "model": "e", "usage": usage})

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": []})


def _chunks(has_tools: bool) -> list[str]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if has_tools:
        deltas = [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, **TOOL_CALL}]}]
    else:
        deltas += [{"content": word} for word in WORDS]
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    choices: list[list[dict[str, Any]]] = [
        [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
    ]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    usage = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
    return [
        *(json.dumps({**head, "choices": choice}, ensure_ascii=False) for choice in choices),
        json.dumps({**head, "choices": [], "usage": usage}),
    ]
