"""The sum over positions of |map of one kernel| times a weighting, in one loop that stores no map.

For every kernel (o, i) of a two-dimensional convolution on a CPU::

    S[o, i] = sum_n sum_hw | sum_t w[o, i, t] x[n, i, position + shift of tap t] | m[n, o, hw]

Pictures are padded, a stride becomes as many interleaved pictures (phases), and all of it is laid out in one line per
channel; then every tap is a constant shift along that line and the loop over positions vectorises. Where a row of the
output ends before the line does, the weighting is zero.

Three habits make it fast: indices are unsigned, because the compiler's check for negative ones would forbid vector
code; the number of taps is a constant of the compiled function, cut into pieces that are small enough to be unrolled;
and what is loaded or computed serves twice. One weighting shares each load of the input between two filters, several
weightings (of as many targets) share the map. Every (o, i) is summed in one fixed order, so the result does not depend
on the number of threads.

Not here: the loops themselves (`viscircuits.saliency.engine.loops`), and the same on a GPU (`fused_triton`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.saliency.engine.loops import compiled, number

_CACHE_BYTES = 2**22
"""Pictures are taken in blocks whose weighting stays in a core's own cache."""

TOGETHER = 8
"""Weightings that share a map: each holds a vector register."""

_WORTH_IT = 0.9
"""Filters are singled out where fewer than this share have a gradient."""

Pair = tuple[int, int]


def weighted_absolute_maps(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i kh kw"],
    weightings: Sequence[Float[Tensor, "n o y x"]],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Float[Tensor, "t o i"]:
    """Returns ``S`` of every weighting, for one group of a convolution; CPU tensors of one floating type (32 or 64).

    Args:
        x: the input.
        weight: the kernels.
        weightings: ``m``, in the shape of the output, one a target.
        stride, padding, dilation: rows, then columns, in pixels.
    """
    height, width = _line_shape(x, weight, weightings[0], stride, padding, dilation)
    sums = torch.zeros(len(weightings), *weight.shape[:2], dtype=x.dtype)
    # the weighting is read again for every input channel, so a block of it has to stay in the cache
    step = max(1, _CACHE_BYTES // (min(len(weightings), TOGETHER) * len(weight) * height * width * x.element_size()))
    for start in range(0, len(x), step):
        here = slice(start, start + step)
        lines = _lines(x[here], stride, padding, height, width)
        shifts = _shifts(weight, stride, dilation, len(x[here]), height, width)
        for first, part in zip(range(0, len(weightings), TOGETHER), sums.split(TOGETHER), strict=True):
            some = [m[here] for m in weightings[first : first + TOGETHER]]
            part += _sums(lines, weight, some, shifts, height, width)
    return sums


def _sums(
    lines: Tensor, weight: Tensor, weightings: Sequence[Tensor], shifts: np.ndarray, height: int, width: int
) -> Float[Tensor, "t o i"]:
    # the loop for several has eight places; those that are not used stay zero and their sums are dropped
    alone = len(weightings) == 1
    weighting = weight.new_zeros(1 if alone else TOGETHER, len(weight), len(weightings[0]) * height * width)
    for m, line in zip(weightings, weighting, strict=False):
        _lay(m, line, (1, 1), (0, 0), height, width, absolute=True)
    sums = weight.new_zeros(len(weighting), *weight.shape[:2])
    alive = (weighting.amax((0, 2)) > 0).nonzero()[:, 0]  # nothing comes of filters without a gradient
    if len(alive) < _WORTH_IT * len(weight):
        weight, weighting = weight[alive], weighting[:, alive]
    else:
        alive = torch.arange(len(weight))
    if alone and len(weight) % 2:  # filters go in pairs
        weight, weighting = (torch.cat([t, t.narrow(axis, 0, 1)], axis) for t, axis in ((weight, 0), (weighting, 1)))
    # numba's signature promises arrays without gaps, which lets it load vectors
    taps, part = weight.flatten(2).contiguous(), weight.new_zeros(len(weighting), *weight.shape[:2])
    # positions after the last one with a full set of taps have weight zero and are not visited
    length = np.uint64(min(weighting.shape[2], lines.shape[1] - int(shifts.max())))
    loop = compiled("alone" if alone else "together", number(lines), len(shifts))
    arrays = lines.numpy(), taps.numpy(), weighting.numpy(), shifts, length, part.numpy()
    _in_parts(len(weight) // 2 if alone else len(weight), lambda first, last: loop(*arrays, first, last))
    return sums.index_copy_(1, alive, part[:, : len(alive)])[: len(weightings)]


def _line_shape(x: Tensor, weight: Tensor, m: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Rows and columns of one phase of a padded picture, large enough for every tap of every output position."""
    sizes = []
    for axis in (0, 1):
        # rounded up: a phase holds every stride-th row, and the first phases one more than the last
        padded = -(-(x.shape[2 + axis] + 2 * padding[axis]) // stride[axis])
        reach = m.shape[2 + axis] + (weight.shape[2 + axis] - 1) * dilation[axis] // stride[axis]
        sizes.append(max(padded, reach))
    return sizes[0], sizes[1]


def _lines(x: Tensor, stride: Pair, padding: Pair, height: int, width: int) -> Float[Tensor, "i l"]:
    """Pictures as one line a channel: phases, pictures, rows, columns."""
    lines = x.new_zeros(x.shape[1], stride[0] * stride[1] * len(x) * height * width)
    _lay(x, lines, stride, padding, height, width, absolute=False)
    return lines


def _lay(
    source: Tensor, lines: Tensor, stride: Pair, padding: Pair, height: int, width: int, *, absolute: bool
) -> None:
    loop = compiled("lay", number(lines))
    arrays = source.permute(0, 2, 3, 1).numpy(), lines.numpy(), *stride, *padding, height, width, absolute
    _in_parts(len(lines), lambda first, last: loop(*arrays, first, last))


def _shifts(weight: Tensor, stride: Pair, dilation: Pair, n: int, height: int, width: int) -> np.ndarray:
    """Where each tap reads, relative to the position: its phase, then rows and columns."""
    shifts = []
    for y in range(weight.shape[2]):
        for z in range(weight.shape[3]):
            (row, row_phase), (column, column_phase) = (
                divmod(y * dilation[0], stride[0]),
                divmod(z * dilation[1], stride[1]),
            )
            phase = row_phase * stride[1] + column_phase
            shifts.append((phase * n * height + row) * width + column)
    return np.array(shifts, dtype=np.uint64)


def _in_parts(size: int, loop: Callable[[int, int], None]) -> None:
    """Runs a loop over ``range(size)``, in as many threads as torch uses."""
    bounds = np.linspace(0, size, min(torch.get_num_threads(), size) + 1).astype(int).tolist()
    if len(bounds) <= 2:
        loop(0, size)
        return
    # threads of our own: the loops release the interpreter's lock, and each part writes rows that no other touches
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        list(pool.map(lambda ends: loop(*ends), pairwise(bounds)))
