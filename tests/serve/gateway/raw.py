"""HTTP below every library: a client and a model server that send exactly these bytes."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

Sent = bytes | Iterable[bytes]


class RawReply(NamedTuple):
    """What came back until the server closed."""

    status: int
    head: bytes
    body: bytes


def connect(url: str, *, timeout_s: float = 10) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=timeout_s)


def request(
    body: bytes,
    path: str = "/v1/chat/completions",
    *,
    method: bytes = b"POST",
    headers: Iterable[bytes] = (),
) -> bytes:
    """A request that closes its connection; a length is added unless the headers frame it."""
    lines = [method + b" " + path.encode() + b" HTTP/1.1", b"Host: gateway", b"Connection: close"]
    lines += headers
    if not any(line.lower().startswith((b"content-length", b"transfer-")) for line in lines):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def send(url: str, data: bytes, *, timeout_s: float = 10) -> RawReply:
    """Sends these bytes and reads until the server closes."""
    with connect(url, timeout_s=timeout_s) as sock:
        sock.sendall(data)
        return parse(read_all(sock))


def read_all(sock: socket.socket) -> bytes:
    received = b""
    try:
        while piece := sock.recv(1 << 16):
            received += piece
    except ConnectionResetError:  # it closed on what it had not read
        pass
    return received


def parse(received: bytes) -> RawReply:
    head, _, body = received.partition(b"\r\n\r\n")
    return RawReply(int(head.split(b" ", 2)[1]) if head else 0, head, body)


class RawUpstream:
    """A model server that answers every request with what `answer` yields, and then closes.

    Args:
        answer: the bytes, in pieces; given the request as it came.
        stays: whether the connection stays open, silent, after the last piece.
    """

    def __init__(self, answer: Callable[[bytes], Sent], *, stays: bool = False) -> None:
        self._answer, self._stays = answer, stays
        self.seen: list[bytes] = []
        self.closed = 0
        """Connections that the gateway ended while they stayed open."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.url = ""

    def __enter__(self) -> "RawUpstream":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        self._server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            self.seen.append(head + await reader.readexactly(length))
            answer = self._answer(self.seen[-1])
            for piece in [answer] if isinstance(answer, bytes) else answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if self._stays:
                await reader.read()
                self.closed += 1
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            self.closed += 1
        finally:
            writer.close()


def saying(
    body: bytes, *headers: bytes, status: bytes = b"200 OK", length: int | None = None
) -> bytes:
    """An HTTP answer; `length` is what it claims."""
    lines = [b"HTTP/1.1 " + status, *headers]
    if not any(line.lower().startswith(b"transfer-encoding") for line in headers):
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
