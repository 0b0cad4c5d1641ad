"""Reads the body of a request, from clients that are slow, wrong or ill-meaning.

Input: a request. Output: its bytes, unpacked, or a BodyError that says what to answer. How long a
request's head may take is `patience`'s.
"""

import asyncio

from aiohttp import web

from flywheel.errors import BadRequestError


class BodyError(BadRequestError):
    """A body that did not come, or not whole; with the status to answer with."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        self.status = status
        super().__init__(message, code=code)


async def read_body(request: web.Request, *, timeout_s: float) -> bytes:
    """The whole body.

    Args:
        request: whose application knows how large a body may be, packed or not.
        timeout_s: for all of it, so that one byte every few seconds is not for ever.

    Raises:
        BodyError: 408 too slow, 413 too large, 400 not packed as its content-encoding says.
    """
    # Most bodies have come with their head, and need no timer.
    waits_s = None if request.content.is_eof() else timeout_s
    try:
        async with asyncio.timeout(waits_s):
            return await request.read()
    except TimeoutError as error:
        raise BodyError(
            f"the body did not come within {timeout_s:g} s", status=408, code="body_timeout"
        ) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise BodyError(str(error.text), status=413, code="body_too_large") from error
    except web.RequestPayloadError as error:
        raise BodyError(
            "the body is not what its content-encoding and transfer-encoding say",
            status=400,
            code="invalid_body",
        ) from error
