"""Backward elimination: which kernels of a layer go first, and what their going adds to the cost.

    cost(R) = sum over pairs (f, i), (f', j) in R of  H[f, f'] * w[f, i]' C[i, j] w[f', j]

is the mean square of what the target loses when the kernels R are removed from the layer, to second order. Written as
matrices, with ``D`` the weights of what is removed (filters x inputs and taps) and 0 elsewhere: ``cost = <D, H D C>``,
and to remove kernel ``k = (f, i)`` as well adds ``H[f, f] w_k' C[i, i] w_k + 2 <w_k, (H D C)_k>``.

The cheapest kernel goes, and the cost of all others follows; so one after the other, until nothing is left. What each
adds is the slope of the cost curve there. Its lower convex hull makes the slopes rise, because what goes later is never
worth less, and comparable between layers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from viscircuits.saliency.engine.loops import machine_code, number

_GONE = 1e30
"""The cost of what cannot go (any more): not infinity, with which fast arithmetic is undefined."""


@dataclass(frozen=True)
class Layer:
    """A kernel layer, and what its elimination goes by.

    Attributes:
        weight: filter, input channel of its group, tap.
        inputs: ``C`` over channels and taps: a matrix a group, or a matrix a block of each group's channels; what two
            of them share counts nothing.
        gradients: ``H``; what two groups share counts nothing.
        relevant: which kernels can be removed at all.
        groups: of the layer.
    """

    weight: Float[Tensor, "out in t"]
    inputs: Float[Tensor, "b d d"]
    gradients: Float[Tensor, "out out"]
    relevant: Bool[Tensor, "out in"]
    groups: int = 1

    def pressure(self, removed: Bool[Tensor, "out in"]) -> Float[Tensor, "out in t"]:
        """Returns ``H D C``: half the slope of the cost at every weight once some kernels are removed."""
        gone = self.blocks(self.weight * removed[..., None].to(self.weight.device)).flatten(2)
        return self.joined((self._gradients @ gone @ self.inputs).unflatten(2, (-1, self.weight.shape[2])))

    def cost(self, removed: Bool[Tensor, "out in"]) -> Float[Tensor, ""]:
        """Returns the cost of removing some kernels, in squares of the target's unit."""
        return (self.weight * removed[..., None].to(self.weight.device) * self.pressure(removed)).sum()

    def filters(self) -> Iterator[tuple["Layer", slice]]:
        """Yields every filter as a layer of its own, of which the others do not know, and its rows in this one."""
        share = len(self.weight) // self.groups
        for f in range(len(self.weight)):
            rows, start = slice(f, f + 1), f // share * self.blocks_of_a_group
            inputs = self.inputs[start : start + self.blocks_of_a_group]
            yield Layer(self.weight[rows], inputs, self.gradients[rows, rows], self.relevant[rows]), rows

    def alone(self) -> Float[Tensor, "out in"]:
        """Returns what each kernel costs when it goes alone."""
        weight = self.blocks(self.weight)
        b, _, i, t = weight.shape
        own = self.inputs.view(b, i, t, i, t).diagonal(dim1=1, dim2=3).movedim(-1, 1)  # (b, i, t, t)
        squares = self.joined(torch.einsum("bfit,bitu,bfiu->bfi", weight, own, weight))
        return self.gradients.diagonal()[:, None] * squares

    def blocks(self, values: Shaped[Tensor, "out in ..."]) -> Shaped[Tensor, "b f i ..."]:
        """Returns numbers of kernels by block: its filters, its channels."""
        return (
            values.unflatten(0, (self.groups, -1))
            .unflatten(2, (self.blocks_of_a_group, -1))
            .transpose(1, 2)
            .flatten(0, 1)
        )

    def joined(self, values: Shaped[Tensor, "b f i ..."]) -> Shaped[Tensor, "out in ..."]:
        """Returns the inverse of `blocks`."""
        return values.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

    @property
    def blocks_of_a_group(self) -> int:
        """Into how many blocks the channels of a group go."""
        return len(self.inputs) // self.groups

    @property
    def _gradients(self) -> Float[Tensor, "b f f"]:
        """``H`` of each block's filters."""
        own = self.gradients.unflatten(0, (self.groups, -1)).unflatten(2, (self.groups, -1))
        return own.diagonal(dim1=0, dim2=2).movedim(-1, 0).repeat_interleave(self.blocks_of_a_group, 0)


