"""One JSON request over HTTP, and the error tree for what can go wrong with it."""

import json
from typing import NamedTuple

from pydantic import JsonValue

from flywheel.errors import MissingExtraError, UpstreamUnavailableError
from flywheel.records import JsonObject


class Reply(NamedTuple):
    """What a server said."""

    status: int
    body: JsonValue
    """Parsed JSON, or the text where it is not JSON."""

    @property
    def message(self) -> str:
        """The server's own words, out of OpenAI's error shape where it has that."""
        inner = self.body.get("error", self.body) if isinstance(self.body, dict) else self.body
        if isinstance(inner, dict):
            inner = inner.get("message") or inner.get("detail") or inner
        return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


async def request(
    method: str, url: str, *, body: JsonObject | None = None, token: str = "", timeout_s: float
) -> Reply:
    """Sends one request and reads the whole reply; a 4xx is a reply, not an error.

    Raises:
        UpstreamUnavailableError: nobody answered in time, or the answer was 429 or 5xx.
    """
    try:
        from aiohttp import ClientError, ClientSession, ClientTimeout
    except ImportError as error:
        raise MissingExtraError("aiohttp", "gateway") from error
    headers = {"authorization": f"Bearer {token}"} if token else {}
    timeout = ClientTimeout(total=timeout_s)
    try:
        async with (
            ClientSession(timeout=timeout, headers=headers) as session,
            session.request(method, url, json=body) as answer,
        ):
            text = await answer.text()
            reply = Reply(answer.status, _parse(text))
    except TimeoutError as error:
        raise UpstreamUnavailableError(url, f"no answer in {timeout_s:g} s") from error
    except (ClientError, OSError) as error:
        raise UpstreamUnavailableError(url, str(error) or type(error).__name__) from error
    if reply.status == 429 or reply.status >= 500:
        raise UpstreamUnavailableError(url, reply.message, status=reply.status)
    return reply


def _parse(text: str) -> JsonValue:
    try:
        parsed: JsonValue = json.loads(text)
    except ValueError:
        return text
    return parsed
