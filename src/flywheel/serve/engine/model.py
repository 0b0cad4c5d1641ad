"""The base model, run on packed batches: any mix of prompts and next tokens, of any adapters.

Input: a folder from the resolver. Output: logits of the tokens that were asked for. The layers are
`transformers`' own; attention, cache and adapters are the engine's own.
A model whose answers differ from plain `transformers` on a probe is refused at start.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from flywheel.errors import BaseModelError, MissingExtraError
from flywheel.serve.engine.attention import IMPLEMENTATION, Decoding, Prompt, Step, register
from flywheel.serve.engine.kv import Heads, KeyValueCache
from flywheel.serve.engine.lora import LoraWeights
from flywheel.serve.engine.switch import LoraSwitch, Segment, wrap_linears

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
_PROBE = (5, 11, 7, 13, 3, 17, 2, 19)
_PROBE_COSINE = 0.99
"""Below this the packed logits are not the plain ones; bfloat16 noise is above 0.999."""


class Chunk(NamedTuple):
    """New tokens of one sequence in a forward pass."""

    slot: int
    start: int
    """Position of the first of them; what is before is in the slot already."""
    tokens: Sequence[int]
    weights: LoraWeights | None
    """The adapter; None is the base model."""
    wants_logits: bool
    """Whether the token after the last one is to be chosen."""


class PackedModel:
    """A causal language model with `slots` sequences in flight."""

    def __init__(
        self,
        path: Path,
        *,
        slots: int,
        max_length: int | None = None,
        device: Device = "auto",
        dtype: Dtype = "auto",
    ) -> None:
        """Loads the model and proves it on a probe.

        Raises:
            BaseModelError: the folder does not load, or its architecture cannot be served.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("torch and transformers", "models") from error
        register()
        self.device = _device(device)
        self._model = _load(path, _dtype(dtype, self.device), self.device)
        config = self._model.config.get_text_config()
        limit = _context_limit(path, config)
        self.max_length = min(limit, max_length or limit)
        self.vocabulary = int(config.vocab_size)
        head = self._model.get_output_embeddings()
        self.like: torch.Tensor = head.weight
        self._switch = LoraSwitch()
        self.sites = wrap_linears(self._model, head=head, switch=self._switch)
        self.cache = KeyValueCache(
            _heads(config), slots=slots, max_length=self.max_length, like=self.like
        )
        self.eos = _eos(self._model)
        self._probe(path)

    def forward(self, chunks: Sequence[Chunk]) -> "torch.Tensor":
        """Runs new tokens through the model and keeps their keys and values.

        Args:
            chunks: at most one a slot. Chunks of one token are decoded together.

        Returns:
            float32 logits, a row for each chunk that wants them, in the order of `chunks`.
        """
        import torch

        # Tokens of one adapter stand together, so that its update is one product over a slice.
        order = sorted(range(len(chunks)), key=lambda index: id(chunks[index].weights))
        packed = [chunks[index] for index in order]
        self.cache.reserve(max(chunk.start + len(chunk.tokens) for chunk in packed))
        with torch.inference_mode():
            step, last = self._lay_out(packed)
            tokens = [token for chunk in packed for token in chunk.tokens]
            positions = [chunk.start + at for chunk in packed for at in range(len(chunk.tokens))]
            output = self._model(
                input_ids=self._tensor(tokens).unsqueeze(0),
                position_ids=self._tensor(positions).unsqueeze(0),
                use_cache=False,
                logits_to_keep=self._tensor(last),
                flywheel_step=step,
            )
            wanted = [index for index in order if chunks[index].wants_logits]
            back = sorted(range(len(wanted)), key=wanted.__getitem__)
            logits: torch.Tensor = output.logits[0][self._tensor(back)].float()
        return logits

    def _lay_out(self, packed: Sequence[Chunk]) -> tuple[Step, list[int]]:
        """Says where each token belongs; also the packed positions whose logits are wanted."""
        segments: list[Segment] = []
        prompts: list[Prompt] = []
        single: list[tuple[int, Chunk]] = []
        last: list[int] = []
        first = 0
        for chunk in packed:
            end = first + len(chunk.tokens)
            if len(chunk.tokens) == 1:
                single.append((first, chunk))
            else:
                mask = self._causal(chunk.start, len(chunk.tokens)) if chunk.start else None
                prompts.append(Prompt(first, end, chunk.slot, chunk.start, mask))
            if chunk.weights is not None:
                if segments and segments[-1].weights is chunk.weights:
                    segments[-1] = Segment(segments[-1].first, end, chunk.weights)
                else:
                    segments.append(Segment(first, end, chunk.weights))
            if chunk.wants_logits:
                last.append(end - 1)
            first = end
        self._switch.turn(segments, tokens=first)
        return Step(self.cache, prompts, self._decoding(single)), last

    def _decoding(self, single: Sequence[tuple[int, Chunk]]) -> Decoding | None:
        import torch

        if not single:
            return None
        at = self._tensor([first for first, _ in single])
        slots = self._tensor([chunk.slot for _, chunk in single])
        positions = self._tensor([chunk.start for _, chunk in single])
        length = max(chunk.start for _, chunk in single) + 1
        span = max(chunk.slot for _, chunk in single) + 1
        # Free slots among the used ones cost less than gathering every used one's keys, as long as
        # they are the minority.
        is_dense = span <= 2 * len(single)
        lanes, reach = None, positions
        if is_dense:
            lanes = torch.zeros(span, dtype=torch.long, device=self.device)
            reach = lanes.clone()
            lanes[slots], reach[slots] = at, positions
        mask = torch.arange(length, device=self.device)[None] <= reach[:, None]
        return Decoding(at, slots, positions, length, lanes, mask[:, None, None])

    def _causal(self, start: int, count: int) -> "torch.Tensor":
        import torch

        seen = torch.arange(start + count, device=self.device)
        return seen[None] <= seen[start:, None]

    def _tensor(self, values: Sequence[int]) -> "torch.Tensor":
        import torch

        return torch.tensor(values, dtype=torch.long, device=self.device)

    def _probe(self, path: Path) -> None:
        """Compares a packed prompt and a packed next token with the model's plain forward pass."""
        import torch

        tokens = [token % self.vocabulary for token in _PROBE]
        with torch.inference_mode():
            self._model.set_attn_implementation("eager")
            plain = self._model(input_ids=self._tensor(tokens)[None], use_cache=False).logits[0]
            self._model.set_attn_implementation(IMPLEMENTATION)
        prompt = self.forward([Chunk(0, 0, tokens[:-1], None, wants_logits=True)])
        following = self.forward([Chunk(0, len(tokens) - 1, tokens[-1:], None, wants_logits=True)])
        packed = torch.cat([prompt, following])
        cosine = torch.nn.functional.cosine_similarity(packed, plain[-2:].float())
        if not bool((cosine > _PROBE_COSINE).all()):
            raise BaseModelError(
                str(path),
                [
                    f"packed inference gives other logits than transformers (cosine "
                    f"{cosine.min():.3f}): its attention is of a kind this engine does not know"
                ],
            )


