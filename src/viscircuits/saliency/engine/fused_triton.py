"""The sum over positions of |map of one kernel| times a weighting, in one GPU kernel that stores no map.

For every kernel (o, i) of a two-dimensional convolution on a CUDA device::

    S[o, i] = sum_n sum_hw | sum_t w[o, i, t] x[n, i, position + shift of tap t] | m[n, o, hw]

Positions of all pictures are numbered through. A program takes a block of input channels and filters and walks along a
part of the positions, a tile at a time: it loads the input once a tap for all of the block's filters, adds up the maps
in registers, and multiplies them with the weightings of several targets. A thread keeps its own positions and the sums
over them, so that threads meet only once, at the end.

Every (o, i) is summed in an order that the shapes alone fix: parts are written side by side and added afterwards,
nothing is added atomically. Only this file needs triton, and it is imported where a CUDA device is in use.
"""

# a kernel is written in triton's language, which no type checker knows
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from viscircuits.saliency.engine.fused import TOGETHER, Pair

_THREADS = 128
_PROGRAMS = 2048
"""Positions are cut into parts until there are about this many programs, enough for any device."""

_CHANNELS_LAST = 16
"""From this many channels on that lie side by side in memory, threads stand along channels."""


class _Block(NamedTuple):
    """What one program holds at a time; powers of two.

    Args:
        targets: number of weightings.
        channels: number of input channels.
        filters: number of filters.
        rounds: positions of one thread.
        positions: positions that stand side by side in different threads.
    """

    targets: int
    channels: int
    filters: int
    rounds: int
    positions: int


