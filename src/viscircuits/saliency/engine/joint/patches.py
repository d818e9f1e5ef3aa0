"""What a kernel layer looks at, and what it puts out, at some positions of each image.

A position is a place of a layer's output. What stands there is a product of the weights with the *patch* of the input
below it, one number a weight of a filter: ``z[f] = sum over (i, tap) of w[f, i, tap] * x[i, tap]``. Convolutions of any
number of axes, transposed ones and linear layers differ in where a patch stands only.
"""

from math import prod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from viscircuits.model.calls import KernelCall
from viscircuits.saliency.engine.gradients import each_axis, explicit_padding


def patches(call: KernelCall, places: Int[Tensor, "n p"]) -> Float[Tensor, "n p g d"]:
    """Returns the patches below some positions: group by group, ``d`` inputs (channel, then tap) of a filter.

    Args:
        call: what went into the layer.
        places: for each image, positions of its output, flat (over rows of the call that are one image's, too).
    """
    groups = call.layer.groups
    if call.layer.op == "linear":
        return _taken(call.x, -1, places)[:, :, None]
    x, kernel, stride, dilation = _as_convolution(call)
    size = x.shape[2:]
    # flat places of the output -> rows of the call and, axis by axis, the first input that the kernel sees there
    spread = torch.unravel_index(places, (_rows(call, len(places)), *_output_size(call)))
    taps = torch.cartesian_prod(*(torch.arange(k, device=x.device) for k in kernel)).view(-1, len(kernel))
    taps = taps.flip(0) if call.layer.op == "conv_transpose" else taps
    flat = spread[0][..., None]
    for axis, at in enumerate(spread[1:]):
        flat = flat * size[axis] + at[..., None] * stride[axis] + taps[:, axis] * dilation[axis]
    seen = _taken(x, 1, flat.flatten(1))  # (n, positions x taps, channels)
    seen = seen.unflatten(1, (places.shape[1], len(taps))).unflatten(-1, (groups, -1))
    return seen.permute(0, 1, 3, 4, 2).flatten(3)


def at_places(call: KernelCall, values: Float[Tensor, "..."], places: Int[Tensor, "n p"]) -> Float[Tensor, "n p out"]:
    """Returns what stands at some positions of each image.

    Args:
        call: what says how positions are laid out.
        values: an array of the shape of its output.
        places: for each image, positions of its output, flat.
    """
    return _taken(values, call.channel_axis, places)


def n_positions(call: KernelCall, n_images: int) -> int:
    """Returns how many positions one image has in a call's output, all rows that are its own together."""
    return call.output.numel() // (call.output.shape[call.channel_axis] * n_images)


def draw(n_positions: int, most: int, first: int, n_images: int, key: tuple[int, int]) -> Int[Tensor, "n p"]:
    """Returns positions drawn without replacement, for each image by a seed of its own; all where there are few.

    Args:
        n_positions: how many there are.
        most: how many to draw.
        first: the index in its set of the first image, so that batches draw what single images draw.
        n_images: for how many.
        key: the seed, and what tells one layer's draws from another's.
    """
    if n_positions <= most:
        return torch.arange(n_positions).expand(n_images, n_positions)
    drawn = [
        np.random.default_rng([*key, image]).choice(n_positions, most, replace=False)
        for image in range(first, first + n_images)
    ]
    return torch.from_numpy(np.stack(drawn))


def _rows(call: KernelCall, n_images: int) -> int:
    """How many rows of a call are one image's; its windows or tokens may be rows."""
    return max(1, call.output.numel() // (call.output.shape[call.channel_axis] * prod(_output_size(call)) * n_images))


def _output_size(call: KernelCall) -> torch.Size:
    return call.output.shape[call.output.ndim - len(call.layer.kernel_size) :]


def _taken(values: Tensor, axis: int, places: Int[Tensor, "n p"]) -> Float[Tensor, "n p c"]:
    """The channels at some places, flat over all other axes of an image's rows."""
    rows = values.movedim(axis, -1).reshape(len(places), -1, values.shape[axis])
    return rows[torch.arange(len(places), device=values.device)[:, None], places]


def _as_convolution(call: KernelCall) -> tuple[Tensor, list[int], list[int], list[int]]:
    """The padded input, and kernel, stride and dilation of the convolution that a call is."""
    x, options = explicit_padding(call, call.x)
    axes = len(call.layer.kernel_size)
    x = x if x.ndim == axes + 2 else x[None]
    kernel = list(call.layer.kernel_size)
    stride, padding, dilation = (
        each_axis(options.get(key, default), axes) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    if call.layer.op != "conv_transpose":
        return _padded(x, [(p, p) for p in padding]), kernel, stride, dilation
    # a transposed convolution is one with its taps turned round over an input with zeros between
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    between = x.new_zeros(*x.shape[:2], *size)
    between[(..., *(slice(None, None, s) for s in stride))] = x
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    before = [r - p for r, p in zip(reach, padding, strict=True)]
    wanted = [o + r for o, r in zip(_output_size(call), reach, strict=True)]
    borders = [(b, w - n - b) for b, w, n in zip(before, wanted, size, strict=True)]
    return _padded(between, borders), kernel, [1] * axes, dilation


def _padded(x: Tensor, borders: list[tuple[int, int]]) -> Tensor:
    if not any(any(border) for border in borders):
        return x
    return pad(x, [width for border in reversed(borders) for width in border])
