"""The maps of single kernels, summed against a weighting without ever being stored.

A kernel's own map is ``a[o, i] = w[o, i] * x[i]``, before the sum over inputs and before the bias. All kernels of a
filter share one gradient, so every criterion on activations needs only

    S[o, i] = sum_n sum_hw |w[o, i] * x[i]| m[o]

(divided by the number of positions later) with ``m = |g|`` (ActGrad) or ``m = 1`` (activation). Nothing of size ``n x out x in x h x w`` exists at any time: a
local input channel of every group is convolved at a time, and 1x1 kernels, linear maps and single weights have the
closed form ``S = |w| (|x| correlated with m)``, one weight gradient.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.model.instrument import KernelCall
from viscircuits.saliency.gradients import weight_gradient
from viscircuits.types import Granularity


def summed_maps(
    call: KernelCall, weighting: Float[Tensor, "n ..."] | None, granularity: Granularity
) -> Float[Tensor, "out ..."]:
    """Returns ``sum_n sum_positions |a| m`` for every structure of a call.

    Args:
        call: what went into the layer, and its weight.
        weighting: ``m``, shaped like the call's output; None for all ones.
        granularity: a kernel's own map, a single weight's, or the filter's own output (bias included).
    """
    m = torch.ones_like(call.output) if weighting is None else weighting
    if granularity == "filter":
        axis = m.ndim - 1 if call.layer.op == "linear" else 1
        return (call.output.abs() * m).movedim(axis, 0).flatten(1).sum(1)
    if granularity == "weight" or all(k == 1 for k in call.layer.kernel_size):
        taps = call.layer.out_first(call.weight.abs() * weight_gradient(call, call.x.abs(), m))
        return taps if granularity == "weight" or taps.ndim == 2 else taps.flatten(2).sum(2)
    maps = _unfolded if call.function is torch.conv2d else _convolved
    return maps(call, m)


def _convolved(call: KernelCall, m: Tensor) -> Float[Tensor, "out in"]:
    """Any convolution: input channel ``j`` of every group at once."""
    convolve: Callable[..., Tensor] = call.function
    out, width = call.layer.shape
    sums = call.x.new_empty(out, width)
    for j in range(width):
        weight = call.weight[j::width] if call.layer.op == "conv_transpose" else call.weight[:, j : j + 1]
        a = convolve(call.x[:, j::width], weight, **call.options)
        sums[:, j] = a.abs_().mul_(m).transpose(0, 1).flatten(1).sum(1)
    return sums


def _unfolded(call: KernelCall, m: Tensor) -> Float[Tensor, "out in"]:
    """Two-dimensional convolutions: one matrix product an input channel, three times as fast as `_convolved`."""
    layer = call.layer
    stride, padding, dilation = (_pair(call.options.get(key, default)) for key, default in _DEFAULTS.items())
    if padding is None or layer.groups > 1:
        return _convolved(call, m)
    out, width = layer.shape
    sums = call.x.new_empty(out, width)
    flat = m.transpose(0, 1).flatten(1).contiguous()  # (out, n h w); a view when channels are last in memory
    for j in range(width):
        patches = torch.nn.functional.unfold(
            call.x[:, j : j + 1], layer.kernel_size, dilation=dilation, padding=padding, stride=stride
        )
        a = call.weight[:, j].flatten(1) @ patches.transpose(0, 1).flatten(1)  # (out, k) @ (k, n h w)
        sums[:, j] = a.abs_().mul_(flat).sum(1)
    return sums


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1}


def _pair(value: int | str | tuple[int, ...] | list[int]) -> tuple[int, ...] | None:
    """Returns a setting for both axes, or None for padding given in words."""
    if isinstance(value, str):
        return None
    return (value, value) if isinstance(value, int) else tuple(value) * (2 if len(value) == 1 else 1)
