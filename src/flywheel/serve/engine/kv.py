"""Keys and values of the sequences in flight, one slot each, grown in place.

A slot's row starts at position 0, so joining and leaving the batch move no memory and need no
padding. All slots have the capacity of the longest row so far: memory is slots x that length.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

_FIRST_CAPACITY = 256


class Heads(NamedTuple):
    """The model's key and value heads."""

    layers: int
    per_layer: int
    width: int


class KeyValueCache:
    """One tensor of keys and one of values: (layers, slots, heads, capacity, width)."""

    def __init__(self, heads: Heads, *, slots: int, max_length: int, like: "torch.Tensor") -> None:
        self._max_length = max_length
        capacity = min(_FIRST_CAPACITY, max_length)
        shape = (heads.layers, slots, heads.per_layer, capacity, heads.width)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)

    @property
    def capacity(self) -> int:
        """Positions each slot has room for."""
        return self.keys.shape[3]

    @property
    def size_bytes(self) -> int:
        """Memory held."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def reserve(self, length: int) -> None:
        """Makes room for rows of this length, doubling, so that growth is rare."""
        if length <= self.capacity:
            return
        capacity = min(self._max_length, max(length, 2 * self.capacity))
        self.keys = _grown(self.keys, capacity)
        self.values = _grown(self.values, capacity)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copies a slot's first positions to another: the same tokens have the same keys."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]


def _grown(tensor: "torch.Tensor", capacity: int) -> "torch.Tensor":
    layers, slots, heads, old, width = tensor.shape
    grown = tensor.new_zeros((layers, slots, heads, capacity, width))
    grown[:, :, :, :old] = tensor
    return grown
