"""The gateway's HTTP server: aiohttp's, with an end to its patience, and errors in one shape.

aiohttp waits without end for the rest of a request's head: a few thousand clients that send a byte
a minute would take all the connections there are. It also answers what is not HTTP by quoting it,
and logs a traceback for each, which lets strangers fill a disk.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from flywheel.serve.gateway.replies import bad_request, unavailable

logger = logging.getLogger(__name__)


class PatientRunner(web.AppRunner):
    """Runs an application for clients nobody knows.

    Args:
        app: the application.
        header_timeout_s: a connection whose request's head is not whole by then is closed.
        keepalive_timeout_s: a connection is closed that asks nothing for so long.
        shutdown_timeout_s: how long requests in flight may take at the end.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_s: float,
        keepalive_timeout_s: float,
        shutdown_timeout_s: float,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            # Cancelling the handler of a client that went away cancels its upstream request.
            handler_cancellation=True,
            keepalive_timeout=keepalive_timeout_s,
            shutdown_timeout=shutdown_timeout_s,
        )
        self._header_timeout_s = header_timeout_s

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp has no other way in for a handler of one's own.
        server.__class__ = _Server
        assert isinstance(server, _Server)
        server.header_timeout_s = self._header_timeout_s
        return server


class _Server(web.Server):
    header_timeout_s: float

    def __call__(self) -> RequestHandler:
        return _Handler(
            self, loop=self._loop, header_timeout_s=self.header_timeout_s, **self._kwargs
        )


class _Handler(RequestHandler):
    """One connection."""

    __slots__ = ("_alarm", "_header_timeout_s")

    def __init__(
        self,
        manager: _Server,
        *,
        loop: asyncio.AbstractEventLoop,
        header_timeout_s: float,
        **options: Any,
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._header_timeout_s = header_timeout_s
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came: its first request is awaited."""
        super().connection_made(transport)
        self._alarm = self._loop.call_later(self._header_timeout_s, self.force_close)

    def data_received(self, data: bytes) -> None:
        """Bytes came: the rest of a head, or what belongs to a request that is being handled."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._disarm()
        elif self._alarm is None and self._waiter is not None:  # a further request begins
            self._alarm = self._loop.call_later(self._header_timeout_s, self.force_close)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._disarm()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The reply to what is not HTTP, which is not quoted, and to a bug of ours."""
        super().handle_error(request, status, exc, message)  # logs; raises if a reply has begun
        if status < 500:
            reply = bad_request(_reason(exc), status=status, code="invalid_http")
        else:
            reply = unavailable(
                "the gateway failed; its log says why", status=status, code="internal_error"
            )
        reply.force_close()
        return reply

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Logs our mistakes loudly, and those of strangers only for who wants to know."""
        error = options.get("exc_info")
        if isinstance(error, HttpProcessingError | web.RequestPayloadError):
            logger.debug("refused: %r", error)
        else:
            super().log_exception(*args, **options)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def _reason(error: BaseException | None) -> str:
    """In our words: aiohttp's quote what the client sent."""
    if isinstance(error, ContentEncodingError):
        return "this content-encoding is not understood: send the body plain, or gzip"
    return "this is not HTTP/1.1, or a header is too long or has a control character in it"
