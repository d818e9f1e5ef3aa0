"""How wires pass windows: pools, adaptive pools, resizing, and the windows of a single kernel.

A window's result is alive where anything in it is. So each rule is a mean over the window, whose adjoint asks for every
place of it. Windows are exact along every axis, which matters where an axis of "space" holds the channels of something
else (pools and convolutions across channels). Norms over space are in `viscircuits.model.flow.mixing`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, fx
from torch.nn import functional

from viscircuits.model.field.windows import Window, windows
from viscircuits.model.flow.operation import Operation
from viscircuits.model.flow.wires import binary, mixed
from viscircuits.model.nodes import Value, shape_of

_MEANS: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def pooled(pool: Operation) -> Value:
    """A pool reaches its windows, along whatever axes these lie: neighbouring channels, where it is told so."""
    return pool.with_indices(within_windows(pool.node, pool.args[0]))


def within_windows(node: fx.Node, wire: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Returns a wire on which anything alive in a window reaches the place that the window gives."""
    along = windows(node)
    axes = range(wire.ndim - len(along), wire.ndim)
    if all(wire.stride(axis) == 0 for axis in axes):  # the same everywhere, as behind a kernel layer: no need to look
        return mixed(wire, axes, shape_of(node))
    if all(w.dilation == 1 and w.before == w.after for w in along):
        taps, strides, before = [w.taps for w in along], [w.stride for w in along], [w.before for w in along]
        return binary(_MEANS[len(along)](wire, taps, strides, before, ceil_mode=any(w.ceil for w in along)))
    # torch's mean pools know neither dilation nor a padding of one side ("same" of an even kernel)
    for axis, window in zip(axes, along, strict=True):
        if (window.taps, window.stride, window.before, window.after) != (1, 1, 0, 0):
            wire = _windowed(wire, axis, window)
    return binary(wire)


def _windowed(wire: Tensor, axis: int, window: Window) -> Tensor:
    """The mean over each of the windows along one axis; what they hold beyond the ends is nothing."""
    span, count = window.dilation * (window.taps - 1) + 1, window.count(wire.shape[axis])
    beyond = (count - 1) * window.stride + span - wire.shape[axis] - window.before
    borders = [0, 0] * (wire.ndim - 1 - axis) + [window.before, beyond]  # a negative border cuts off what none reads
    return functional.pad(wire, borders).unfold(axis, span, window.stride)[..., :: window.dilation].mean(-1)


def resized(resize: Operation) -> Value:
    """Resizing mixes positions, along the axes whose size changes."""
    wire, shape = resize.args[0], resize.shape
    # an axis of unchanged size is copied place by place, and may hold what must stay apart
    changed = [axis for axis, (a, b) in enumerate(zip(wire.shape, shape, strict=True)) if a != b]
    return mixed(wire, changed, shape)


def adaptively_pooled(pool: Operation) -> Value:
    """Place o of n holds the places ``floor(o size / n)`` to ``ceil((o + 1) size / n)``."""
    wire = pool.args[0]
    for axis, n in enumerate(pool.shape):
        if (size := wire.shape[axis]) == n:
            continue
        if n == 1:
            wire = wire.mean(axis, keepdim=True)
            continue
        place, o = torch.arange(size)[:, None], torch.arange(n)
        held = (place >= o * size // n) & (place < -(-(o + 1) * size // n))
        wire = (wire.movedim(axis, -1) @ (held / size).to(wire)).movedim(-1, axis)
    return pool.with_indices(binary(wire))
