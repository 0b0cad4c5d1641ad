"""What the engine's parts hand to each other: how to sample, and what came out."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the tokens of one answer are chosen."""

    max_tokens: int
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """The same seed gives the same draws, whatever else is in the batch."""
    logprobs: int | None = None
    """Alternatives reported for each token, beside the token itself; None reports nothing."""
    ignore_eos: bool = False
    streams: bool = False
    """Text is wanted as it comes, not only whole."""


class TokenLogprob(NamedTuple):
    """A chosen token, its log probability before temperature, and the likeliest tokens."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Delta(NamedTuple):
    """What is new in one choice of a request."""

    choice: int
    """Which of the request's choices."""
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens whose text has been released since the last delta."""
    finish_reason: FinishReason | None = None
    """Set in a choice's last delta."""
    completion_tokens: int = 0
    """So far, the end-of-sequence token included."""
    cached_tokens: int = 0
    """Tokens of the prompt whose keys and values were already there."""
    error: str | None = None
    """The engine failed; nothing follows."""
