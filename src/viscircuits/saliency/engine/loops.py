"""The compiled loops of `viscircuits.saliency.engine.fused`: laying pictures out in lines, and the sums over them.

Convention: a loop is plain Python that numba compiles for one floating type and one number of taps; it takes arrays and
the range of rows that are its own, and writes its results into the last array. What looks clumsy here (unsigned
indices, five loops after one another, eight scalars) is what the compiler needs to write vector code.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numba.core.typing.templates import Signature

_UNROLLED = 25
"""Up to this many taps the compiler unrolls a loop over them; beyond, it is ten times as slow."""

MOST_TAPS = 5 * _UNROLLED
"""More taps than this take another way."""


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
    return machine_code(loop, signature)


def machine_code(loop: Callable[..., None], signature: "Signature") -> Callable[..., None]:
    """Returns a loop compiled for numba's types of its arguments, or read from numba's cache on disk."""
    import numba

    # a run-time type checker may have wrapped the function; numba needs it bare
    bare = inspect.unwrap(loop)
    # fastmath lets sums be split into the lanes of a vector; numpy's division spares a check for zero at every step
    options = {"fastmath": True, "nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(signature, cache=True, **options)(bare)
    except (RuntimeError, OSError):  # no place for a cache: package and home cannot be written, or the disk is full
        return numba.njit(signature, **options)(bare)


def number(tensor: Tensor) -> str:
    """Returns the name of a tensor's numbers, as `compiled` takes it."""
    return "float64" if tensor.dtype == torch.float64 else "float32"


def _laying(
    source: np.ndarray, lines: np.ndarray, sy: int, sx: int, top: int, left: int, height: int, width: int,
    absolute: bool, first: int, last: int,
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
    def loop(
        lines: np.ndarray, taps: np.ndarray, weighting: np.ndarray, shifts: np.ndarray, length: np.uint64,
        sums: np.ndarray, first: int, last: int,
    ) -> None:  # fmt: skip
        zero = taps.dtype.type(0)
        # copies of a length that is known when this is compiled, so that no index has to be looked at
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
                    # five loops of at most 25 taps each: the compiler unrolls short ones only, and empty ones vanish
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
    def loop(
        lines: np.ndarray, taps: np.ndarray, weighting: np.ndarray, shifts: np.ndarray, length: np.uint64,
        sums: np.ndarray, first: int, last: int,
    ) -> None:  # fmt: skip
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
                # scalars, not an array: the compiler keeps each in a register of its own
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
