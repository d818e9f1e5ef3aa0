"""How wires pass a kernel layer, and which of its kernels are used on the way.

Forwards, a filter is alive where one of its kernels conducts something alive. Backwards, an input channel is needed
where one of its kernels leads to a needed filter; a kernel that does both is noted as used. Kernel arrays have the
shape ``(out, in / groups)``. Layers of other kinds are in `viscircuits.model.flow.rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx

from viscircuits.model.flow.pooling import within_windows
from viscircuits.model.flow.wires import any_but, spread
from viscircuits.model.graph import KernelLayer
from viscircuits.model.nodes import shape_of


@dataclass
class KernelUse:
    """One call of a kernel layer: which kernels may carry anything, and (filled backwards) which do."""

    layer: KernelLayer
    connect: Bool[Tensor, "out in"]
    used: Bool[Tensor, "out in"]  # connected, fed by something alive, and needed


class _Kernels(torch.autograd.Function):
    """``alive_out[o] = any over kernels (o, i) of connect & alive_in[i]``, and its transpose for what is needed."""

    @staticmethod
    def forward(ctx: Any, wire: Tensor, use: KernelUse, shape: Sequence[int]) -> Tensor:
        axis = _channel_axis(use.layer, wire)
        alive = any_but(wire, axis).cpu()  # masks live on the CPU, wires on the model's device
        fed = use.connect & alive[use.layer.sources]
        ctx.use, ctx.fed, ctx.axis, ctx.wire_shape = use, fed, axis, wire.shape
        return spread(fed.any(1), shape, axis, wire)

    @staticmethod
    def backward(ctx: Any, need: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        use = ctx.use
        needed = any_but(need, _channel_axis(use.layer, need)).cpu()
        use.used |= ctx.fed & needed[:, None]
        asks = use.connect & needed[:, None]
        # groups make `sources` differ from filter to filter, so what is asked is added up channel by channel
        wanted = torch.zeros(use.layer.in_channels, dtype=torch.float32).index_add_(
            0, use.layer.sources.flatten(), asks.flatten().float()
        )
        return spread(wanted > 0, ctx.wire_shape, ctx.axis, need), None, None


class _OneKernel(torch.autograd.Function):
    """The same for a layer of a single kernel, element by element."""

    @staticmethod
    def forward(ctx: Any, wire: Tensor, use: KernelUse) -> Tensor:
        ctx.use, ctx.fed = use, use.connect & bool((wire != 0).any())
        return wire * use.connect.item()

    @staticmethod
    def backward(ctx: Any, need: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.use.used |= ctx.fed & bool((need != 0).any())
        return need * ctx.use.connect.item(), None


def kernels(node: fx.Node, wire: Float[Tensor, "..."], use: KernelUse) -> Float[Tensor, "..."]:
    """Returns the wire behind a call of a kernel layer; a later backward pass records the kernels that were used.

    What stands along the other axes are positions, of which all reach all; but of a single kernel's input they may be
    the channels of something else (as in efficient channel attention), so that it reaches its windows only.

    Args:
        node: the call.
        wire: what arrives at it.
        use: the layer, the kernels that conduct, and where to note those that were used.
    """
    if use.layer.op == "conv" and use.layer.n_kernels == 1:
        behind = _OneKernel.apply(within_windows(node, wire), use)
    else:
        behind = _Kernels.apply(wire, use, shape_of(node))
    assert isinstance(behind, Tensor)
    return behind


def _channel_axis(layer: KernelLayer, tensor: Tensor) -> int:
    return tensor.ndim - 1 if layer.op == "linear" else 1
