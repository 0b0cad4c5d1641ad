"""Those who may answer: one connection pool, and for each provider its URLs, key and patience.

Input: the `gateway.providers` of workload files and the deployment's own model servers. Output: one
HTTP exchange at a time, begun. What happens after a failure is `dispatch`'s to decide.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from flywheel.errors import ConfigError
from flywheel.routes import ENGINE, ProviderSection
from flywheel.serve.gateway.breaker import CircuitBreaker
from flywheel.workload import Workload

KEEPALIVE_S = 4.0
"""Under the 5 s after which uvicorn (vLLM) closes an idle connection: no race with its closing."""
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "openai-organization", "openai-project")


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer whose headers have come, and of a stream the first chunk."""

    response: aiohttp.ClientResponse
    first_chunk: bytes
    """Empty where the answer is not a stream, or where the stream is."""
    is_stream: bool


class Provider:
    """One of them.

    Args:
        name: as in flywheel.yaml.
        urls: replicas of the same, with `/v1`; they take turns.
        section: how patient to be.
        passes_credentials: whether the client's own key is sent on.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        section: ProviderSection,
        *,
        passes_credentials: bool,
    ) -> None:
        self.name, self.section = name, section
        self.breaker = CircuitBreaker(section.breaker_failures, section.breaker_cooldown_s)
        self._urls = [URL(url.rstrip("/")) for url in urls]
        self._targets: dict[str, list[URL]] = {}
        self._turn = itertools.cycle(range(len(self._urls)))
        self._passes_credentials = passes_credentials
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=section.connect_timeout_s,
            sock_read=max(section.first_byte_timeout_s, section.read_timeout_s),
        )
        self._own_headers = CIMultiDict(section.headers)
        if section.api_key is not None:
            self._own_headers["Authorization"] = f"Bearer {section.api_key}"

    def is_like(self, other: "Provider") -> bool:
        """Whether nothing about it was declared otherwise."""
        mine, theirs = (
            (one.name, one._urls, one.section, one._own_headers, one._passes_credentials)
            for one in (self, other)
        )
        return mine == theirs

    @property
    def urls(self) -> list[str]:
        """Its replicas."""
        return [str(url) for url in self._urls]

    def next_replica(self) -> int:
        """Whose turn it is."""
        return next(self._turn)

    def headers(self, client: CIMultiDict[str]) -> CIMultiDict[str]:
        """What is sent to it: the client's headers, never with a key meant for somebody else."""
        headers = client.copy()
        if not self._passes_credentials:
            for name in _CREDENTIALS:
                headers.popall(name, None)
        headers.update(self._own_headers)
        return headers

    async def begin(
        self,
        session: aiohttp.ClientSession,
        path: str,
        replica: int,
        *,
        body: bytes,
        headers: Mapping[str, str],
    ) -> Begun:
        """Sends a request and returns once the answer has begun.

        Args:
            session: the pool.
            path: after `/v1/`.
            replica: any number, counted round.
            body: the request.
            headers: all of them.

        Raises:
            TimeoutError: it did not begin in time.
            aiohttp.ClientError: the connection failed, or what came is not HTTP.
        """
        targets = self._targets.get(path)
        if targets is None:
            targets = self._targets[path] = [url.joinpath(path) for url in self._urls]
        async with asyncio.timeout(self.section.first_byte_timeout_s):
            response = await session.post(
                targets[replica % len(targets)],
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=self._timeout,
            )
            is_stream = response.content_type == "text/event-stream"
            try:
                chunk = await response.content.readany() if is_stream else b""
            except BaseException:
                response.close()
                raise
        return Begun(response, chunk, is_stream)


class Providers:
    """All of a gateway's, and the pool they share."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._by_name = dict(providers)
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the pool, on the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            # Cookies of one client's answer must not travel with another's request.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
        )

    async def close(self) -> None:
        """Closes the pool."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pool."""
        assert self._session is not None, "start() comes first"
        return self._session

    def __getitem__(self, name: str) -> Provider:
        return self._by_name[name]

    def all(self) -> list[Provider]:
        """In order of name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def replace(self, other: "Providers") -> None:
        """Takes another configuration over; what is in flight ends with what it began with.

        A provider that did not change keeps its circuit's state.
        """
        kept = {
            name: mine
            for name, mine in self._by_name.items()
            if name in other._by_name and mine.is_like(other._by_name[name])
        }
        self._by_name = other._by_name | kept


def build_providers(
    workloads: Sequence[Workload], engine_urls: Sequence[str], *, passes_credentials: bool = True
) -> Providers:
    """The providers of a gateway.

    Args:
        workloads: a name may be declared by several of them, if they all say the same.
        engine_urls: the deployment's model servers, without `/v1`.
        passes_credentials: whether the deployment's model servers get the client's own key.

    Raises:
        ConfigError: two workloads disagree about a provider, or a key is not in the environment.
    """
    declared: dict[str, ProviderSection] = {}
    problems: list[str] = []
    for workload in workloads:
        for name, section in workload.gateway.providers.items():
            if declared.setdefault(name, section) != section:
                problems.append(f"provider {name} is declared differently by {workload.name}")
            elif section.api_key_env and not section.api_key:
                problems.append(
                    f"provider {name}: the environment has no {section.api_key_env}; set it, or "
                    "remove api_key_env"
                )
    if problems:
        raise ConfigError("gateway.providers", problems)
    # The deployment's own servers have replicas instead of attempts, and queue by themselves.
    engine = declared.pop(ENGINE, ProviderSection(retries=0, first_byte_timeout_s=600.0))
    providers = {
        ENGINE: Provider(
            ENGINE,
            [f"{url.rstrip('/')}/v1" for url in engine_urls],
            engine,
            passes_credentials=passes_credentials,
        )
    }
    for name, section in declared.items():
        url = section.base_url or ""
        providers[name] = Provider(name, [url], section, passes_credentials=False)
    return Providers(providers)
