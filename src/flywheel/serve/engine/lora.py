"""An adapter's matrices, read from its folder into an object that rows refer to.

Loading builds that object and touches no layer of the model, so nothing in flight waits for it, and
dropping the last reference frees it. `switch.py` puts the matrices to use.

Input: a folder as PEFT writes it. The arithmetic is PEFT's, `W x + (alpha / r) B A x`; the tests
hold it to PEFT's own answers. Only plain LoRA on the base model's linear layers is served.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flywheel.adapters import CONFIG_FILE, WEIGHTS_FILE, AdapterFolder
from flywheel.errors import AdapterError

if TYPE_CHECKING:
    import torch

_PEFT_PREFIX = "base_model.model."
_UNSERVED = ("alora_invocation_tokens", "layer_replication", "lora_bias", "use_qalora")
"""Settings of PEFT's that change the arithmetic and leave no trace in the tensors."""


class Pair(NamedTuple):
    """One layer's matrices as a row of tokens meets them, the scale already in B."""

    a: "torch.Tensor"
    """(inputs, rank)."""
    b: "torch.Tensor"
    """(rank, outputs)."""


@dataclass(frozen=True, eq=False, slots=True)
class LoraWeights:
    """An adapter ready to be used: the pair of each wrapped layer, None where it has none."""

    adapter_id: str
    rank: int
    pairs: tuple[Pair | None, ...]
    size_bytes: int


class Site(NamedTuple):
    """A wrapped layer as adapters see it."""

    number: int
    """Where its pair stands in `LoraWeights.pairs`."""
    inputs: int
    outputs: int


def read_lora(
    folder: AdapterFolder, sites: Mapping[str, Site], *, like: "torch.Tensor"
) -> LoraWeights:
    """Reads an inspected adapter's matrices onto the model's device, in its dtype.

    Args:
        folder: what `inspect_adapter` found.
        sites: the layers adapters may change.
        like: any weight of the base model.

    Raises:
        AdapterError: it changes layers the base model does not have, or has another shape.
    """
    from safetensors.torch import load

    path = Path(folder.path)
    scale = _scale(path, folder)
    tensors = load((path / WEIGHTS_FILE).read_bytes())
    pairs: list[Pair | None] = [None] * len(sites)
    for name, a in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        b = tensors[f"{module}.lora_B.weight"]
        site = sites.get(module.removeprefix(_PEFT_PREFIX))
        if site is None:
            raise AdapterError(folder.path, f"the base model has no linear layer {module} to adapt")
        if a.shape[1] != site.inputs or b.shape[0] != site.outputs:
            found, expected = f"{a.shape[1]} to {b.shape[0]}", f"{site.inputs} to {site.outputs}"
            raise AdapterError(folder.path, f"{module} maps {found}; the base model's {expected}")
        pairs[site.number] = Pair(_column(a, like), _column(b.float() * scale, like))
    size = sum(pair.a.nbytes + pair.b.nbytes for pair in pairs if pair is not None)
    return LoraWeights(folder.adapter_id, folder.rank, tuple(pairs), size)


def _column(matrix: "torch.Tensor", like: "torch.Tensor") -> "torch.Tensor":
    return matrix.t().to(like.device, like.dtype).contiguous()


def _scale(path: Path, folder: AdapterFolder) -> float:
    """Alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023)."""
    config = json.loads((path / CONFIG_FILE).read_bytes())
    unserved = [name for name in _UNSERVED if config.get(name)]
    if unserved:
        raise AdapterError(folder.path, f"{', '.join(unserved)} cannot be served; plain LoRA can")
    rank = math.sqrt(folder.rank) if config.get("use_rslora") else folder.rank
    return folder.alpha / rank
