"""What clients send, as OpenAI defines it, validated field by field.

A parameter that would change the answer and is not honoured is refused by name, and so is one
nobody knows: an answer is never quietly another one than was asked for.
"""

import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from flywheel.errors import BadRequestError
from flywheel.records import JsonObject
from flywheel.serve.engine.generation import Sampling

MOST_CHOICES = 64
MOST_STOPS = 16

_NEUTRAL: dict[str, tuple[JsonValue, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0, 0.0),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
"""Parameters this engine does not honour, and the values with which that makes no difference."""
_IRRELEVANT = frozenset(
    {"metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "safety_identifier"}
    | {"service_tier", "store", "user"}
)
"""Parameters that do not change the answer."""
_ROLES = Literal["system", "developer", "user", "assistant", "tool", "function"]

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
TopP = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Stop = Annotated[str, Field(min_length=1)]
Stops = Annotated[list[Stop], Field(max_length=MOST_STOPS)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Request):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextPart(_Request):
    """A part of a message's content; this engine reads text."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message. What else it carries goes to the chat template as it came."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    role: _ROLES
    content: str | list[TextPart] | None = None

    def for_template(self) -> JsonObject:
        """As chat templates expect it: text content, and the roles they know."""
        dumped = self.model_dump()
        content = self.content or ""
        dumped["content"] = (
            content if isinstance(content, str) else "".join(part.text for part in content)
        )
        dumped["role"] = "system" if self.role == "developer" else self.role
        return dumped


class _Completion(_Request):
    """What both kinds of completion take."""

    model: str
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Stop | Stops | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    """vLLM's extension: go on to max_tokens whatever the model says."""

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _sampling(self, *, max_tokens: int, logprobs: int | None) -> Sampling:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(stop),
            seed=self.seed,
            logprobs=logprobs,
            ignore_eos=bool(self.ignore_eos),
            streams=bool(self.stream),
        )


class ChatRequest(_Completion):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def wanted_tokens(self) -> int | None:
        """The most tokens of an answer; None is as many as the context has room for."""
        return self.max_completion_tokens or self.max_tokens

    def sampling(self, room: int) -> Sampling:
        """How to sample, with `room` tokens left in the context."""
        count = (self.top_logprobs or 0) if self.logprobs else None
        return self._sampling(max_tokens=self.wanted_tokens or room, logprobs=count)


class TextRequest(_Completion):
    """The body of POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_CHOICES)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
        | Annotated[
            list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]],
            Field(min_length=1, max_length=MOST_CHOICES),
        ]
    )
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def wanted_tokens(self) -> int:
        """The most tokens of an answer; 16 is OpenAI's default here."""
        return self.max_tokens or 16

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]

    def sampling(self, room: int) -> Sampling:
        """How to sample; `room` is not asked, because there is a default."""
        return self._sampling(max_tokens=self.wanted_tokens, logprobs=self.logprobs)


_AnyRequest = TypeVar("_AnyRequest", ChatRequest, TextRequest)


def parse_chat(body: bytes) -> ChatRequest:
    """Reads a chat request.

    Raises:
        BadRequestError: not JSON, or a parameter does not hold; `param` names it.
    """
    request = _validate(ChatRequest, parse_object(body))
    if request.top_logprobs is not None and not request.logprobs:
        raise BadRequestError(
            "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value"
        )
    return _checked(request)


def parse_text(body: bytes) -> TextRequest:
    """Reads a plain completion request; see `parse_chat`."""
    return _checked(_validate(TextRequest, parse_object(body)))


def parse_object(body: bytes) -> JsonObject:
    """Reads a JSON object.

    Raises:
        BadRequestError: it is none.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(data, dict):
        raise BadRequestError("the body must be a JSON object", code="invalid_json")
    return data


def _checked(request: _AnyRequest) -> _AnyRequest:
    if request.stream_options is not None and not request.stream:
        raise BadRequestError(
            "stream_options is only for streams: set stream to true",
            param="stream_options",
            code="invalid_value",
        )
    return request


def _validate(kind: type[_AnyRequest], data: JsonObject) -> _AnyRequest:
    wanted = {name: value for name, value in data.items() if name not in _IRRELEVANT}
    for name, neutral in _NEUTRAL.items():
        value = wanted.pop(name, None)
        if value is not None and value not in neutral:
            raise BadRequestError(
                f"{name} is not supported by this engine (found {_shown(value)}); leave it out",
                param=name,
                code="unsupported_parameter",
            )
    try:
        return kind.model_validate(wanted)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> BadRequestError:
    """Every mistake in the message; the first one's parameter and code."""
    # One mistake in a value of several shapes gives an error for each shape: the first will do.
    problems: dict[str, ErrorDetails] = {}
    for problem in error.errors(include_url=False):
        problems.setdefault(_param(problem), problem)
    param, first = next(iter(problems.items()))
    codes = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    return BadRequestError(
        "; ".join(_sentence(name, problem) for name, problem in problems.items()),
        param=param,
        code=codes.get(first["type"], "invalid_value"),
    )


def _param(problem: ErrorDetails) -> str:
    """`temperature`, `messages[0].role`: the path without pydantic's names of shapes."""
    name = str(problem["loc"][0])
    if name == "messages":
        for part in problem["loc"][1:]:
            if isinstance(part, int):
                name += f"[{part}]"
            elif part in ("role", "content", "type", "text"):
                name += f".{part}"
    return name


def _sentence(name: str, problem: ErrorDetails) -> str:
    if problem["type"] == "missing":
        return f"{name} is required and missing"
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a parameter of this endpoint"
    return f"{name}: {problem['msg']} (found {_shown(problem['input'])})"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