def _load(path: Path, dtype: "torch.dtype", device: "torch.device") -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=IMPLEMENTATION,
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(str(path), [f"transformers: {error}"]) from error
    return model.to(device).eval().requires_grad_(False)


def _heads(config: "PreTrainedConfig") -> Heads:
    queries = int(config.num_attention_heads)
    return Heads(
        layers=int(config.num_hidden_layers),
        per_layer=int(getattr(config, "num_key_value_heads", None) or queries),
        width=int(getattr(config, "head_dim", None) or config.hidden_size // queries),
    )


def _device(device: Device) -> "torch.device":
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _dtype(dtype: Dtype, device: "torch.device") -> "torch.dtype":
    """bfloat16 where the hardware has it; a CPU without it emulates it, slower than float32."""
    import torch

    if dtype == "auto":
        native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    found: torch.dtype = getattr(torch, dtype)
    return found


def _context_limit(path: Path, config: "PreTrainedConfig") -> int:
    """Longest sequence for which full attention is what the model would do."""
    kinds = set(getattr(config, "layer_types", None) or ())
    unknown = kinds - {"full_attention", "sliding_attention"}
    if unknown:
        raise BaseModelError(
            str(path), [f"layers of kind {', '.join(sorted(unknown))} cannot be served"]
        )
    limit = int(getattr(config, "max_position_embeddings", None) or 2048)
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    return min(limit, int(window)) if window and slides else limit


def _eos(model: "PreTrainedModel") -> frozenset[int]:
    found = model.generation_config.eos_token_id
    ids = found if isinstance(found, list) else [found]
    return frozenset(int(one) for one in ids if one is not None)
