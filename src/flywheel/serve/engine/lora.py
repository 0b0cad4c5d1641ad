"""Many adapters over one base: each row of a batch passes through its own LoRA matrices.

The base model's linear layers are wrapped once, at start. Afterwards an adapter is a plain object
that a row refers to: loading one builds that object and touches no layer, so nothing in flight
waits for it, and dropping the last reference frees it.

Input: a folder as PEFT writes it. The arithmetic is PEFT's, `W x + (alpha / r) B A x`; the tests
hold it to PEFT's own answers. Only plain LoRA on the base model's linear layers is served.
"""

import json
import math
from collections.abc import Mapping, Sequence
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
    """One layer's matrices, the scale already in B."""

    a: "torch.Tensor"
    """(rank, inputs)."""
    b: "torch.Tensor"
    """(outputs, rank)."""


@dataclass(frozen=True, eq=False, slots=True)
class LoraWeights:
    """An adapter ready to be used: the pair of each wrapped layer, None where it has none."""

    adapter_id: str
    pairs: tuple[Pair | None, ...]
    size_bytes: int


class Segment(NamedTuple):
    """A run of tokens in the packed row that go through one adapter."""

    first: int
    last: int
    weights: LoraWeights


class LoraSwitch:
    """Which tokens of the current forward pass go through which adapter; the layers read it."""

    def __init__(self) -> None:
        self.segments: Sequence[Segment] = ()


class Site(NamedTuple):
    """A wrapped layer as adapters see it."""

    number: int
    """Where its pair stands in `LoraWeights.pairs`."""
    inputs: int
    outputs: int


def wrap_linears(
    model: "torch.nn.Module", *, head: "torch.nn.Module", switch: LoraSwitch
) -> dict[str, Site]:
    """Wraps every linear layer but the output head, in place.

    Returns:
        The wrapped layers by the name an adapter's tensors use.
    """
    import torch

    class LoraLinear(torch.nn.Module):
        """A linear layer plus, for each segment, its adapter's update."""

        def __init__(self, base: torch.nn.Linear, number: int) -> None:
            super().__init__()
            self.base = base
            self.number = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.base(x)
            for first, last, weights in switch.segments:
                pair = weights.pairs[self.number]
                if pair is not None:
                    update = torch.nn.functional.linear(x[:, first:last], pair.a)
                    result[:, first:last] += torch.nn.functional.linear(update, pair.b)
            return result

    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    sites = {}
    for number, (name, linear) in enumerate(linears.items()):
        model.set_submodule(name, LoraLinear(linear, number))
        sites[name] = Site(number, linear.in_features, linear.out_features)
    return sites


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
        pairs[site.number] = Pair(a.to(like), (b.float() * scale).to(like))
    size = sum(pair.a.nbytes + pair.b.nbytes for pair in pairs if pair is not None)
    return LoraWeights(folder.adapter_id, tuple(pairs), size)


def _scale(path: Path, folder: AdapterFolder) -> float:
    """Alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023)."""
    config = json.loads((path / CONFIG_FILE).read_bytes())
    unserved = [name for name in _UNSERVED if config.get(name)]
    if unserved:
        raise AdapterError(folder.path, f"{', '.join(unserved)} cannot be served; plain LoRA can")
    rank = math.sqrt(folder.rank) if config.get("use_rslora") else folder.rank
    return folder.alpha / rank
