"""A judge endpoint one would rather not have: slow, rate-limited, sometimes nonsense, once dead.

Input: options. Output: its port on stdout; then it serves until it is killed. It speaks OpenAI's
chat completions with JSON-schema answers, files and batches included. It counts what it bills, by
the sha256 of what was asked, and tells it at `GET /stats`.
Command: `python -m benchmarks.judge_endpoint --rate 100 --garbage 0.03 --dies-after 5000`.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import math
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from aiohttp import web

from benchmarks.judge_batches import BatchDesk

ITEM = re.compile(r"item-[0-9a-z]+")
REPAIR_MARK = "nonsense, of course"


@dataclass
class Temper:
    """How bad it is."""

    rate: float = 1e9
    """Completions a second: a token bucket's refill."""
    burst: float = 1e9
    """The bucket's size."""
    latency_s: float = 0.0
    """Mean; each answer takes between half and one and a half of it."""
    garbage: float = 0.0
    """Share of questions first answered with nonsense; the repair gets a good answer."""
    stubborn: float = 0.0
    """Share of questions never answered with anything else."""
    dies_after: int | None = None
    """Completions after which it is dead for `dead_s`."""
    dead_s: float = 0.0
    has_headers: bool = True
    """Whether it tells its limits with each answer."""
    capacity: int | None = None
    """Requests it works on at once; more are refused."""
    expires_after: int | None = None
    """Requests of its first batch that are answered before that batch expires."""


