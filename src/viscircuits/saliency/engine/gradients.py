"""Weight gradients of single kernel calls, for a batch or image by image, without a second forward pass."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.calls import KernelCall


def weight_gradient(call: KernelCall, x: Tensor, grad: Tensor) -> Float[Tensor, "..."]:
    """Returns the gradient of ``sum(layer(x) * grad)`` with respect to the call's weight, in the module's layout.

    Args:
        call: what the layer was called with, besides its input.
        x: the input, ``[n, in, ...]``.
        grad: the gradient of the output, in the output's shape.
    """
    if call.layer.op == "linear":
        return grad.flatten(0, -2).T @ x.flatten(0, -2)  # (out, n) @ (n, in)
    x, options = explicit_padding(call, x)
    axes, transposed = len(call.layer.kernel_size), call.layer.op == "conv_transpose"
    stride, padding, dilation, output_padding = (
        each_axis(options.get(key, default), axes) for key, default in _DEFAULTS.items()
    )
    return torch.ops.aten.convolution_backward(
        grad, x, call.weight, None, stride, padding, dilation, transposed, output_padding, call.layer.groups,
        [False, True, False],
    )[1]  # fmt: skip


_DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}


def each_axis(value: int | Sequence[int], axes: int) -> list[int]:
    """Returns one number an axis, where torch takes one for all too."""
    if isinstance(value, int):
        return [value] * axes
    return list(value) * axes if len(value) == 1 else list(value)


def absolute_gradients(call: KernelCall, n: int, grad: Tensor) -> Float[Tensor, "..."]:
    """Returns ``sum_n |dW_n|``: the magnitudes of each of ``n`` images' own weight gradient, in the module's layout.

    Args:
        call: what went into the layer.
        n: how many images that was.
        grad: the gradient of the output, in the output's shape.
    """
    if call.layer.op == "linear" and call.x.ndim == 2 and len(call.x) == n:  # one position: |g x^T| is |g| |x|^T
        return grad.abs().T @ call.x.abs()
    if len(call.x) == n and _small(call, grad):
        return _products(call, grad)
    total = torch.zeros_like(call.weight)
    for own in _gradients(call, n, grad):
        total += own.abs_()
    return total


def stacked_gradients(call: KernelCall, n: int, grad: Tensor) -> Float[Tensor, "n ..."]:
    """Returns each of ``n`` images' own weight gradient; for layers that run several times, whose gradients add up.

    Args:
        call: what went into the layer.
        n: how many images that was.
        grad: the gradient of the output, in the output's shape.

    Raises:
        UnsupportedOperation: the layer's rows are not one an image, so that gradients cannot be told apart.
    """
    return torch.stack(list(_gradients(call, n, grad)))


def _gradients(call: KernelCall, n: int, grad: Tensor) -> Iterator[Float[Tensor, "..."]]:
    x = call.x
    if n == 1:  # all rows are this image's: its windows or tokens may come first
        yield weight_gradient(call, x, grad)
    elif len(x) != n:
        raise UnsupportedOperation(
            f"layer {call.layer.name!r} took {len(x)} rows for {n} images, so their gradients cannot be told apart; "
            f"use batch_size=1"
        )
    else:
        for i in range(n):
            yield weight_gradient(call, x[i : i + 1], grad[i : i + 1])


def _small(call: KernelCall, grad: Tensor) -> bool:
    """Whether the maps are so small that a library's weight gradient of one image wastes its time."""
    positions = grad.shape[2:].numel() if grad.ndim == 4 else 0
    return call.function is torch.conv2d and call.layer.groups == 1 and 0 < positions <= _SMALL


_SMALL = 200
"""Positions. Measured on one core: at 49 the plain product is 7 times as fast, at 169 the two are equal, and the
product needs less memory."""


def _products(call: KernelCall, grad: Tensor) -> Float[Tensor, "..."]:
    """``sum_n |dW_n|`` by matrix products on unfolded patches, as many filters at a time as stay in the cache."""
    pictures, options = explicit_padding(call, call.x)
    stride, padding, dilation = (
        tuple(each_axis(options.get(key, _DEFAULTS[key]), 2)) for key in ("stride", "padding", "dilation")
    )
    total = torch.zeros_like(call.weight).flatten(1)  # (out, in k)
    some = max(1, _CACHE_BYTES // (total[0].numel() * total.element_size()))
    own = torch.empty_like(total[:some])
    for x, g in zip(pictures, grad.flatten(2), strict=True):
        unfolded = torch.nn.functional.unfold(x[None], call.layer.kernel_size, dilation, padding, stride)
        patches = unfolded[0]  # (in k, positions)
        for rows, rows_g in zip(total.split(some), g.split(some), strict=True):
            rows += torch.mm(rows_g, patches.T, out=own[: len(rows)]).abs_()
    return total.view(call.weight.shape)


_CACHE_BYTES = 2**20
"""What a core keeps close by."""


def explicit_padding(call: KernelCall, x: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Returns a call's input and options with padding in numbers; an odd total puts the extra column last."""
    options = dict(call.options)
    padding = options.get("padding", 0)
    if padding == "valid":
        return x, options | {"padding": 0}
    if padding != "same":
        return x, options
    dilation = options.get("dilation", 1)
    dilations = [dilation] * len(call.layer.kernel_size) if isinstance(dilation, int) else list(dilation)
    borders: list[int] = []
    for size, d in zip(call.layer.kernel_size, dilations, strict=True):
        total = d * (size - 1)
        borders = [total // 2, total - total // 2, *borders]
    return torch.nn.functional.pad(x, borders), options | {"padding": 0}
