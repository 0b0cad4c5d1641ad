"""The model servers behind the gateway: a keep-alive pool, in turn, with one retry.

A request goes to the next replica, once, when the connection failed before any byte of an answer.
Timeouts by provider, weights, circuit breaking and plan B are not here.
"""

import itertools
from collections.abc import Mapping, Sequence

import aiohttp
from yarl import URL

from flywheel.errors import UpstreamUnavailableError
from flywheel.serve.gateway.metrics import Metrics

KEEPALIVE_S = 4.0
"""Under the 5 s after which uvicorn (vLLM) closes an idle connection: no race with its closing."""


class Upstream:
    """One or more replicas that speak the same API.

    Args:
        urls: base URLs without `/v1`.
        metrics: retries are counted there.
        connect_timeout_s: to a replica.
        read_timeout_s: longest silence of a replica that is answering.
    """

    def __init__(
        self,
        urls: Sequence[str],
        metrics: Metrics,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 600.0,
    ) -> None:
        self._urls = [URL(url.rstrip("/")) for url in urls]
        self._targets: dict[str, list[URL]] = {}
        self._turn = itertools.cycle(range(len(self._urls)))
        self._metrics = metrics
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the pool, on the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=self._timeout,
            # Cookies of one client's answer must not travel with another's request.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
        )

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Sends a request and returns once the answer's headers are there.

        Raises:
            UpstreamUnavailableError: no replica answered; `status` is the one to answer with.
        """
        assert self._session is not None, "start() comes first"
        targets = self._targets.get(path)
        if targets is None:
            targets = self._targets[path] = [url.joinpath(path) for url in self._urls]
        first = next(self._turn)
        for is_last, index in ((False, first), (True, first + 1)):
            url = targets[index % len(targets)]
            try:
                return await self._session.post(
                    url, data=body, headers=headers, allow_redirects=False
                )
            except aiohttp.SocketTimeoutError as error:
                raise UpstreamUnavailableError(str(url), "no answer in time", status=504) from error
            except aiohttp.ClientConnectionError as error:
                if is_last:
                    raise UpstreamUnavailableError(str(url), str(error), status=503) from error
                self._metrics.upstream_retries += 1
            except aiohttp.ClientError as error:
                raise UpstreamUnavailableError(str(url), str(error), status=502) from error
        raise AssertionError("the second attempt returns or raises")