def weighted_absolute_maps(
    x: Float[Tensor, "n i h w"],
    weight: Float[Tensor, "o i kh kw"],
    weightings: Sequence[Float[Tensor, "n o y x"]],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Float[Tensor, "t o i"]:
    """Returns ``S`` of every weighting, for one group of a convolution; CUDA tensors of one floating type.

    Sums are of that type, but of float32 where the type is half as wide.

    Args:
        x: the input.
        weight: the kernels.
        weightings: ``m``, in the shape of the output, one a target.
        stride, padding, dilation: rows, then columns, in pixels.
    """
    # the kernel takes one set of strides for all of them
    weightings = [m if m.stride() == weightings[0].stride() else _laid_as(weightings[0], m) for m in weightings]
    groups = [weightings[first : first + TOGETHER] for first in range(0, len(weightings), TOGETHER)]
    with torch.cuda.device_of(x):
        return torch.cat([_sums(x, weight, some, stride, padding, dilation) for some in groups])


def _sums(
    x: Tensor, weight: Tensor, weightings: Sequence[Tensor], stride: Pair, padding: Pair, dilation: Pair
) -> Float[Tensor, "t o i"]:
    n_targets, (filters, channels, *kernel) = len(weightings), weight.shape
    images, _, *rows_columns = weightings[0].shape
    last = x.stride(1) == 1 and channels >= _CHANNELS_LAST
    block = _block(n_targets, channels, filters, x.element_size(), last)
    blocks = triton.cdiv(channels, block.channels), triton.cdiv(filters, block.filters)
    tiles = triton.cdiv(images * rows_columns[0] * rows_columns[1], block.rounds * block.positions)
    steps = triton.cdiv(tiles, max(1, _PROGRAMS // (blocks[0] * blocks[1])))
    parts = triton.cdiv(tiles, steps)
    whole = blocks[0] * block.channels, blocks[1] * block.filters
    taps = pad(weight.permute(2, 3, 1, 0), (0, whole[1] - filters, 0, whole[0] - channels))
    taps = (taps.transpose(2, 3) if last else taps).contiguous()
    dtype = torch.promote_types(x.dtype, torch.float32)
    # every program writes a place of its own: atomic additions would come in another order each time
    sums = torch.empty(parts, block.targets, *whole, dtype=dtype, device=x.device)
    # the kernel is compiled for powers of two; the sums of the copies are dropped
    weightings = (*weightings, *[weightings[-1]] * (block.targets - n_targets))
    compiled()[blocks[1], blocks[0], parts](
        x, taps, weightings, sums, images, *x.shape[2:], *rows_columns, channels, filters, *x.stride(),
        *weightings[0].stride(), *stride, *padding, *dilation, steps, *kernel, any(padding), last, *block,
        num_warps=max(block.channels, block.positions) // 32, enable_fp_fusion=True,
    )  # fmt: skip
    return sums.sum(0)[:n_targets, :channels, :filters].transpose(1, 2)


def _laid_as(like: Tensor, m: Tensor) -> Tensor:
    return torch.empty_like(like).copy_(m)


def _block(targets: int, channels: int, filters: int, n_bytes: int, last: bool) -> _Block:
    """Chosen so that maps, sums and what they are made of stay in the 255 registers of a thread."""
    targets, words = triton.next_power_of_2(targets), max(1, n_bytes // 4)
    crowded = targets * words
    most = 2
    if crowded <= 8:
        most = 8 if crowded <= 2 else 4
    filters = min(most, triton.next_power_of_2(filters))
    if not last:
        return _Block(targets, min(2, triton.next_power_of_2(channels)), filters, 4 // words, _THREADS)
    side = min(_THREADS, max(32, triton.next_power_of_2(channels)))
    rounds = (8 if crowded <= 2 else 4) // words
    # with fewer weightings to load than threads, triton lets each load what it needs; else they exchange it
    return _Block(targets, side, min(filters, side // (2 * rounds)), rounds, 1)


@cache
def compiled() -> Any:
    """Returns the kernel, which triton compiles for every kind of call, but not for every size of picture."""
    # a run-time type checker may have wrapped the function; triton reads it bare
    bare = inspect.unwrap(_summing)
    sizes = [name for name, kind in bare.__annotations__.items() if kind is tl.tensor][4:]
    return triton.jit(bare, do_not_specialize=sizes)


def _summing(
    x: tl.tensor, taps: tl.tensor, weightings: tl.tensor, sums: tl.tensor, images: tl.tensor, height: tl.tensor,
    width: tl.tensor, rows: tl.tensor, columns: tl.tensor, channels: tl.tensor, filters: tl.tensor, x_n: tl.tensor,
    x_c: tl.tensor, x_h: tl.tensor, x_w: tl.tensor, m_n: tl.tensor, m_o: tl.tensor, m_h: tl.tensor, m_w: tl.tensor,
    stride_y: tl.tensor, stride_x: tl.tensor, padding_y: tl.tensor, padding_x: tl.tensor, dilation_y: tl.tensor,
    dilation_x: tl.tensor, steps: tl.tensor, KH: tl.constexpr, KW: tl.constexpr, PADDED: tl.constexpr,
    LAST: tl.constexpr, T: tl.constexpr, C: tl.constexpr, F: tl.constexpr, U: tl.constexpr, P: tl.constexpr,
) -> None:  # fmt: skip
    """One part of the sums of ``C`` channels and ``F`` filters: some tiles of ``U P`` positions.

    All arrays have the axes ``(U, C, F, P)``, or ``(U, F, C, P)`` where channels are last. Threads stand along ``P``
    and what they are left for before it: more positions, or channels, so that they read what lies side by side.
    """
    A: tl.constexpr = F if LAST else C
    B: tl.constexpr = C if LAST else F
    a, b = tl.arange(0, A)[None, :, None, None], tl.arange(0, B)[None, None, :, None]
    i = tl.program_id(1) * C + (b if LAST else a)
    o = tl.program_id(0) * F + (a if LAST else b)
    part, whole_i, whole_o = tl.program_id(2), tl.num_programs(1) * C, tl.num_programs(0) * F
    x += tl.minimum(i, channels - 1).to(tl.int64) * x_c
    m_place = tl.minimum(o, filters - 1).to(tl.int64) * m_o
    tile = (tl.arange(0, U)[:, None] * P + tl.arange(0, P)[None, :])[:, None, None, :]
    # x_c is 1, but triton must not know it, or it would have each thread load several taps and then exchange them
    taps += o * whole_i + i * x_c if LAST else i * whole_o + o
    number: tl.constexpr = sums.dtype.element_ty
    total = ()
    for _ in tl.static_range(T):
        total += (tl.zeros((1, A, B, P), number),)
    for step in range(part * steps, part * steps + steps):
        position = step * (U * P) + tile
        inside = position < images * rows * columns
        line = position // columns
        n, row, column = (line // rows).to(tl.int64), line % rows, position % columns
        y, z = row * stride_y - padding_y, column * stride_x - padding_x
        corner = x + (n * x_n + y * x_h + z * x_w)
        maps = tl.zeros((U, A, B, P), number)
        for ky in range(KH):
            for kx in tl.static_range(KW):
                there = inside
                if PADDED:
                    v, h = y + ky * dilation_y, z + kx * dilation_x
                    there = there & (v >= 0) & (v < height) & (h >= 0) & (h < width)
                values = tl.load(corner + (ky * dilation_y * x_h + kx * dilation_x * x_w), mask=there, other=0)
                tap = tl.load(taps + (ky * KW + kx) * whole_i * whole_o)
                maps += values.to(number) * tap.to(number)
        maps = tl.abs(maps)
        place = m_place + (n * m_n + row * m_h + column * m_w)
        more = ()
        for t in tl.static_range(T):
            m = tl.load(weightings[t] + place, mask=inside, other=0).to(number)
            more += (total[t] + tl.sum(maps * tl.abs(m), 0, keep_dims=True),)
        total = more
    for t in tl.static_range(T):
        tl.store(sums + ((part * T + t) * whole_i + i) * whole_o + o, tl.sum(total[t], 3, keep_dims=True))
