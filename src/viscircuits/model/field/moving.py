"""What a place reads where an operation only moves numbers: permutations, reshapes, joints, parts, borders.

Less common ways to move are not here: the operation itself is asked then (`viscircuits.model.field.places.moved`).
"""

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import torch
from torch import fx

from viscircuits.model import ops
from viscircuits.model.field.places import Call, Places, Requests, inside, moved
from viscircuits.model.nodes import argument, arguments, concrete, op_name, shape_of


def permutation(node: fx.Node) -> list[int]:
    """Returns, for each axis of the result of a permutation, which axis of the input it was."""
    rank = len(shape_of(node))
    if op_name(node) == "permute":
        return [axis % rank for axis in arguments(node)[1]]
    axes = list(range(rank))
    a, b = (axis % rank for axis in arguments(node)[1:3]) if op_name(node) == "transpose" else (0, rank - 1)
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def permuted(call: Call) -> Requests:
    """Each axis of the input is asked what its place in the result is asked."""
    of_axis = dict(zip(permutation(call.node), call.demand, strict=True))
    yield call.inputs[0], tuple(of_axis[axis] for axis in range(len(call.demand)))


def axis_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Returns which axes become which when a tensor is reshaped: groups of equal size, axes of size 1 left out."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    groups = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (short := prod(before[i] for i in a) - prod(after[i] for i in b)) != 0:
            a.append(left.pop(0)) if short < 0 else b.append(right.pop(0))
        groups.append((a, b))
    return groups


def reshaped(call: Call) -> Requests:
    """Axes that stay alone ask for the same places; those that are split or joined are counted through."""
    source = call.inputs[0]
    sizes = shape_of(source)
    demand = [Places(frozenset({0}))] * len(sizes)
    for before, after in axis_groups(sizes, call.shape):
        wanted = [call.demand[axis] for axis in after]
        if len(before) == len(after) == 1:
            # places beyond the ends stay what they are: counting them through would lose them
            demand[before[0]] = wanted[0]
            continue
        places = _unravelled(wanted, [call.shape[axis] for axis in after], [sizes[axis] for axis in before])
        for axis, at in zip(before, places, strict=True):
            demand[axis] = Places(at, len(at) == sizes[axis] and any(p.mixed for p in wanted))
    yield source, tuple(demand)


def _unravelled(wanted: Sequence[Places], shape: Sequence[int], sizes: Sequence[int]) -> list[frozenset[int]]:
    """The indices along each axis of a block of ``sizes`` that places in a block of ``shape`` stand for."""
    known = [sorted(inside(places, size).at) for places, size in zip(wanted, shape, strict=True)]
    # the most common case, and the one whose numbers would fill memory: a flattened map of which all is asked
    if all(len(at) == size for at, size in zip(known, shape, strict=True)):
        return [frozenset(range(size)) for size in sizes]
    flat = torch.zeros(1, dtype=torch.long)
    for at, size in zip(known, shape, strict=True):
        flat = (flat[:, None] * size + torch.tensor(at, dtype=torch.long)).flatten()
    return [frozenset(axis.unique().tolist()) for axis in torch.unravel_index(flat, tuple(sizes))]


def concatenated(call: Call) -> Requests:
    """Each part is asked for the places that lie in it."""
    axis = (argument(call.node, "dim") or 0) % len(call.demand)
    start = 0
    for part in arguments(call.node)[0]:
        size = shape_of(part)[axis]
        shifted = Places(frozenset(i - start for i in call.demand[axis].at), call.demand[axis].mixed)
        yield part, (*call.demand[:axis], inside(shifted, size), *call.demand[axis + 1 :])
        start += size


def stacked(call: Call) -> Requests:
    """Each part is asked for, or is not."""
    axis = (argument(call.node, "dim") or 0) % len(call.demand)
    for i, part in enumerate(arguments(call.node)[0]):
        if i in call.demand[axis].at:
            yield part, (*call.demand[:axis], *call.demand[axis + 1 :])


def part(call: Call) -> Requests:
    """Slices, selections and the pieces of a split: some places along one axis, in order."""
    name, source, demand = op_name(call.node), call.inputs[0], list(call.demand)
    sizes = shape_of(source)
    axis = (argument(call.node, "dim") or 0) % len(sizes)
    if name in ops.SELECTIONS:
        index = call.item if name == "unbind" else argument(call.node, "index") % sizes[axis]
        demand.insert(axis, Places(frozenset({index})))
    else:
        if name == "slice":
            given = argument(call.node, "start"), argument(call.node, "end"), argument(call.node, "step")
            taken = range(sizes[axis])[slice(*given)]
        else:
            # read off the trace: arguments give a size, a list of sizes, a number of pieces, or places to cut at
            pieces = [concrete(piece.shape)[axis] for piece in call.node.meta["val"]]
            taken = range([0, *accumulate(pieces)][call.item], sizes[axis])
        known = inside(demand[axis], call.shape[axis])
        demand[axis] = Places(frozenset(taken[i] for i in known.at), known.mixed and len(known.at) == sizes[axis])
    yield source, tuple(demand)


def rolled(call: Call) -> Requests:
    """What is pushed out at one end comes in at the other."""
    # without axes the whole tensor is shifted as one row of numbers
    if len(call.node.args) < 3 or not arguments(call.node)[2]:
        yield from moved(call)
        return
    demand = list(call.demand)
    for shift, axis in zip(*arguments(call.node)[1:3], strict=True):
        demand[axis] = Places(frozenset((i - shift) % call.shape[axis] for i in demand[axis].at), demand[axis].mixed)
    yield call.inputs[0], tuple(demand)


def constant_padding(node: fx.Node) -> list[tuple[int, int]] | None:
    """Returns how much is put before and after each axis; None for padding with the tensor's own values."""
    if op_name(node) == "pad" and argument(node, "mode") != "constant":
        return None
    # torch lists borders from the last axis backwards
    pairs = list(zip(arguments(node)[1][::2], arguments(node)[1][1::2], strict=True))[::-1]
    return [(0, 0)] * (len(shape_of(node)) - len(pairs)) + pairs


def padded(call: Call) -> Requests:
    """A constant border moves places; beyond it nothing of the input is read."""
    padding = constant_padding(call.node)
    if padding is None:
        yield from moved(call)
        return
    pairs = zip(call.demand, padding, strict=True)
    yield call.inputs[0], tuple(_shifted(places, before) for places, (before, _) in pairs)


def _shifted(places: Places, by: int) -> Places:
    return Places(frozenset(place - by for place in places.at), places.mixed)
