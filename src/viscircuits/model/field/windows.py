"""How convolutions and pools walk along an axis: what a place reads, and how many places there are.

Windows know no channels and no values. What follows from them for signals is in `viscircuits.model.flow.pooling`, for
receptive fields in `viscircuits.model.field.sliding`.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import fx

from viscircuits.model.nodes import argument, op_name, shape_of


class Window(NamedTuple):
    """How a convolution or a pool walks along one axis: place o reads ``o * stride - before + tap * dilation``."""

    taps: int
    stride: int
    before: int
    after: int
    dilation: int
    ceil: bool = False

    def reads(self, places: Iterable[int]) -> frozenset[int]:
        """Returns the places of the input that some of the output read."""
        steps = range(-self.before, self.dilation * (self.taps - 1) - self.before + 1, self.dilation)
        return frozenset(o * self.stride + step for o in places for step in steps)

    def writers(self, places: Iterable[int]) -> frozenset[int]:
        """Returns the same for a transposed convolution: place i writes ``i * stride - before + tap * dilation``."""
        starts = (o + self.before - tap * self.dilation for o in places for tap in range(self.taps))
        return frozenset(start // self.stride for start in starts if start % self.stride == 0)

    def count(self, size: int) -> int:
        """Returns how many places an input of some size gives."""
        room = size + self.before + self.after - self.dilation * (self.taps - 1) - 1
        n = (-(-room // self.stride) if self.ceil else room // self.stride) + 1
        return n - 1 if self.ceil and (n - 1) * self.stride >= size + self.before else n  # none starts in the padding


def windows(node: fx.Node) -> list[Window]:
    """Returns the windows of a convolution or a pool, one an axis of space."""
    weight, k = argument(node, "weight"), space_axes(node)
    taps = shape_of(weight)[2:] if isinstance(weight, fx.Node) else each(argument(node, "kernel_size"), k)
    strides = each(argument(node, "stride") or taps, k)
    dilations = each(argument(node, "dilation") or 1, k)
    padding = argument(node, "padding") or 0
    if isinstance(padding, str):
        # an odd total puts the extra place behind, as torch does
        totals = [d * (t - 1) if padding == "same" else 0 for t, d in zip(taps, dilations, strict=True)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in each(padding, k)]
    ceil = bool(argument(node, "ceil_mode"))
    return [Window(t, s, *p, d, ceil) for t, s, p, d in zip(taps, strides, pads, dilations, strict=True)]


def space_axes(node: fx.Node) -> int:
    """Returns how many axes of space an operation has: 2 for ``max_pool2d``."""
    return int(next(letter for letter in op_name(node) if letter.isdigit()))


def each(value: int | Sequence[int], n: int) -> list[int]:
    """Returns one number an axis of something given once or for each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values
