"""Which tokens go through which adapter, and the linear layers that obey.

The base model's linear layers are wrapped once, at start. For each forward pass the switch is told
which tokens belong to which adapter; every wrapped layer adds `B A x` for its tokens.

Long runs of tokens go through their adapter one after the other. The next tokens of many rows are
few tokens of several adapters: there the matrices of all these adapters stand side by side in one
product, and a mask keeps each token to its own columns. Small products cost mostly their calls: 16
tokens of four adapters took 50 us a layer so, and 170 us one adapter after the other (1,536 x 576,
rank 16, one CPU core).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flywheel.serve.engine.lora import LoraWeights, Pair, Site

if TYPE_CHECKING:
    import torch

_MOST_TOKENS = 64
"""Packed tokens up to which adapters are put side by side."""
_MOST_RANK = 128
"""Columns side by side: beyond, the products cost more than the calls they save."""


class Segment(NamedTuple):
    """A run of tokens in the packed row that go through one adapter."""

    first: int
    last: int
    weights: LoraWeights


class Route(NamedTuple):
    """A run of tokens and the matrices they go through, layer by layer."""

    first: int
    last: int
    pairs: Sequence[Pair | None]
    mask: "torch.Tensor | None" = None
    """(tokens, columns): 1 where the column is of the token's own adapter. None is all ones."""


class _SideBySide(NamedTuple):
    """Several adapters' matrices in one."""

    columns: dict[LoraWeights, slice]
    pairs: Sequence[Pair | None]


class LoraSwitch:
    """Tells the wrapped layers what to add in the current forward pass."""

    def __init__(self) -> None:
        self.routes: Sequence[Route] = ()
        self._joined: _SideBySide | None = None
        self._used: set[LoraWeights] = set()
        """Adapters that needed the joined matrices since they were made."""

    def turn(self, segments: Sequence[Segment], *, tokens: int) -> None:
        """Sets the routes of the coming pass.

        Args:
            segments: in the order of their tokens.
            tokens: in the whole packed row.
        """
        active = {segment.weights for segment in segments}
        rank = sum(weights.rank for weights in active)
        if len(active) > 1 and tokens <= _MOST_TOKENS and rank <= _MOST_RANK:
            self.routes = [self._side_by_side(segments, active)]
        else:
            self.routes = [Route(one.first, one.last, one.weights.pairs) for one in segments]

    def _side_by_side(self, segments: Sequence[Segment], active: set[LoraWeights]) -> Route:
        import torch

        if self._joined is None or not active <= self._joined.columns.keys():
            self._joined = _join(active, self._used - active)
            self._used = set()
        self._used |= active
        first, last = segments[0].first, segments[-1].last
        width = sum(weights.rank for weights in self._joined.columns)
        some = next(pair for pair in self._joined.pairs if pair is not None)
        mask = torch.zeros((last - first, width), dtype=some.a.dtype, device=some.a.device)
        for segment in segments:
            rows = slice(segment.first - first, segment.last - first)
            mask[rows, self._joined.columns[segment.weights]] = 1
        return Route(first, last, self._joined.pairs, mask)


def _join(needed: set[LoraWeights], recent: set[LoraWeights]) -> _SideBySide:
    """Puts matrices side by side: those needed now, and those needed lately as far as they fit."""
    import torch

    columns: dict[LoraWeights, slice] = {}
    width = 0
    for weights in [*needed, *recent]:
        if weights in needed or width + weights.rank <= _MOST_RANK:
            columns[weights] = slice(width, width + weights.rank)
            width += weights.rank
    pairs: list[Pair | None] = []
    for site in zip(*(weights.pairs for weights in columns), strict=True):
        some = next((pair for pair in site if pair is not None), None)
        if some is None:
            pairs.append(None)
            continue
        absent = [
            Pair(
                some.a.new_zeros((some.a.shape[0], weights.rank)),
                some.b.new_zeros((weights.rank, some.b.shape[1])),
            )
            for weights in columns
        ]
        whole = [pair or zeros for pair, zeros in zip(site, absent, strict=True)]
        pairs.append(
            Pair(torch.cat([one.a for one in whole], dim=1), torch.cat([one.b for one in whole]))
        )
    return _SideBySide(columns, pairs)


def wrap_linears(
    model: "torch.nn.Module", *, head: "torch.nn.Module", switch: LoraSwitch
) -> dict[str, Site]:
    """Wraps every linear layer but the output head, in place.

    Returns:
        The wrapped layers by the name an adapter's tensors use.
    """
    import torch

    class LoraLinear(torch.nn.Module):
        """A linear layer plus what the switch says."""

        def __init__(self, base: torch.nn.Linear, number: int) -> None:
            super().__init__()
            self.base = base
            self.number = number

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.base(x)
            for first, last, pairs, mask in switch.routes:
                pair = pairs[self.number]
                if pair is not None:
                    update = torch.mm(x[0, first:last], pair.a)
                    if mask is not None:
                        update.mul_(mask)
                    result[0, first:last].addmm_(update, pair.b)
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
