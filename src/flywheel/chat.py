"""ChatModel: one protocol for whatever answers chat messages, and its OpenAI-compatible client.

Input: messages. Output: a `Completion`. The client is asynchronous and retries what is worth
retrying; what is not becomes an error of the tree in `errors.py`.
"""

import email.utils
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flywheel.errors import (
    BadRequestError,
    FlywheelError,
    MissingExtraError,
    UnknownModelError,
    UpstreamUnavailableError,
)
from flywheel.records import JsonObject, Message, Record

if TYPE_CHECKING:
    from openai import APIStatusError
    from openai.types.shared_params import ResponseFormatJSONSchema


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


class StructuredCompletion(Completion):
    """What a chat model answered when it was asked for JSON of a schema."""

    refusal: str | None = None
    """What it said instead of answering: OpenAI's `refusal`."""
    cached_input_tokens: int | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    """`retry-after` and rate-limit headers of the answer, names in lower case."""


class StructuredChatModel(Protocol):
    """Anything that answers chat messages with JSON of a schema."""

    async def complete_structured(  # noqa: PLR0913 - all of them by name
        self,
        messages: Sequence[Message],
        *,
        model: str,
        schema: JsonObject,
        temperature: float,
        max_tokens: int,
        timeout_s: float,
    ) -> StructuredCompletion:
        """Answers once. Whether the text really is of the schema is for the caller to see.

        Args:
            messages: What was said so far.
            model: The name the server knows it by.
            schema: JSON Schema within OpenAI's strict subset.
            temperature: 0 for the likeliest answer.
            max_tokens: Of the answer.
            timeout_s: Of the whole call.

        Raises:
            UpstreamUnavailableError: the server did not answer, or answered 429, 5xx or something
                that is no chat completion; with `retry_after_s` where it says.
            UnknownModelError: it does not serve the model.
            BadRequestError: it refused the request for another reason.
        """
        ...


class OpenAIChatModel:
    """A ChatModel and StructuredChatModel behind an OpenAI-compatible base URL (`http://host/v1`).

    Args:
        base_url: with its `/v1`, as the openai client takes it.
        api_key: "none" where the server wants none.
        timeout_s: of a call that does not say its own.
        max_retries: 0 for a caller that paces itself.
        headers: sent with every request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "none",
        timeout_s: float = 120,
        max_retries: int = 4,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingExtraError("openai", "gateway") from error
        self.base_url = base_url
        self._client = AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout_s,
            max_retries=max_retries,
            default_headers=headers,
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
        return _completion(_read(raw.http_response.text, self.base_url))

    async def complete_structured(  # noqa: PLR0913 - all of them by name
        self,
        messages: Sequence[Message],
        *,
        model: str,
        schema: JsonObject,
        temperature: float,
        max_tokens: int,
        timeout_s: float,
    ) -> StructuredCompletion:
        """Answers once with JSON of the schema; see StructuredChatModel."""
        from openai import APIConnectionError, APIStatusError

        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=model,
                messages=[message.model_dump() for message in messages],  # type: ignore[misc]
                temperature=temperature,
                max_tokens=max_tokens,
                response_format=_json_of(schema),
                timeout=timeout_s,
            )
        except APIConnectionError as error:
            reason = str(error.__cause__ or "") or str(error)
            raise UpstreamUnavailableError(self.base_url, reason) from error
        except APIStatusError as error:
            raise self._refusal(error, model) from error
        headers = _limit_headers(raw.http_response.headers)
        return read_structured(raw.http_response.text, url=self.base_url, headers=headers)

    def _refusal(self, error: "APIStatusError", model: str) -> FlywheelError:
        status, body = error.status_code, error.body
        if status == 429 or status >= 500:
            headers = _limit_headers(error.response.headers)
            return UpstreamUnavailableError(
                self.base_url,
                error.message,
                status=status,
                retry_after_s=_retry_after_s(headers),
                headers=headers,
            )
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


def structured_body(
    messages: Sequence[Message],
    *,
    model: str,
    schema: JsonObject,
    temperature: float,
    max_tokens: int,
) -> JsonObject:
    """The JSON that `complete_structured` sends, for who sends it another way: the batch API."""
    return {
        "model": model,
        "messages": [message.model_dump() for message in messages],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "response_format": {**_json_of(schema)},  # type: ignore[dict-item]
    }


def read_structured(
    text: str, *, url: str, headers: Mapping[str, str] | None = None
) -> StructuredCompletion:
    """A chat completion's JSON, read.

    Raises:
        UpstreamUnavailableError: it is none; `url` says whose it is.
    """
    reply = _read(text, url)
    details = reply.usage.prompt_tokens_details if reply.usage else None
    return StructuredCompletion(
        **_completion(reply).model_dump(),
        refusal=reply.choices[0].message.refusal,
        cached_input_tokens=details.cached_tokens if details else None,
        headers=dict(headers or {}),
    )


def _json_of(schema: JsonObject) -> "ResponseFormatJSONSchema":
    return {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": {**schema}},
    }


def _read(text: str, url: str) -> "_Reply":
    try:
        return _Reply.model_validate_json(text)
    except ValidationError as error:
        came = " ".join(text.split()) or "nothing"
        raise UpstreamUnavailableError(
            url, f"it answered, but not a chat completion: {came:.200}"
        ) from error


class _Lenient(BaseModel):
    """Of an answer only what is used is checked: servers add fields of their own."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Said(_Lenient):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Lenient):
    message: _Said
    finish_reason: str | None = None


class _PromptTokens(_Lenient):
    cached_tokens: int | None = None


class _Usage(_Lenient):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptTokens | None = None


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


def _limit_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in headers.items()
        if "ratelimit" in name.lower() or name.lower().startswith("retry-after")
    }


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait; `retry-after-ms`, else `retry-after` as seconds or a date (RFC 9110)."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            wait_s = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return max(0.0, wait_s) if math.isfinite(wait_s) else None
    moment = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return max(0.0, email.utils.mktime_tz(moment) - time.time()) if moment else None
