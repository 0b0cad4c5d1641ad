"""Each token gets its own adapter's update, however the adapters are put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from flywheel.serve.engine.lora import LoraWeights, Pair
from flywheel.serve.engine.switch import LoraSwitch, Segment, wrap_linears

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

Wired = tuple[LoraSwitch, "torch.nn.ModuleDict"]
INPUTS, OUTPUTS = 6, 5


def adapter(seed: int, *, rank: int = 2, has_second: bool = True) -> LoraWeights:
    draw = torch.Generator().manual_seed(seed)
    pairs = [
        Pair(torch.randn(INPUTS, rank, generator=draw), torch.randn(rank, OUTPUTS, generator=draw))
        for _ in range(2)
    ]
    return LoraWeights(str(seed), rank, (pairs[0], pairs[1] if has_second else None), 0)


def check(
    switch: LoraSwitch, model: "torch.nn.ModuleDict", rows: Sequence[LoraWeights | None]
) -> None:
    """Runs a token a row through both layers and compares with the formula, row by row."""
    segments = [
        Segment(at, at + 1, weights) for at, weights in enumerate(rows) if weights is not None
    ]
    x = torch.randn(1, len(rows), INPUTS, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        switch.turn(segments, tokens=len(rows))
        for number, layer in enumerate((model["first"], model["second"])):
            found = layer(x)[0]
            for at, weights in enumerate(rows):
                expected = layer.get_submodule("base")(x[0, at])
                pair = weights.pairs[number] if weights else None
                if pair is not None:
                    expected = expected + x[0, at] @ pair.a @ pair.b
                torch.testing.assert_close(found[at], expected)


@pytest.fixture
def wired() -> Wired:
    """Two layers an adapter may change, and a head it may not."""
    widths = {"first": (INPUTS, OUTPUTS), "second": (INPUTS, OUTPUTS), "head": (OUTPUTS, 3)}
    model = torch.nn.ModuleDict({name: torch.nn.Linear(*one) for name, one in widths.items()})
    switch = LoraSwitch()
    sites = wrap_linears(model, head=model["head"], switch=switch)
    assert list(sites) == ["first", "second"]
    assert isinstance(model["head"], torch.nn.Linear)
    return switch, model


def test_every_mixture_gives_each_token_its_own_update(wired: Wired) -> None:
    """One after the other, so that what was joined for one mixture meets the next."""
    a, b, c = adapter(1), adapter(2, rank=4), adapter(3, has_second=False)
    for rows in ([None], [a], [None, a, a, b], [b, None, c], [c, c], [a, b, c, None], [c, None, b]):
        check(*wired, rows)


def test_more_columns_than_are_worth_joining_go_one_after_the_other(
    wired: Wired,
) -> None:
    wide = [adapter(seed, rank=64) for seed in range(3)]
    check(*wired, wide)
    assert all(route.mask is None for route in wired[0].routes)
    check(*wired, wide[:2])
    assert [route.mask is None for route in wired[0].routes] == [False]


def test_adapters_of_late_stay_joined_and_long_unused_ones_go(
    wired: Wired,
) -> None:
    """Joining copies every matrix, so it must not happen again for each change of the mixture."""
    switch, model = wired
    a, b, c, d, e = (adapter(seed) for seed in range(5))

    def joined() -> object:
        return switch.routes[0].pairs

    check(switch, model, [a, b, c])
    first = joined()
    check(switch, model, [c, b])
    assert joined() is first
    check(switch, model, [b, d])
    second = joined()
    assert second is not first
    check(switch, model, [a, c])
    assert joined() is second
    check(switch, model, [b, e])
    check(switch, model, [d, adapter(9)])
    fourth = joined()
    check(switch, model, [a, b])
    assert joined() is not fourth
