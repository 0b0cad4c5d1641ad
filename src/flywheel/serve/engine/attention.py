"""Attention over a packed batch: decoding rows together, each prompt by itself.

The model sees one long row, all sequences' new tokens end to end, and this function, which
`transformers` calls in every layer in place of its own, keeps them apart. No token is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flywheel.serve.engine.kv import KeyValueCache

if TYPE_CHECKING:
    import torch

IMPLEMENTATION = "flywheel_packed"
"""The name under which `transformers` knows this attention."""


class Prompt(NamedTuple):
    """New tokens of one row, longer than one: a prompt, or the next part of one."""

    first: int
    """Where they are in the packed row."""
    last: int
    slot: int
    start: int
    """Position of the first in its own sequence."""
    mask: "torch.Tensor | None"
    """Who may look at whom; None when the part starts at 0 and plain causality says it."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The rows that add one token each."""

    tokens: "torch.Tensor"
    """Where each is in the packed row."""
    slots: "torch.Tensor"
    positions: "torch.Tensor"
    """Of each in its own sequence."""
    length: int
    """The longest row, this token included."""
    lanes: "torch.Tensor | None"
    """Which token each slot from 0 on brings, 0 where none; None: gather the slots instead."""
    mask: "torch.Tensor"
    """Which positions each lane (or gathered row) may look at: (rows, 1, 1, length)."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where every token of one packed forward pass belongs."""

    cache: KeyValueCache
    prompts: Sequence[Prompt]
    decoding: Decoding | None


def register() -> None:
    """Makes the attention known to `transformers`; doing it again is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, packed_attention)


def packed_attention(  # noqa: PLR0913 - the signature transformers calls
    module: "torch.nn.Module",
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: "torch.Tensor | None",
    *,
    flywheel_step: Step,
    scaling: float | None = None,
    **_: object,
) -> tuple["torch.Tensor", None]:
    """Writes new keys and values to their slots and attends within each sequence.

    Args:
        module: the attention layer, of which only `layer_idx` is used.
        query: (1, query heads, tokens, width).
        key: (1, heads, tokens, width).
        value: as `key`.
        attention_mask: none is made for an attention `transformers` does not know.
        flywheel_step: where every token belongs.
        scaling: of the scores.

    Returns:
        (1, tokens, query heads, width), and no weights.
    """
    layer = module.layer_idx
    assert isinstance(layer, int)
    cache, new = flywheel_step.cache, New(query[0], key[0], value[0], scaling)
    kept = Kept(cache.keys[layer], cache.values[layer])
    output = query.new_empty((query.shape[2], query.shape[1], value.shape[3]))
    if flywheel_step.decoding is not None:
        _decode(flywheel_step.decoding, new, kept, output)
    for prompt in flywheel_step.prompts:
        _prefill(prompt, new, kept, output)
    return output.unsqueeze(0), None


class New(NamedTuple):
    """What this layer computed for the packed tokens: (heads, tokens, width) each."""

    queries: "torch.Tensor"
    keys: "torch.Tensor"
    values: "torch.Tensor"
    scaling: float | None


class Kept(NamedTuple):
    """This layer's cache: (slots, heads, capacity, width) each."""

    keys: "torch.Tensor"
    values: "torch.Tensor"


def _decode(rows: Decoding, new: New, kept: Kept, output: "torch.Tensor") -> None:
    """One query a row. The query heads that share a key head stand as its queries: no copies."""
    import torch

    kept.keys[rows.slots, :, rows.positions] = new.keys[:, rows.tokens].transpose(0, 1)
    kept.values[rows.slots, :, rows.positions] = new.values[:, rows.tokens].transpose(0, 1)
    # All slots up to the last used one, as a view; or the used ones only, as a copy.
    lanes, taken = rows.tokens, rows.slots
    if rows.lanes is None:
        past, past_values = kept.keys[taken, :, : rows.length], kept.values[taken, :, : rows.length]
    else:
        lanes = rows.lanes
        past = kept.keys[: len(lanes), :, : rows.length]
        past_values = kept.values[: len(lanes), :, : rows.length]
    heads, width = new.keys.shape[0], new.queries.shape[2]
    grouped = new.queries[:, lanes].reshape(heads, -1, len(lanes), width).permute(2, 0, 1, 3)
    mixed = torch.nn.functional.scaled_dot_product_attention(
        grouped, past, past_values, attn_mask=rows.mask, scale=new.scaling
    ).flatten(1, 2)
    output[rows.tokens] = mixed if rows.lanes is None else mixed[taken]


def _prefill(prompt: Prompt, new: New, kept: Kept, output: "torch.Tensor") -> None:
    import torch

    here, slot = slice(prompt.first, prompt.last), prompt.slot
    end = prompt.start + prompt.last - prompt.first
    kept.keys[slot, :, prompt.start : end] = new.keys[:, here]
    kept.values[slot, :, prompt.start : end] = new.values[:, here]
    mixed = torch.nn.functional.scaled_dot_product_attention(
        new.queries[None, :, here],
        kept.keys[slot : slot + 1, :, :end],
        kept.values[slot : slot + 1, :, :end],
        attn_mask=prompt.mask,
        is_causal=prompt.mask is None,
        scale=new.scaling,
        enable_gqa=True,
    )
    output[here] = mixed[0].transpose(0, 1)
