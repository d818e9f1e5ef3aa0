"""The maps of single kernels, summed against a weighting without ever being stored.

A kernel's own map is ``a[o, i] = w[o, i] * x[i]``, before the sum over inputs and before the bias. All kernels of a
filter share one gradient, so every criterion on activations needs only

    S[o, i] = sum_n sum_hw |w[o, i] * x[i]| m[o]

with ``m = |g|`` (ActGrad) or ``m = 1`` (activation); the tape divides by the number of positions. Nothing of size
``n x out x in x h x w`` exists at any time: small kernels take the fused loop, others one input channel at a time, and
1x1 kernels, linear maps and single weights have the closed form ``S = |w| (|x| correlated with m)``, a weight gradient.
"""

from collections.abc import Callable
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.model.instrument import KernelCall
from viscircuits.saliency.fused import MOST_TAPS, Pair, weighted_absolute_maps
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
    return _maps(call, m)


def _maps(call: KernelCall, m: Tensor) -> Float[Tensor, "out in"]:
    """A fused loop for small kernels on a CPU, a matrix product a channel for large ones, else convolution."""
    geometry = _geometry(call)
    if geometry is None:
        return _convolved(call, m)
    on_cpu = call.x.device.type == "cpu" and call.x.dtype in (torch.float32, torch.float64)
    fused = on_cpu and prod(call.layer.kernel_size) <= MOST_TAPS
    by_group = weighted_absolute_maps if fused else _unfolded
    groups = call.layer.groups
    parts = zip(call.x.chunk(groups, 1), call.weight.chunk(groups), m.chunk(groups, 1), strict=True)
    return torch.cat([by_group(x, weight, part, *geometry) for x, weight, part in parts])


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


def _unfolded(
    x: Tensor, weight: Tensor, m: Tensor, stride: Pair, padding: Pair, dilation: Pair
) -> Float[Tensor, "out in"]:
    """Two-dimensional convolutions with large kernels: one matrix product a picture and input channel."""
    sums = x.new_zeros(weight.shape[:2])
    taps = weight.flatten(2)
    for picture, weighting in zip(x.split(1), m.flatten(2), strict=True):
        for j in range(weight.shape[1]):
            patches = torch.nn.functional.unfold(
                picture[:, j : j + 1], weight.shape[2:], dilation=dilation, padding=padding, stride=stride
            )
            sums[:, j] += (taps[:, j] @ patches[0]).abs_().mul_(weighting).sum(1)  # (out, k) @ (k, h w)
    return sums


def _geometry(call: KernelCall) -> tuple[Pair, Pair, Pair] | None:
    """Stride, padding and dilation of a two-dimensional convolution; None for other layers or padding in words."""
    values = [call.options.get(key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    if call.function is not torch.conv2d or any(isinstance(value, str) for value in values):
        return None
    stride, padding, dilation = ((v, v) if isinstance(v, int) else (v[0], v[-1]) for v in values)
    return stride, padding, dilation
