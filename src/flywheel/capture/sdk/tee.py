"""A response's body, seen while its reader reads it.

Input: an httpx response that was not read yet. Output: the same response; its stream hands each
chunk on as it comes and keeps a reference to it.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from flywheel.capture.sdk.seen import Seen

if TYPE_CHECKING:
    import httpx2

_DROPPED = "the stream was dropped before its end"
_CLOSED = "the stream was closed before its end"


class _Tee:
    """What both kinds share: the body, and whatever else its owner asks of it."""

    def __init__(self, body: Any, seen: Seen) -> None:
        self._body, self._seen = body, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_body"], name)

    def __del__(self) -> None:
        # Nobody closed it, nobody will. A collector runs this anywhere: it only hands in.
        seen = self.__dict__.get("_seen")
        if seen is not None:
            seen.leave(_DROPPED)


class _SyncTee(_Tee):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._body:
                self._seen.took(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self._seen.fail(error, "upstream_disconnected")
            raise
        self._seen.end()

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._seen.leave(_CLOSED)


class _AsyncTee(_Tee):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                self._seen.took(chunk)
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self._seen.fail(error, "upstream_disconnected")
            raise
        self._seen.end()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            self._seen.leave(_CLOSED)


def tee(response: "httpx2.Response", seen: Seen) -> None:
    """Puts the tee between a response and its body."""
    module = type(response).__module__.partition(".")[0]
    sync, asynchronous = _classes(module)
    is_async = hasattr(response.stream, "__aiter__") and not hasattr(response.stream, "__iter__")
    response.stream = (asynchronous if is_async else sync)(response.stream, seen)


@lru_cache(maxsize=2)
def _classes(module: str) -> tuple[Any, Any]:
    """The tees as streams of the client's own HTTP library: httpx2, or an httpx it was given."""
    library = cast(Any, sys.modules[module])
    return (
        type("SyncTee", (_SyncTee, library.SyncByteStream), {}),
        type("AsyncTee", (_AsyncTee, library.AsyncByteStream), {}),
    )
