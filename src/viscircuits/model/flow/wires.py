"""What a wire is, and the few things that every rule does with one.

A *wire* is a 0/1 tensor with the activation's own shape: "does anything alive reach this element". Data movement then
runs natively on it and autograd supplies its adjoint, so channel shuffles, flattening, windows and attention heads need
no rule. What mixes elements is made of means and sums of non-negative numbers, where "alive" is "greater than zero";
`binary` brings the result back to 0/1, forwards and backwards, before it can under- or overflow.

Constants (parameters, positional encodings, index tables) have no wire: they are evaluated and stay plain values. Wires
are told from them by asking for gradients. How a wire passes an operation is not here but in
`viscircuits.model.flow.rules`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.fx.node import map_aggregate

from viscircuits.model.nodes import Value


class _Binary(torch.autograd.Function):
    # Without this the adjoint of a mean over n places asks each for 1/n: a chain of such layers underflows to zero in
    # 32 bits, and a sum over many paths overflows. Asked and not asked would no longer be told apart.
    @staticmethod
    def forward(ctx: FunctionCtx, wire: Tensor) -> Tensor:
        return (wire > 0).to(wire.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, need: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (need > 0).to(need.dtype)


def binary(wire: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Returns the wire as 0 and 1; its adjoint does the same to what is needed."""
    binary_wire = _Binary.apply(wire)
    assert isinstance(binary_wire, Tensor)
    return binary_wire


@contextmanager
def recording() -> Iterator[None]:
    """A block in which wires can be told from constants, whatever the caller switched off."""
    # inference mode first: enable_grad does nothing inside of it
    with torch.inference_mode(False), torch.enable_grad():
        yield


def wires_in(values: Value) -> list[Tensor]:
    """Returns the wires in a value, however deep in tuples, lists and dicts."""
    flat: list[Value] = []
    map_aggregate(values, flat.append)
    return [v for v in flat if isinstance(v, Tensor) and v.requires_grad]


def any_but(tensor: Shaped[Tensor, "..."], axis: int) -> Bool[Tensor, " c"]:
    """Returns, for each place along an axis, whether anything there is not zero."""
    for other, stride in enumerate(tensor.stride()):
        # Behind a kernel layer a wire is one number a channel, expanded: one place of it says all. Comparing the whole
        # map would first write it out, for every layer of every mask that is looked at.
        if stride == 0 and other != axis % tensor.ndim:
            tensor = tensor.narrow(other, 0, 1)
    return (tensor != 0).movedim(axis, 0).flatten(1).any(1)


def spread(
    channels: Bool[Tensor, " c"], shape: Sequence[int], axis: int, like: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Returns a wire that is the same at all places but those along one axis.

    Args:
        channels: what stands along that axis.
        shape: the shape of the wire.
        axis: the axis of the channels.
        like: a wire whose type and device it gets.
    """
    view = [1] * len(shape)
    view[axis] = -1
    # expanded, not repeated: strides of zero tell later rules that there is nothing to look at
    return channels.to(like).view(view).expand(*shape)


def mixed(wire: Float[Tensor, "..."], axes: Sequence[int], shape: Sequence[int] | None = None) -> Float[Tensor, "..."]:
    """Returns a wire on which anything alive along some axes reaches everything along them.

    Args:
        wire: what goes in.
        axes: the axes that are mixed.
        shape: the shape of the result, where it differs from the wire's along these axes.
    """
    # not a maximum: its adjoint asks only those places that are alive, and others would not count as needed
    mean = wire.mean(tuple(axes), keepdim=True) if axes else wire
    return binary(mean).expand(*(shape if shape is not None else wire.shape))


def joined(wires: Sequence[Float[Tensor, "..."]], shape: Sequence[int]) -> Float[Tensor, "..."]:
    """Returns a wire that is alive where one of several is, once they are broadcast to a shape."""
    return binary(torch.stack([wire.expand(*shape) for wire in wires]).sum(0))
