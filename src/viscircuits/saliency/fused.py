"""The sum over positions of |map of one kernel| times a weighting, in one loop that stores no map.

For every kernel (o, i) of a two-dimensional convolution on a CPU::

    S[o, i] = sum_n sum_hw | sum_t w[o, i, t] x[n, i, position + shift of tap t] | m[n, o, hw]

Pictures are padded, a stride becomes as many interleaved pictures (phases), and all of it is laid out in one line per
channel; then every tap is a constant shift along that line and the loop over positions vectorises. Where a row of the
output ends before the line does, the weighting is zero.

Two habits make it fast: indices are unsigned, because the compiler's check for negative ones would forbid vector code,
and the number of taps is a constant of the compiled function. Two filters share each load of the input. Every (o, i) is
summed in one fixed order, so the result does not depend on the number of threads.
"""

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_CACHE_BYTES = 2**22
"""Pictures are taken in blocks whose weighting stays in a core's own cache."""

MOST_TAPS = 25
"""Up to this many taps the compiler unrolls the loop over them; beyond, it is ten times as slow."""

Pair = tuple[int, int]


def weighted_absolute_maps(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i kh kw"],
    m: Float[Tensor, "n o y x"],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Float[Tensor, "o i"]:
    """Returns ``S`` for one group of a convolution; CPU tensors of one floating type (32 or 64 bits)."""
    height, width = _line_shape(x, weight, m, stride, padding, dilation)
    taps = weight.flatten(2).transpose(0, 1).contiguous()  # (i, o, t)
    if len(weight) % 2:
        taps = torch.cat([taps, torch.zeros_like(taps[:, :1])], 1)
    sums = torch.zeros(taps.shape[1], taps.shape[0], dtype=x.dtype)
    per_image = taps.shape[1] * height * width * x.element_size()
    step = max(1, _CACHE_BYTES // per_image)
    for start in range(0, len(x), step):
        here = slice(start, start + step)
        lines = _lines(x[here], stride, padding, height, width)
        shifts = _shifts(weight, stride, dilation, len(x[here]), height, width)
        _run(lines, taps, _weighting(m[here], taps.shape[1], height, width), shifts, sums)
    return sums[: len(weight)]


def _line_shape(x: Tensor, weight: Tensor, m: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Rows and columns of one phase of a padded picture, large enough for every tap of every output position."""
    sizes = []
    for axis in (0, 1):
        padded = -(-(x.shape[2 + axis] + 2 * padding[axis]) // stride[axis])
        reach = m.shape[2 + axis] + (weight.shape[2 + axis] - 1) * dilation[axis] // stride[axis]
        sizes.append(max(padded, reach))
    return sizes[0], sizes[1]


def _lines(x: Tensor, stride: Pair, padding: Pair, height: int, width: int) -> Float[Tensor, "i l"]:
    """Pictures as one line a channel: phases, pictures, rows, columns."""
    n, channels, rows, columns = x.shape
    whole = x.new_zeros(channels, n, height * stride[0], width * stride[1])
    top, left = padding
    whole[:, :, top : top + rows, left : left + columns] = x.transpose(0, 1)
    phases = whole.view(channels, n, height, stride[0], width, stride[1]).permute(0, 3, 5, 1, 2, 4)
    return phases.reshape(channels, -1)


def _weighting(m: Tensor, filters: int, height: int, width: int) -> Float[Tensor, "o l"]:
    n, given, rows, columns = m.shape
    whole = m.new_zeros(filters, n, height, width)
    whole[:given, :, :rows, :columns] = m.transpose(0, 1)
    return whole.flatten(1)


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


def _run(lines: Tensor, taps: Tensor, weighting: Tensor, shifts: np.ndarray, sums: Tensor) -> None:
    # positions after the last one with a full set of taps have weight zero and are not visited
    length = min(weighting.shape[1], lines.shape[1] - int(shifts.max()))
    loop = _compiled(len(shifts))
    arrays = lines.numpy(), taps.numpy(), weighting.numpy(), shifts, np.uint64(length), sums.numpy()
    bounds = np.linspace(0, len(lines), min(torch.get_num_threads(), len(lines)) + 1).astype(int).tolist()
    if len(bounds) == 2:
        loop(*arrays, 0, len(lines))
        return
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        list(pool.map(lambda ends: loop(*arrays, *ends), pairwise(bounds)))


@cache
def _compiled(n_taps: int) -> Callable[..., None]:
    """The loop for a number of taps; compiled once, then read from numba's cache on disk."""
    import numba  # slow to import, and needed only here

    def loop(lines: Any, taps: Any, weighting: Any, shifts: Any, length: Any, sums: Any, first: int, last: int) -> None:
        zero = taps.dtype.type(0)
        shift = np.empty(n_taps, np.uint64)
        shift[:] = shifts
        w = np.empty((2, n_taps), taps.dtype)
        for i in range(first, last):
            x = lines[i]
            for o in range(0, taps.shape[1], 2):
                w[:] = taps[i, o : o + 2]
                m0, m1 = weighting[o], weighting[o + 1]
                s0, s1 = zero, zero
                for position in range(length):
                    a0, a1 = zero, zero
                    for t in range(n_taps):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    s0 += abs(a0) * m0[position]
                    s1 += abs(a1) * m1[position]
                sums[o, i] += s0
                sums[o + 1, i] += s1

    # a run-time type checker may have wrapped the function; numba needs it bare
    return numba.njit(fastmath=True, nogil=True, cache=True, error_model="numpy")(inspect.unwrap(loop))
