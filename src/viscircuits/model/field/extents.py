"""How the size of an image spreads forwards: which axes of each tensor are rows and columns, and how long they are.

An axis that is rows or columns of the image keeps that role through windows, sums and permutations, so many pixels from
one place to the next. Where an operation's place decides what it computes (adaptive pools, interpolation, reflected
padding, learnt positions) there is no rule, and what comes behind it has no extents. Which crops follow from the sizes
is in `viscircuits.model.field.aligned`.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor, fx

from viscircuits.model import ops
from viscircuits.model.field.demands import image_node, varying_nodes
from viscircuits.model.field.mixing import mixed_axes
from viscircuits.model.field.moving import axis_groups, constant_padding, permutation
from viscircuits.model.field.windows import Window, each, windows
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import argument, arguments, op_name, reduced_axes, shape_of, source


class Extent(NamedTuple):
    """An axis that is rows (side 0) or columns (side 1): pixels from one place to the next, and how many places."""

    side: int
    jump: Fraction
    size: int


Extents = tuple[Extent | None, ...]
"""One entry an axis of a tensor; None for axes that are no rows or columns."""

ExtentsOf = Mapping[fx.Node, Extents]


def extents_of(graph: NetGraph, image: Sequence[int]) -> dict[fx.Node, Extents]:
    """Returns the extents of every node, for an image of some height and width, as far as there are rules."""
    varying = varying_nodes(graph)
    sides = [Extent(side, Fraction(1), size) for side, size in enumerate(image)]
    known: dict[fx.Node, Extents] = {image_node(graph): (None, None, *sides)}
    for node in graph.nodes:
        if node.op == "call_function" and node in varying:
            sources = [n for n in node.all_input_nodes if n in varying]
            if all(operand in known for operand in sources):
                extents = _RULES.get(op_name(node), _none)(node, known)
                # a crop too small for some window leaves a map without places
                if extents is not None and all(extent is None or extent.size > 0 for extent in extents):
                    known[node] = extents
    return known


def _first(node: fx.Node, known: ExtentsOf) -> Extents:
    return known[source(node)]


def _none(node: fx.Node, known: ExtentsOf) -> None:
    return None


def _windowed(node: fx.Node, known: ExtentsOf) -> Extents | None:
    along = windows(node)
    lead, space = _first(node, known)[: -len(along)], _first(node, known)[-len(along) :]
    # a window over channels, or over places that were made channels, leaves rows where no window says how they go on
    if any(lead):
        return None
    if op_name(node) in ops.TRANSPOSED_CONVS:
        more = each(argument(node, "output_padding"), len(along))
        return *lead, *(_upsampled(e, w, m) for e, w, m in zip(space, along, more, strict=True))
    walked = (e and Extent(e.side, e.jump * w.stride, w.count(e.size)) for e, w in zip(space, along, strict=True))
    return *lead, *walked


def _upsampled(extent: Extent | None, window: Window, more: int) -> Extent | None:
    """What a transposed convolution makes of an axis; its output may be longer by ``more`` places."""
    if extent is None:
        return None
    end = window.dilation * (window.taps - 1) + 1 - window.before - window.after + more
    # a fraction: where it goes up by three and down by two, places are not whole pixels apart
    return Extent(extent.side, extent.jump / window.stride, (extent.size - 1) * window.stride + end)


def _pointwise(node: fx.Node, known: ExtentsOf) -> Extents | None:
    """Sums, products and activations: all that is not broadcast along an axis must be laid out alike there."""
    rank = len(shape_of(node))
    along: list[set[Extent | None]] = [set() for _ in range(rank)]
    for operand in node.all_input_nodes:
        if isinstance(operand.meta.get("val"), Tensor):
            sizes = shape_of(operand)
            extents = known.get(operand, (None,) * len(sizes))
            # A stored tensor of the map's size counts as well: learnt positions belong to the whole image, and no
            # rows of a crop agree with them.
            for axis, extent, size in zip(range(rank - len(sizes), rank), extents, sizes, strict=True):
                if extent is not None or size != 1:
                    along[axis].add(extent)
    return None if any(len(kinds) > 1 for kinds in along) else tuple(next(iter(kinds), None) for kinds in along)


def _over_axes(node: fx.Node, known: ExtentsOf) -> Extents | None:
    extents = _first(node, known)
    return None if any(extents[axis] for axis in mixed_axes(node)) else extents


def _reduction(node: fx.Node, known: ExtentsOf) -> Extents | None:
    if isinstance(argument(node, "other"), fx.Node):
        return _pointwise(node, known)
    before, axes = _first(node, known), reduced_axes(node)
    # a mean over rows would be one over fewer rows on a crop
    if any(before[axis] for axis in axes):
        return None
    dropped = len(shape_of(node)) < len(before)
    return tuple(extent for axis, extent in enumerate(before) if not (dropped and axis in axes))


def _reshaped(node: fx.Node, known: ExtentsOf) -> Extents | None:
    before, after = _first(node, known), shape_of(node)
    alone = {a[0]: b[0] for a, b in axis_groups(shape_of(source(node)), after) if len(a) == len(b) == 1}
    if any(extent and axis not in alone for axis, extent in enumerate(before)):
        return None
    placed = {alone[axis]: extent for axis, extent in enumerate(before) if extent}
    return tuple(placed.get(axis) for axis in range(len(after)))


def _permuted(node: fx.Node, known: ExtentsOf) -> Extents:
    before = _first(node, known)
    return tuple(before[axis] for axis in permutation(node))


def _part(node: fx.Node, known: ExtentsOf) -> Extents | None:
    before = _first(node, known)
    axis = (argument(node, "dim") or 0) % len(before)
    if before[axis]:
        return None
    return before[:axis] + before[axis + 1 :] if op_name(node) in ops.SELECTIONS else before


def _concatenated(node: fx.Node, known: ExtentsOf) -> Extents | None:
    parts = {known.get(part) for part in arguments(node)[0]}
    first = next(iter(parts))
    if len(parts) > 1 or first is None or first[(argument(node, "dim") or 0) % len(first)]:
        return None
    return first


def _padded(node: fx.Node, known: ExtentsOf) -> Extents | None:
    padding = constant_padding(node)
    if padding is None:
        return None
    pairs = zip(_first(node, known), padding, strict=True)
    return tuple(e and Extent(e.side, e.jump, e.size + before + after) for e, (before, after) in pairs)


_FAMILIES: dict[Callable[[fx.Node, ExtentsOf], Extents | None], frozenset[str]] = {
    _windowed: ops.WINDOWED,
    _pointwise: ops.POINTWISE,
    _over_axes: ops.OVER_AXES,
    _reduction: ops.REDUCTIONS,
    _reshaped: ops.REGROUPINGS,
    _permuted: ops.PERMUTATIONS | ops.REVERSALS,
    _part: ops.PARTS,
    _concatenated: ops.CONCATENATIONS,
    _padded: ops.CONSTANT_PADDINGS,
    _first: ops.ONE_NUMBER_A_CHANNEL | {"getitem"},
}
_RULES = {name: rule for rule, names in _FAMILIES.items() for name in names}
