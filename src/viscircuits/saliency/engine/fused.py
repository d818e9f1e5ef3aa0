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
"""

import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_CACHE_BYTES = 2**22
"""Pictures are taken in blocks whose weighting stays in a core's own cache."""

TOGETHER = 8
"""Weightings that share a map: each holds a vector register."""

_UNROLLED = 25
"""Up to this many taps the compiler unrolls a loop over them; beyond, it is ten times as slow."""

_WORTH_IT = 0.9
"""Filters are singled out where fewer than this share have a gradient."""

MOST_TAPS = 5 * _UNROLLED
"""More taps than this take another way."""

Pair = tuple[int, int]


def weighted_absolute_maps(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i kh kw"],
    weightings: Sequence[Float[Tensor, "n o y x"]],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Float[Tensor, "t o i"]:
    """Returns ``S`` of every weighting, for one group of a convolution; CPU tensors of one floating type (32 or 64)."""
    height, width = _line_shape(x, weight, weightings[0], stride, padding, dilation)
    sums = torch.zeros(len(weightings), *weight.shape[:2], dtype=x.dtype)
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
    with ThreadPoolExecutor(len(bounds) - 1) as pool:
        list(pool.map(lambda ends: loop(*ends), pairwise(bounds)))


# ---- compiled loops --------------------------------------------------------------------------------------------------


@cache
def compiled(kind: Literal["lay", "alone", "together"], dtype: str, n_taps: int = 0) -> Callable[..., None]:
    """Returns a loop, compiled here (a second, the first time on a machine) or read from numba's cache on disk.

    Args:
        kind: laying pictures out, or the sums for one weighting or `TOGETHER`.
        dtype: "float32" or "float64".
        n_taps: number of taps of the kernels.
    """
    import numba  # slow to import, and needed only here

    value, whole = getattr(numba, dtype), numba.int64
    lines, stack = value[:, ::1], value[:, :, ::1]
    if kind == "lay":
        loop, places = _laying, (*[whole] * 6, numba.boolean, whole, whole)
        signature = numba.void(value[:, :, :, :], lines, *places)
    else:
        loop = (_alone if kind == "alone" else _together)(n_taps, *_pieces(n_taps))
        signature = numba.void(lines, stack, stack, numba.uint64[::1], numba.uint64, stack, whole, whole)
    # a run-time type checker may have wrapped the function; numba needs it bare
    bare = inspect.unwrap(loop)
    options = {"fastmath": True, "nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(signature, cache=True, **options)(bare)
    except (RuntimeError, OSError):  # no place for a cache: package and home cannot be written, or the disk is full
        return numba.njit(signature, **options)(bare)


def number(tensor: Tensor) -> str:
    """Returns the name of a tensor's numbers, as `compiled` takes it."""
    return "float64" if tensor.dtype == torch.float64 else "float32"


def _laying(
    source: Any, lines: Any, sy: int, sx: int, top: int, left: int, height: int, width: int, absolute: bool,
    first: int, last: int,
) -> None:  # fmt: skip
    """Copies pictures ``(n, h, w, c)`` into lines of zeros ``(c, phases n height width)``."""
    n, rows, columns, _ = source.shape
    for start in range(first, last, 16):  # channels that stand side by side in memory are read together
        for picture in range(n):
            for y in range(rows):
                row = source[picture, y]
                for phase in range(sx):
                    skipped = (phase - left) % sx
                    steps = (columns - skipped + sx - 1) // sx
                    line_row = ((y + top) % sy * sx + phase) * n * height + picture * height + (y + top) // sy
                    at = line_row * width + (skipped + left) // sx
                    for channel in range(start, min(start + 16, last)):
                        line, c = lines[channel], np.uint64(channel)
                        for x in range(steps):
                            value = row[np.uint64(skipped + x * sx), c]
                            line[np.uint64(at + x)] = abs(value) if absolute else value


def _pieces(n_taps: int) -> list[int]:
    """Where each of the five pieces of the taps ends."""
    return [min(n_taps, end) for end in range(_UNROLLED, MOST_TAPS + 1, _UNROLLED)]


def _alone(n_taps: int, end_a: int, end_b: int, end_c: int, end_d: int, end_e: int) -> Callable[..., None]:
    def loop(lines: Any, taps: Any, weighting: Any, shifts: Any, length: Any, sums: Any, first: int, last: int) -> None:
        zero = taps.dtype.type(0)
        shift = np.empty(n_taps, np.uint64)
        shift[:] = shifts
        w = np.empty((2, n_taps), taps.dtype)
        for i in range(lines.shape[0]):
            x = lines[i]
            for o in range(2 * first, 2 * last, 2):
                w[0], w[1] = taps[o, i], taps[o + 1, i]
                m0, m1 = weighting[0, o], weighting[0, o + 1]
                s0, s1 = zero, zero
                for position in range(length):
                    a0, a1 = zero, zero
                    for t in range(end_a):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    for t in range(end_a, end_b):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    for t in range(end_b, end_c):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    for t in range(end_c, end_d):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    for t in range(end_d, end_e):
                        v = x[position + shift[t]]
                        a0 += w[0, t] * v
                        a1 += w[1, t] * v
                    s0 += abs(a0) * m0[position]
                    s1 += abs(a1) * m1[position]
                sums[0, o, i] += s0
                sums[0, o + 1, i] += s1

    return loop


def _together(n_taps: int, end_a: int, end_b: int, end_c: int, end_d: int, end_e: int) -> Callable[..., None]:
    def loop(lines: Any, taps: Any, weighting: Any, shifts: Any, length: Any, sums: Any, first: int, last: int) -> None:
        zero = taps.dtype.type(0)
        shift = np.empty(n_taps, np.uint64)
        shift[:] = shifts
        w = np.empty(n_taps, taps.dtype)
        for o in range(first, last):
            m0, m1, m2, m3 = weighting[0, o], weighting[1, o], weighting[2, o], weighting[3, o]
            m4, m5, m6, m7 = weighting[4, o], weighting[5, o], weighting[6, o], weighting[7, o]
            for i in range(lines.shape[0]):
                x = lines[i]
                w[:] = taps[o, i]
                s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
                for position in range(length):
                    a = zero
                    for t in range(end_a):
                        a += w[t] * x[position + shift[t]]
                    for t in range(end_a, end_b):
                        a += w[t] * x[position + shift[t]]
                    for t in range(end_b, end_c):
                        a += w[t] * x[position + shift[t]]
                    for t in range(end_c, end_d):
                        a += w[t] * x[position + shift[t]]
                    for t in range(end_d, end_e):
                        a += w[t] * x[position + shift[t]]
                    a = abs(a)
                    s0 += a * m0[position]
                    s1 += a * m1[position]
                    s2 += a * m2[position]
                    s3 += a * m3[position]
                    s4 += a * m4[position]
                    s5 += a * m5[position]
                    s6 += a * m6[position]
                    s7 += a * m7[position]
                sums[0, o, i] += s0
                sums[1, o, i] += s1
                sums[2, o, i] += s2
                sums[3, o, i] += s3
                sums[4, o, i] += s4
                sums[5, o, i] += s5
                sums[6, o, i] += s6
                sums[7, o, i] += s7

    return loop
