"""The batch API of an OpenAI-compatible server: files up, a batch, files down.

Input: request lines. Output: answer lines, whatever became of the batch. The specification is
OpenAI's reference of `/v1/files` and `/v1/batches`.
"""

import io
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Literal, TypeVar

from flywheel.errors import JudgeError, MissingExtraError, UpstreamUnavailableError
from flywheel.label.judging.models import Address

if TYPE_CHECKING:
    from openai.types import Batch

T = TypeVar("T")

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MARK = "flywheel_input_sha256"
"""Metadata by which a batch whose id was never written down is found again."""


class OpenAIBatches:
    """One provider's batches."""

    def __init__(self, address: Address) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingExtraError("openai", "gateway") from error
        self.url = address.url
        self._client = AsyncOpenAI(
            base_url=address.url, api_key=address.api_key, default_headers=address.headers
        )

    async def create(self, lines: bytes, sha: str) -> str:
        """Uploads requests and starts a batch of them; returns its id.

        Raises:
            UpstreamUnavailableError: the server does not answer.
            JudgeError: it refuses, or has no batch API.
        """
        upload = ("judge-calls.jsonl", io.BytesIO(lines), "application/jsonl")
        file = await self._said(self._client.files.create(file=upload, purpose="batch"))
        batch = await self._said(
            self._client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={MARK: sha},
            )
        )
        return batch.id

    async def find(self, sha: str) -> str | None:
        """The batch of an input whose id nobody knows; None where none was started."""

        async def search() -> str | None:
            async for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(MARK) == sha and batch.status != "failed":
                    return batch.id
            return None

        return await self._said(search())

    async def look(self, batch_id: str) -> "Batch":
        """What became of a batch so far."""
        return await self._said(self._client.batches.retrieve(batch_id))

    async def download(self, batch: "Batch") -> list[bytes]:
        """Answers and failures, a line each, in no order."""
        lines: list[bytes] = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                content = await self._said(self._client.files.content(file_id))
                lines += [line for line in content.content.splitlines() if line.strip()]
        return lines

    async def forget(self, batch: "Batch") -> None:
        """Deletes the batch's files at the provider: they hold what people wrote."""
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                await self._said(self._client.files.delete(file_id), missing_is_fine=True)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _said(self, call: Awaitable[T], *, missing_is_fine: bool = False) -> T:
        from openai import APIConnectionError, APIStatusError

        try:
            return await call
        except APIConnectionError as error:
            raise UpstreamUnavailableError(self.url, str(error.__cause__ or error)) from error
        except APIStatusError as error:
            status = error.status_code
            if status == 429 or status >= 500:
                raise UpstreamUnavailableError(self.url, error.message, status=status) from error
            if missing_is_fine and status == 404:
                return None  # type: ignore[return-value]
            raise JudgeError(
                f"{self.url} refuses the batch ({status}): {error.message}. A server without "
                "/v1/files and /v1/batches is asked without --batch."
            ) from error
