"""The gateway's admin port, as seen by a release: tell it, ask it.

The gateway also polls the ledger, so that one that is down when the alias moves learns of it later.
"""

from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from flywheel.errors import EpochConflictError, PromotionError, UpstreamUnavailableError
from flywheel.promote.wire import request
from flywheel.records import JsonObject, Release

ADMIN_TIMEOUT_S = 5.0


class GatewayAdmin(Protocol):
    """What serves the alias."""

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        ...

    async def push(self, release: Release) -> None:
        """Tells it which model the alias means from now on; telling it again is harmless.

        Raises:
            UpstreamUnavailableError: it does not answer.
            EpochConflictError: it already knows a later release.
            PromotionError: it refuses, a wrong token for one.
        """
        ...

    async def releases(self) -> list[Release]:
        """What it serves now, one release a workload.

        Raises:
            UpstreamUnavailableError: it does not answer.
            PromotionError: it refuses.
        """
        ...

    async def spool(self) -> JsonObject:
        """Counters of its capture spool.

        Raises:
            UpstreamUnavailableError: it does not answer.
            PromotionError: it refuses.
        """
        ...


class HttpGatewayAdmin:
    """The admin port over HTTP, with its bearer token."""

    def __init__(self, url: str, *, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    @property
    def url(self) -> str:
        """Root URL of the admin port."""
        return self._url

    async def push(self, release: Release) -> None:
        """Posts a release; see GatewayAdmin."""
        reply = await request(
            "POST",
            f"{self._url}/admin/releases",
            body=release.model_dump(mode="json"),
            token=self._token,
            timeout_s=ADMIN_TIMEOUT_S,
        )
        if reply.status == 409:
            known = {known.workload: known.epoch for known in await self.releases()}
            raise EpochConflictError(
                release.workload, release.epoch - 1, known.get(release.workload, release.epoch)
            )
        if reply.status >= 400:
            raise PromotionError(self._refusal(reply.status, reply.message))

    async def releases(self) -> list[Release]:
        """Reads what it serves; see GatewayAdmin."""
        url = f"{self._url}/admin/releases"
        reply = await request("GET", url, token=self._token, timeout_s=ADMIN_TIMEOUT_S)
        if reply.status >= 400:
            raise PromotionError(self._refusal(reply.status, reply.message))
        try:
            return TypeAdapter(list[Release]).validate_python(_listed(reply.body))
        except ValidationError as error:
            raise UpstreamUnavailableError(url, f"not a list of releases: {error}") from error

    async def spool(self) -> JsonObject:
        """Reads the spool's counters; see GatewayAdmin."""
        url = f"{self._url}/admin/spool"
        reply = await request("GET", url, token=self._token, timeout_s=ADMIN_TIMEOUT_S)
        if reply.status >= 400 or not isinstance(reply.body, dict):
            raise PromotionError(self._refusal(reply.status, reply.message))
        return reply.body

    def _refusal(self, status: int, message: str) -> str:
        advice = (
            " Is the token the gateway's? It is FLYWHEEL_ADMIN_TOKEN or <home>/admin-token."
            if status in (401, 403)
            else ""
        )
        return f"{self._url} refused: HTTP {status}: {message:.300}.{advice}"


def _listed(body: object) -> object:
    return body["data"] if isinstance(body, dict) and "data" in body else body