def chance(salt: str, text: str) -> float:
    """A number in [0, 1) that depends on the text only."""
    digest = hashlib.sha256(f"{salt}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def grade_of(item: str, grades: list[Any]) -> Any:
    """The grade it gives an item; who knows the item can tell whether one was invented."""
    return grades[int(chance("grade", item) * len(grades))]


def instance_of(schema: dict[str, Any], item: str) -> Any:
    """JSON that satisfies a schema, the choices made by `grade_of`."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return grade_of(item, schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return {name: instance_of(part, item) for name, part in schema["properties"].items()}
    if kind == "array":
        return []
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return f"because of {item}"


class JudgeEndpoint:
    """The application; one event loop."""

    def __init__(self, temper: Temper) -> None:
        self.temper = temper
        self.billed: Counter[str] = Counter()
        self.refused = self.asked = self.lost = self.peak = self.under_way = 0
        self.started_at = self.finished_at = 0.0
        self.tokens_left = temper.burst
        self.filled_at = time.monotonic()
        self.dead_since: float | None = None
        self.was_dead_s = 0.0
        self.open: set[Any] = set()
        self.site: web.TCPSite | None = None
        self.runner: web.AppRunner | None = None
        self.port = 0
        self.death: asyncio.Task[None] | None = None
        self.batches = BatchDesk(self.answer, expires_after=temper.expires_after)

    async def serve(self, port: int = 0) -> int:
        """Opens the port and returns it."""
        app = web.Application(client_max_size=256 * 2**20)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.get("/stats", self.stats),
                *self.batches.routes(),
            ]
        )
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await self.listen(port)
        return self.port

    async def listen(self, port: int) -> None:
        """Takes connections."""
        assert self.runner is not None
        self.site = web.TCPSite(self.runner, "127.0.0.1", port)
        await self.site.start()
        self.port = self.runner.addresses[0][1]

    async def die(self) -> None:
        """Drops what is under way, refuses connections, and comes back."""
        assert self.site is not None
        self.dead_since = time.monotonic()
        await self.site.stop()
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(self.temper.dead_s)
        await self.listen(self.port)
        self.was_dead_s += time.monotonic() - self.dead_since
        self.dead_since = None

    async def close(self) -> None:
        """Closes the port; what is under way is lost."""
        assert self.runner is not None
        if self.death is not None:
            self.death.cancel()
        await self.runner.cleanup()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """One completion, or not."""
        self.started_at = self.started_at or time.monotonic()
        transport = request.transport
        self.open.add(transport)
        body = await request.json()
        self.asked += 1
        refusal = self._take()
        if refusal is not None:
            self.refused += 1
            return refusal
        headers = self._headers()
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            text = json.dumps(body["messages"])
            await asyncio.sleep(self.temper.latency_s * (0.5 + chance("slow", text)))
        finally:
            self.under_way -= 1
        if transport is None or transport.is_closing() or self.dead_since is not None:
            self.lost += 1
            raise ConnectionResetError
        if "POISON" in text:
            return web.json_response({"error": {"message": "it chokes on this"}}, status=500)
        answer = self.answer(body)
        if sum(self.billed.values()) == self.temper.dies_after and not self.was_dead_s:
            self.death = asyncio.create_task(self.die())
        return web.json_response(answer, headers=headers)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion, billed."""
        text = json.dumps(body["messages"])
        asked = {name: body.get(name) for name in ("model", "messages", "response_format")}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self.billed[key] += 1
        self.finished_at = time.monotonic()
        found = ITEM.search(text)
        item = found[0] if found else text
        is_first = REPAIR_MARK not in text
        if chance("stubborn", item) < self.temper.stubborn or (
            is_first and chance("garbage", item) < self.temper.garbage
        ):
            content = REPAIR_MARK
        else:
            schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
            content = json.dumps(instance_of(schema, item))
        return {
            "id": f"chatcmpl-{key[:12]}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": len(text) // 4,
                "completion_tokens": 10,
                "total_tokens": len(text) // 4 + 10,
            },
        }

    def _take(self) -> web.Response | None:
        """A token of the bucket, or a refusal that says when to come back in one of three ways."""
        temper, now = self.temper, time.monotonic()
        self.tokens_left = min(
            temper.burst, self.tokens_left + (now - self.filled_at) * temper.rate
        )
        self.filled_at = now
        error = {"error": {"message": "slow down", "type": "rate_limit_exceeded", "code": "429"}}
        if temper.capacity is not None and self.under_way >= temper.capacity:
            return web.json_response(error, status=429)
        if self.tokens_left >= 1:
            self.tokens_left -= 1
            return None
        wait = (1 - self.tokens_left) / temper.rate
        style = self.refused % 3
        if style == 0:
            headers = {"retry-after-ms": str(math.ceil(wait * 1000))}
        elif style == 1:
            headers = {"retry-after": str(max(1, math.ceil(wait)))}
        else:
            headers = {"retry-after": formatdate(math.ceil(time.time() + wait), usegmt=True)}
        return web.json_response(error, status=429, headers=headers | self._headers())

    def _headers(self) -> dict[str, str]:
        temper = self.temper
        if not temper.has_headers or temper.burst > 1e8:
            return {}
        reset = (temper.burst - self.tokens_left) / temper.rate
        return {
            "x-ratelimit-limit-requests": f"{temper.burst:.0f}",
            "x-ratelimit-remaining-requests": f"{max(0, int(self.tokens_left))}",
            "x-ratelimit-reset-requests": f"{reset:.3f}s" if reset >= 1 else f"{reset * 1e3:.0f}ms",
        }

    async def stats(self, request: web.Request) -> web.Response:
        """What happened so far; by key with `?keys=1`."""
        counts = {
            "asked": self.asked,
            "refused": self.refused,
            "lost": self.lost,
            "peak": self.peak,
            "completions": sum(self.billed.values()),
            "keys": len(self.billed),
            "paid_twice": sum(1 for count in self.billed.values() if count > 1),
            "elapsed_s": self.finished_at - self.started_at,
            "dead_s": self.was_dead_s,
            "batches": [batch["status"] for batch in self.batches.batches.values()],
            "files": len(self.batches.files),
        }
        return web.json_response(counts)


async def serve(temper: Temper) -> None:
    """Serves until cancelled."""
    # Connections that break are its trade.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    endpoint = JudgeEndpoint(temper)
    sys.stdout.write(f"{await endpoint.serve()}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Reads the options and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rate", "burst", "latency-s", "garbage", "stubborn", "dead-s"):
        default = getattr(Temper, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--dies-after", type=int)
    parser.add_argument("--capacity", type=int)
    parser.add_argument("--expires-after", type=int)
    parser.add_argument("--no-headers", dest="has_headers", action="store_false")
    asyncio.run(serve(Temper(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
