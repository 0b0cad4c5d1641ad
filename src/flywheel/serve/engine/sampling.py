"""Logits in, tokens out: greedy or nucleus sampling, each row with its own seeded generator."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flywheel.serve.engine.generation import Sampling, TokenLogprob

if TYPE_CHECKING:
    import torch

MINIMUM_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say."""
_NUCLEUS = 512
"""Tokens looked at before the whole vocabulary is sorted; nearly always enough."""


class Draw(NamedTuple):
    """One row's way of choosing, and its generator."""

    sampling: Sampling
    generator: random.Random


def choose(logits: "torch.Tensor", draws: Sequence[Draw]) -> list[TokenLogprob]:
    """Chooses a token for each row.

    Args:
        logits: float32, (rows, vocabulary).
        draws: one a row, in the same order.

    Returns:
        The tokens; `logprob` and `top` are filled for rows that ask for log probabilities.
    """
    greedy = logits.argmax(dim=-1).tolist()
    chosen = []
    for row, (sampling, generator) in enumerate(draws):
        token = greedy[row]
        if sampling.temperature > 0:
            token = _draw(logits[row], sampling, generator)
        chosen.append(_with_logprobs(logits[row], token, sampling.logprobs))
    return chosen


def _draw(logits: "torch.Tensor", sampling: Sampling, generator: random.Random) -> int:
    """Inverse transform sampling: one uniform number a token, so that a seed fixes the answer.

    The nucleus is the shortest list of likeliest tokens that together reach `top_p` (Holtzman et
    al. 2020); it always holds the likeliest one.
    """
    import torch

    scaled = (logits - logits.amax()) / sampling.temperature
    probabilities = torch.softmax(scaled, dim=-1, dtype=torch.float64)
    if sampling.top_p >= 1:
        return _pick(probabilities.cumsum(0), generator)
    top, tokens = probabilities.topk(min(_NUCLEUS, len(probabilities)))
    cumulative = top.cumsum(0)
    if float(cumulative[-1]) < sampling.top_p and len(tokens) < len(probabilities):
        top, tokens = probabilities.sort(descending=True)
        cumulative = top.cumsum(0)
    size = int(torch.searchsorted(cumulative, sampling.top_p)) + 1
    return int(tokens[_pick(cumulative[:size], generator)])


def _pick(cumulative: "torch.Tensor", generator: random.Random) -> int:
    import torch

    point = generator.random() * float(cumulative[-1])
    return min(int(torch.searchsorted(cumulative, point, right=True)), len(cumulative) - 1)


def _with_logprobs(logits: "torch.Tensor", token: int, count: int | None) -> TokenLogprob:
    import torch

    if count is None:
        return TokenLogprob(token, 0.0, ())
    logprobs = torch.log_softmax(logits, dim=-1)
    values, tokens = logprobs.topk(min(count, len(logprobs)))
    top = [
        (one, max(value, MINIMUM_LOGPROB))
        for one, value in zip(tokens.tolist(), values.tolist(), strict=True)
    ]
    return TokenLogprob(token, max(float(logprobs[token]), MINIMUM_LOGPROB), tuple(top))
