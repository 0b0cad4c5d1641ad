"""Keep-alive connections that ask again when they are answered, and note how long it took.

Input: an address, a request; a rate, or as fast as it goes. Output: latencies in ms, of a stream
those of its first event too.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast


@dataclass
class Latencies:
    """What one run saw."""

    whole_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    """To the first event of a stream."""
    seconds: float = 0.0
    errors: int = 0


def request(port: int, body: bytes) -> bytes:
    """A POST to /v1/chat/completions as bytes."""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Authorization: Bearer none\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, payload: bytes, found: Latencies, deadline: float, pause_s: float) -> None:
        self._payload, self._found, self._deadline = payload, found, deadline
        self._pause_s, self._due = pause_s, time.perf_counter()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._ask()

    def _ask(self) -> None:
        self._buffer, self._has_first = b"", False
        self._asked = time.perf_counter()
        self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._has_first and b"data: " in self._buffer:
            self._has_first = True
            self._found.first_ms.append((time.perf_counter() - self._asked) * 1000)
        if self._is_whole():
            now = time.perf_counter()
            self._found.whole_ms.append((now - self._asked) * 1000)
            self._found.errors += not self._buffer.startswith(b"HTTP/1.1 200")
            # Kept to a timetable, so that slow answers do not make the load lighter.
            self._due += self._pause_s
            if now >= self._deadline:
                self._transport.close()
            elif self._due > now:
                asyncio.get_running_loop().call_later(self._due - now, self._ask)
            else:
                self._ask()

    def _is_whole(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._buffer[:end].lower()
        if (at := head.find(b"content-length:")) >= 0:
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            return len(self._buffer) >= end + 4 + length
        return self._buffer.endswith(b"0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(
    port: int,
    body: bytes,
    *,
    connections: int,
    seconds: float,
    per_second: float | None = None,
) -> Latencies:
    """Asks over this many connections for so long.

    Args:
        port: on loopback.
        body: of every request.
        connections: each with one request at a time.
        seconds: after them no request begins.
        per_second: of all connections together; as many as are answered when absent.
    """
    pause_s = connections / per_second if per_second else 0.0
    found = Latencies()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: _Connection(request(port, body), found, started + seconds, pause_s),
            "127.0.0.1",
            port,
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*[protocol.done for _, protocol in made])
    found.seconds = time.perf_counter() - started
    return found


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
