"""ChatModel: one protocol for whatever answers chat messages, and its OpenAI-compatible client.

Input: messages. Output: a `Completion`. The client is asynchronous and retries what is worth
retrying; what is not becomes an error of the tree in `errors.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywheel.errors import (
    BadRequestError,
    FlywheelError,
    MissingExtraError,
    UnknownModelError,
    UpstreamUnavailableError,
)
from flywheel.records import Message, Record

if TYPE_CHECKING:
    from openai import APIStatusError


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
            UpstreamUnavailableError: the server did not answer, or answered 429, 5xx or something
                that is no chat completion.
            UnknownModelError: it does not serve the model.
            BadRequestError: it refused the request for another reason.
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
            # The raw response: the client's own parsing lets whatever came with status 200 through.
            raw = await self._client.chat.completions.with_raw_response.create(
                model=model,
                messages=[message.model_dump() for message in messages],  # type: ignore[misc]
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed if seed is not None else omit,
            )
        except APIConnectionError as error:
            reason = str(error.__cause__ or "") or str(error)
            raise UpstreamUnavailableError(self.base_url, reason) from error
        except APIStatusError as error:
            raise self._refusal(error, model) from error
        try:
            reply = _Reply.model_validate_json(raw.http_response.content)
        except ValidationError as error:
            came = " ".join(raw.http_response.text.split()) or "nothing"
            raise UpstreamUnavailableError(
                self.base_url, f"it answered, but not a chat completion: {came:.200}"
            ) from error
        return _completion(reply)

    def _refusal(self, error: "APIStatusError", model: str) -> FlywheelError:
        status, body = error.status_code, error.body
        if status == 429 or status >= 500:
            return UpstreamUnavailableError(self.base_url, error.message, status=status)
        if status == 404 and not isinstance(body, dict):
            # A server that knows the path says in JSON which model it does not know.
            return BadRequestError(
                f"{self.base_url} has no /chat/completions: does the base URL end where it should, "
                "most often in /v1?",
                code="no_such_path",
            )
        if status == 404:
            return UnknownModelError(model)
        return BadRequestError(error.message, code=str(error.code or status))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


class _Lenient(BaseModel):
    """Of an answer only what is used is checked: servers add fields of their own."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Said(_Lenient):
    content: str | None = None


class _Choice(_Lenient):
    message: _Said
    finish_reason: str | None = None


class _Usage(_Lenient):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Reply(_Lenient):
    model: str
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Usage | None = None


def _completion(reply: _Reply) -> Completion:
    choice, usage = reply.choices[0], reply.usage or _Usage()
    return Completion(
        text=choice.message.content or "",
        model=reply.model,
        finish_reason=choice.finish_reason,
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
    )
