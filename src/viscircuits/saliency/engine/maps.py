"""The maps of single kernels, summed against a weighting without ever being stored.

A kernel's own map is ``a[o, i] = w[o, i] * x[i]``, before the sum over inputs and before the bias. All kernels of a
filter share one gradient, so every criterion on activations needs only

    S[t, o, i] = sum_n sum_hw |w[o, i] * x[i]| |m[t, o]|

for every target ``t``, with ``m = g`` (ActGrad) or ``m = 1`` (activation); the tape divides by the number of
positions. Nothing of size ``n x out x in x h x w`` exists at any time: two-dimensional kernels take the fused loop on a
CPU, others one input channel at a time, and 1x1 kernels, linear maps and single weights have the closed form
``S = |w| (|x| correlated with |m|)``, a weight gradient.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.model.calls import KernelCall
from viscircuits.model.graph import KernelLayer
from viscircuits.saliency.engine.fused import Pair, weighted_absolute_maps
from viscircuits.saliency.engine.gradients import weight_gradient
from viscircuits.saliency.engine.loops import MOST_TAPS, compiled, number
from viscircuits.types import Granularity, Progress


def summed_maps(
    call: KernelCall, weightings: Sequence[Float[Tensor, "n ..."]], granularity: Granularity
) -> Float[Tensor, "t out ..."]:
    """Returns ``sum_n sum_positions |a| |m|`` for every structure of a call, one array a target.

    Args:
        call: what went into the layer, and its weight.
        weightings: ``m``, shaped like the call's output, one a target.
        granularity: a kernel's own map, a single weight's, or the filter's own output (bias included).
    """
    if granularity == "filter":
        # in place on the product, which is ours: a layer's output times a gradient is the largest thing here
        each = ((call.output * m).abs_().movedim(call.channel_axis, 0) for m in weightings)
        return torch.stack([values.flatten(1).sum(1) for values in each])
    if granularity == "weight" or all(k == 1 for k in call.layer.kernel_size):
        x = call.x.abs()
        each = (call.weight.abs() * weight_gradient(call, x, m.abs()) for m in weightings)
        taps = torch.stack([call.layer.out_first(values) for values in each])
        return taps if granularity == "weight" or taps.ndim == 3 else taps.flatten(3).sum(3)
    geometry = _geometry(call)
    groups, loop = call.layer.groups, _loop(call.layer, call.x)
    if geometry is None or loop is None:
        return _convolved(call, weightings)
    # a group is a convolution by itself, and the loops know of no groups
    by_group = zip(*(m.chunk(groups, 1) for m in weightings), strict=True)
    parts = zip(call.x.chunk(groups, 1), call.weight.chunk(groups), by_group, strict=True)
    return torch.cat([loop(x, weight, ms, *geometry) for x, weight, ms in parts], 1)


def engine(device: torch.device, dtype: torch.dtype) -> str:
    """Returns what computes the maps of convolutions: "numba", "triton" or "torch"."""
    if device.type == "cpu":
        return "numba" if dtype in (torch.float32, torch.float64) else "torch"
    return "triton" if device.type == "cuda" and find_spec("triton") is not None else "torch"


def _loop(layer: KernelLayer, like: Tensor) -> Callable[..., Tensor] | None:
    """The compiled loop that serves a two-dimensional layer, if one does."""
    kind = engine(like.device, like.dtype)
    if kind == "numba" and prod(layer.kernel_size) <= MOST_TAPS:
        return weighted_absolute_maps
    if kind == "triton" and layer.shape[1] * 4 > layer.groups:  # one launch a group: many thin groups go together
        from viscircuits.saliency.engine import fused_triton  # only where there is a GPU

        return fused_triton.weighted_absolute_maps
    return None


def compile_loops(layers: Iterable[KernelLayer], like: Tensor, n_targets: int, progress: Progress | None) -> None:
    """Compiles the loops that some layers will need, now rather than within the first batch, and tells of it.

    Args:
        layers: the kernel layers of a pass.
        like: a tensor on their device, of their floating type.
        n_targets: how many share the pass; one has a loop of its own.
        progress: told "compiling loops"; a second each, the first time on a machine.
    """
    planes = [layer for layer in layers if layer.op == "conv" and len(layer.kernel_size) == 2]
    taps = sorted({prod(layer.kernel_size) for layer in planes if _loop(layer, like) is weighted_absolute_maps} - {1})
    for done, n_taps in enumerate(taps):
        if progress is not None:
            progress("compiling loops", done, len(taps))
        compiled("lay", number(like))
        compiled("alone" if n_targets == 1 else "together", number(like), n_taps)
    if progress is not None and taps:
        progress("compiling loops", len(taps), len(taps))


def _convolved(call: KernelCall, weightings: Sequence[Tensor]) -> Float[Tensor, "t out in"]:
    """Any convolution: input channel ``j`` of every group at once."""
    convolve: Callable[..., Tensor] = call.function
    width = call.layer.shape[1]
    sums = call.x.new_empty(len(weightings), call.output.shape[1], width)
    for j in range(width):
        weight = call.weight[j::width] if call.layer.op == "conv_transpose" else call.weight[:, j : j + 1]
        a = convolve(call.x[:, j::width], weight, **call.options)
        for t, m in enumerate(weightings):
            sums[t, :, j] = (a * m).abs_().transpose(0, 1).flatten(1).sum(1)
    return sums


def _geometry(call: KernelCall) -> tuple[Pair, Pair, Pair] | None:
    """Stride, padding and dilation of a two-dimensional convolution; None for other layers or padding in words."""
    values = [call.options.get(key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))]
    if call.function is not torch.conv2d or any(isinstance(value, str) for value in values):
        return None
    stride, padding, dilation = ((v, v) if isinstance(v, int) else (v[0], v[-1]) for v in values)
    return stride, padding, dilation