def eliminated(
    layer: Layer, removed: Bool[Tensor, "out in"] | None = None, *, block: int = 1
) -> Float[Tensor, "out in"]:
    """Returns what each kernel's removal adds, as slopes of the hull: at least 0, 0 too where nothing can go.

    Args:
        layer: weights and matrices.
        removed: kernels that are gone from the start; all are there where None.
        block: how many kernels go before the cost of the others follows; at most one of each filter.
    """
    gone = torch.zeros_like(layer.relevant) if removed is None else removed & layer.relevant
    left = layer.relevant & ~gone
    alone = layer.alone()
    scale = float(alone.max()) or 1.0  # in units in which `_GONE` is far away
    cost = (alone + 2 * (layer.weight * layer.pressure(gone)).sum(-1)) / scale
    cost = layer.blocks(cost.masked_fill(~left.to(cost.device), _GONE))
    weight, gradients = layer.blocks(layer.weight), layer._gradients / scale
    b, filters, i, t = weight.shape
    matrices = (
        weight.transpose(2, 3),  # neighbouring channels side by side, for vector code
        layer.inputs.view(b, i, t, i, t).transpose(3, 4),
        gradients,
        cost,
    )
    arrays = [matrix.contiguous().cpu().numpy() for matrix in matrices]
    order, rises = np.empty(int(left.sum()), np.int64), np.empty(int(left.sum()))
    slopes = torch.zeros(b, filters, i, dtype=torch.float64)
    if len(order):
        _loop(number(cost))(*arrays, min(block, b * filters), order, rises)
        values = np.maximum(hull(rises), 0)
        # of neighbours that the hull made equal the last to go is kept
        values += np.arange(1, len(values) + 1) * (1e-9 * values[-1] / len(values))
        slopes.view(-1)[torch.from_numpy(order)] = torch.from_numpy(values * scale)
    return layer.joined(slopes)


def hull(rises: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Returns the slopes of the lower convex hull of a curve that rises by so much at each step; they never fall."""
    slopes: list[float] = []
    counts: list[int] = []
    for slope in rises.tolist():
        count = 1
        while slopes and slopes[-1] >= slope:  # neighbours pool until slopes rise
            before, n = slopes.pop(), counts.pop()
            slope, count = (before * n + slope * count) / (n + count), n + count
        slopes.append(slope)
        counts.append(count)
    return np.repeat(slopes, counts)


@cache
def _loop(dtype: str):
    import numba  # slow to import, and needed only here

    value, whole = getattr(numba, dtype), numba.int64
    arrays = (value[:, :, :, ::1], value[:, :, :, :, ::1], value[:, :, ::1], value[:, :, ::1])
    return machine_code(_eliminate, numba.void(*arrays, whole, whole[::1], numba.float64[::1]))


def _eliminate(
    weight: np.ndarray, inputs: np.ndarray, gradients: np.ndarray, cost: np.ndarray, block: int, order: np.ndarray,
    rises: np.ndarray,
) -> None:  # fmt: skip
    """Writes the order of removal, flat, and what each removal adds.

    Args:
        weight: ``(g, f, t, i)``.
        inputs: ``C``, ``(g, i, t, t, i)``.
        gradients: ``H``.
        cost: of each kernel now; of those that cannot go a very large number. Written to.
        block: most kernels to remove at a time, one a filter.
        order, rises: results.
    """
    groups, filters, taps, width = weight.shape
    zero = cost.dtype.type(0)
    best = np.empty(groups * filters, cost.dtype)  # the cheapest kernel of each filter
    for row in range(groups * filters):
        best[row] = cost[row // filters, row % filters].min()
    chosen, column = np.empty(block, np.int64), np.empty(block, np.int64)
    change = np.empty((block, taps, width), cost.dtype)  # of the layer's pull on each weight, D C, by each one chosen
    pull, add = np.empty((taps, width), cost.dtype), np.empty(width, cost.dtype)
    done = 0
    while done < len(order):
        size = 0
        while size < block and done < len(order):
            row = best.argmin()
            if size > 0 and best[row] >= 1e29:  # the first always goes, so that the search ends whatever the numbers
                break
            g, f = row // filters, row % filters
            i = cost[g, f].argmin()
            change[size] = zero
            for t in range(taps):
                w = weight[g, f, t, i]
                for u in range(taps):
                    for j in range(width):
                        change[size, u, j] += w * inputs[g, i, t, u, j]
            rise = cost[g, f, i]
            for k in range(size):  # those chosen with it are not yet in its cost
                if chosen[k] // filters == g:
                    pressed = zero
                    for t in range(taps):
                        pressed += weight[g, f, t, i] * change[k, t, i]
                    rise += 2 * gradients[g, f, chosen[k] % filters] * pressed
            order[done], rises[done] = row * width + i, rise
            chosen[size], column[size] = row, i
            best[row] = 1e30  # one of each filter at a time
            size, done = size + 1, done + 1
        for k in range(size):
            cost[chosen[k] // filters, chosen[k] % filters, column[k]] = 1e30
        for row in range(groups * filters):
            g, f = row // filters, row % filters
            touched = False
            for k in range(size):
                if chosen[k] // filters == g:
                    h = 2 * gradients[g, f, chosen[k] % filters]
                    if h != 0 or chosen[k] == row:
                        if not touched:
                            touched, pull[:] = True, zero
                        for t in range(taps):
                            for j in range(width):
                                pull[t, j] += h * change[k, t, j]
            if touched:
                add[:] = zero
                for t in range(taps):
                    for j in range(width):
                        add[j] += weight[g, f, t, j] * pull[t, j]
                least = cost[g, f, 0] + add[0]
                for j in range(width):
                    c = cost[g, f, j] + add[j]
                    cost[g, f, j] = c
                    least = min(least, c)
                best[row] = least
