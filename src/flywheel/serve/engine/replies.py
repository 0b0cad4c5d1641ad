"""What clients get, as OpenAI writes it: whole answers, stream chunks, log probabilities."""

import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol
from uuid import uuid4

from flywheel.records import JsonObject
from flywheel.serve.engine.generation import Delta, FinishReason, TokenLogprob

Piece = Callable[[int], tuple[str, bytes]]
"""A token as text and as bytes."""


class Usage(NamedTuple):
    """Tokens of a request, all choices together."""

    prompt: int
    completion: int
    cached: int

    def to_json(self) -> JsonObject:
        """As OpenAI's `usage`."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class Choice(NamedTuple):
    """One whole answer."""

    number: int
    text: str
    logprobs: Sequence[TokenLogprob]
    finish_reason: FinishReason | None


class Format(Protocol):
    """One endpoint's way of writing choices."""

    def whole(self, choice: Choice) -> JsonObject:
        """A choice of an answer that is not streamed."""
        ...

    def opening(self, number: int) -> JsonObject | None:
        """A choice's chunk before its first text, where the endpoint has one."""
        ...

    def chunk(self, delta: Delta) -> JsonObject:
        """A choice in a chunk of a stream."""
        ...


class Envelope:
    """The object around choices: the same id, time and model in all chunks of a stream."""

    def __init__(
        self,
        kind: Literal["chat.completion", "text_completion"],
        model: str,
        *,
        includes_usage: bool,
    ) -> None:
        self._kind, self._includes_usage = kind, includes_usage
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self._fields: JsonObject = {
            "id": f"{prefix}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[JsonObject], usage: Usage) -> JsonObject:
        """An answer that is not streamed."""
        return {
            **self._fields,
            "object": self._kind,
            "choices": list(choices),
            "usage": usage.to_json(),
        }

    def chunk(self, choices: Sequence[JsonObject]) -> JsonObject:
        """A chunk of a stream."""
        kind = "chat.completion.chunk" if self._kind == "chat.completion" else self._kind
        chunk: JsonObject = {**self._fields, "object": kind, "choices": list(choices)}
        return chunk | {"usage": None} if self._includes_usage else chunk

    def closing(self, usage: Usage) -> JsonObject | None:
        """The chunk after the last choice's, if the usage is wanted."""
        return self.chunk([]) | {"usage": usage.to_json()} if self._includes_usage else None


class ChatFormat:
    """How /v1/chat/completions writes choices."""

    def __init__(self, piece: Piece, *, logprobs: bool) -> None:
        self._piece, self._has_logprobs = piece, logprobs

    def whole(self, choice: Choice) -> JsonObject:
        """See Format."""
        return {
            "index": choice.number,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def opening(self, number: int) -> JsonObject | None:
        """See Format."""
        return {
            "index": number,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def chunk(self, delta: Delta) -> JsonObject:
        """See Format."""
        return {
            "index": delta.choice,
            "delta": {"content": delta.text} if delta.text else {},
            "logprobs": self._logprobs(delta.logprobs) if delta.logprobs else None,
            "finish_reason": delta.finish_reason,
        }

    def _logprobs(self, chosen: Sequence[TokenLogprob]) -> JsonObject | None:
        if not self._has_logprobs:
            return None
        content: list[JsonObject] = [
            {
                **self._entry(one.token, one.logprob),
                "top_logprobs": [self._entry(*other) for other in one.top],
            }
            for one in chosen
        ]
        return {"content": list(content), "refusal": None}

    def _entry(self, token: int, logprob: float) -> JsonObject:
        text, raw = self._piece(token)
        return {"token": text, "logprob": logprob, "bytes": list(raw)}


class TextFormat:
    """How /v1/completions writes choices."""

    def __init__(self, piece: Piece, *, logprobs: bool) -> None:
        self._piece, self._has_logprobs = piece, logprobs
        self._offsets: dict[int, int] = {}

    def whole(self, choice: Choice) -> JsonObject:
        """See Format."""
        return self._choice(choice)

    def opening(self, number: int) -> JsonObject | None:
        """See Format."""
        return None

    def chunk(self, delta: Delta) -> JsonObject:
        """See Format."""
        return self._choice(Choice(delta.choice, delta.text, delta.logprobs, delta.finish_reason))

    def _choice(self, choice: Choice) -> JsonObject:
        return {
            "index": choice.number,
            "text": choice.text,
            "logprobs": self._logprobs(choice),
            "finish_reason": choice.finish_reason,
        }

    def _logprobs(self, choice: Choice) -> JsonObject | None:
        if not self._has_logprobs:
            return None
        pieces = [self._piece(one.token)[0] for one in choice.logprobs]
        offset = self._offsets.get(choice.number, 0)
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece)
        self._offsets[choice.number] = offset
        return {
            "tokens": list(pieces),
            "token_logprobs": [one.logprob for one in choice.logprobs],
            "top_logprobs": [
                {self._piece(token)[0]: value for token, value in _with_chosen(one)}
                for one in choice.logprobs
            ],
            "text_offset": list(offsets),
        }


def _with_chosen(one: TokenLogprob) -> list[tuple[int, float]]:
    """OpenAI's legacy format lists the chosen token too, likely or not."""
    return [*one.top, (one.token, one.logprob)]


def model_card(
    name: str, *, root: str, parent: str | None, created: int, max_length: int
) -> JsonObject:
    """An entry of GET /v1/models, as vLLM writes it."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "flywheel",
        "root": root,
        "parent": parent,
        "max_model_len": max_length,
    }


def error_body(
    message: str,
    *,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | int | None = None,
) -> JsonObject:
    """An error, as OpenAI and vLLM write it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
