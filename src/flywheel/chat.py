"""ChatModel: one protocol for whatever answers chat messages, and its OpenAI-compatible client.

Input: messages. Output: a `Completion`. The client is asynchronous and retries what is worth
retrying; what is not becomes an error of the tree in `errors.py`.
"""

from collections.abc import Sequence
from typing import Protocol

from flywheel.errors import BadRequestError, MissingExtraError, UpstreamUnavailableError
from flywheel.records import Message, Record


class Completion(Record):
    """What a chat model answered."""

    text: str
    model: str
    """The name the server says answered."""
    finish_reason: str | None
    input_tokens: int | None = None
    output_tokens: int | None = None


class ChatModel(Protocol):
    """Anything that answers chat messages."""

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int | None = None,
    ) -> Completion:
        """Answers once.

        Raises:
            UpstreamUnavailableError: the server did not answer or answered 429 or 5xx.
            BadRequestError: it refused the request.
        """
        ...


class OpenAIChatModel:
    """A ChatModel behind an OpenAI-compatible base URL (`http://host:port/v1`)."""

    def __init__(
        self, base_url: str, *, api_key: str = "none", timeout_s: float = 120, max_retries: int = 4
    ) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingExtraError("openai", "gateway") from error
        self.base_url = base_url
        self._client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout_s, max_retries=max_retries
        )

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        model: str,
        temperature: float = 0.0,
        max_tokens: int = 64,
        seed: int | None = None,
    ) -> Completion:
        """Answers once; see ChatModel."""
        from openai import APIConnectionError, APIStatusError, omit

        try:
            reply = await self._client.chat.completions.create(
                model=model,
                messages=[message.model_dump() for message in messages],  # type: ignore[misc]
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed if seed is not None else omit,
            )
        except APIConnectionError as error:
            raise UpstreamUnavailableError(self.base_url, str(error.__cause__ or error)) from error
        except APIStatusError as error:
            if error.status_code == 429 or error.status_code >= 500:
                raise UpstreamUnavailableError(
                    self.base_url, error.message, status=error.status_code
                ) from error
            raise BadRequestError(error.message, code=str(error.status_code)) from error
        choice = reply.choices[0]
        return Completion(
            text=choice.message.content or "",
            model=reply.model,
            finish_reason=choice.finish_reason,
            input_tokens=reply.usage.prompt_tokens if reply.usage else None,
            output_tokens=reply.usage.completion_tokens if reply.usage else None,
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()
