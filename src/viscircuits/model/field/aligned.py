"""Crops on which a network computes exactly what it computes at one position of a whole image.

A crop that starts at a multiple of the network's stride gives every map a start of its own: place ``i`` of the crop's
map is place ``i + offset`` of the image's. A position's value is the same on both if, at every operation on the way,
all places that it reads are there, and what lies beyond a border of the crop is either not read, or beyond the same
border of the image. Both are checked here, operation by operation and for every position, not assumed from the field.

Operations whose place decides what they compute (adaptive pools, interpolation, reflected padding, learnt positions)
have no rule here; such layers have no crops. Only the graph at the image's size is looked at: a module that does
something else at other sizes (an ``if`` on a width) is not noticed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

from torch import Tensor, fx

from viscircuits.errors import TargetError
from viscircuits.model.field import spread
from viscircuits.model.field.places import Places
from viscircuits.model.field.receptive_field import Box, demands, image_node, varying_nodes
from viscircuits.model.field.windows import each, windows
from viscircuits.model.flow.wires import REDUCTIONS
from viscircuits.model.graph import NetGraph
from viscircuits.model.ops import argument, op_name, reduced_axes, shape_of


@dataclass(frozen=True)
class AlignedCrops:
    """The crops of all positions of a layer, all of one size, so that crops of many images make one batch.

    Attributes:
        size: height and width of every crop.
        starts: first row of the crop for each row of the layer's map, and first column for each column.
        places: where the position stands in the crop's map, likewise.
    """

    size: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    places: tuple[tuple[int, ...], tuple[int, ...]]

    def at(self, position: Sequence[int]) -> tuple[Box, tuple[int, int]]:
        """Returns the crop for a position of the layer's map, and where the position stands in the crop's map."""
        if len(position) != 2 or not all(0 <= p < len(s) for p, s in zip(position, self.starts, strict=False)):
            raise TargetError(
                f"position {tuple(position)} is not on the map, {len(self.starts[0])} x {len(self.starts[1])}"
            )
        y, x = position
        top, left = self.starts[0][y], self.starts[1][x]
        return Box(top, left, top + self.size[0], left + self.size[1]), (self.places[0][y], self.places[1][x])


def aligned_crop(graph: NetGraph, layer: str, position: Sequence[int]) -> tuple[Box, tuple[int, int]] | None:
    """Returns the crop on which the model gives a position's exact value, and where it stands in the crop's map.

    ``run(model, graph, crop(images, box), [layer])[layer][:, :, y, x]`` then is what the whole images give at the
    position, up to rounding. None where there is no such crop that is smaller than the image. For many positions of a
    layer take `aligned_crops` once.
    """
    crops = aligned_crops(graph, layer)
    return None if crops is None else crops.at(position)


def aligned_crops(graph: NetGraph, layer: str) -> AlignedCrops | None:
    """Returns exact crops for all positions of a layer; None where none is smaller than the image.

    Their size is the smallest that serves every position, with starts at multiples of the network's stride and ends
    that fit the image's own border.
    """
    output, image = graph.output(layer), graph.input_shape[1:]
    image_node(graph)
    full = {node: layout for node, layout in _layouts(graph, image).items() if _agrees(node, layout)}
    layout = full.get(output.node)
    sides = [extent.side for extent in layout if extent] if layout else []
    if layout is None or sides != [0, 1] or len(output.map_shape) != 2:
        return None
    fits = [_fit(graph, output.node, layout, full, side) for side in (0, 1)]
    if any(fit is None for fit in fits) or tuple(fit.size for fit in fits if fit) == tuple(image):
        return None
    rows, columns = (fit for fit in fits if fit)
    return AlignedCrops((rows.size, columns.size), (rows.starts, columns.starts), (rows.places, columns.places))


def _agrees(node: fx.Node, layout: "Layout") -> bool:
    """Whether the sizes that the rules give for the whole image are those of the trace."""
    return all(extent is None or extent.size == size for extent, size in zip(layout, shape_of(node), strict=True))


class _Fit(NamedTuple):
    """Crops along one side: their size, and for every place of the layer the start and the place in the crop's map."""

    size: int
    starts: tuple[int, ...]
    places: tuple[int, ...]


def _fit(graph: NetGraph, node: fx.Node, layout: "Layout", full: "Layouts", side: int) -> _Fit | None:
    """The smallest crops along one side of the image; None where an operation on the way has no rule."""
    axis = next(axis for axis, extent in enumerate(layout) if extent and extent.side == side)
    needs = [_needs(graph, node, axis, place, full, side) for place in range(shape_of(node)[axis])]
    if any(need is None for need in needs):
        return None
    known = [need for need in needs if need is not None]
    jumps = {source: next(e for e in full[source] if e and e.side == side).jump for need in known for source in need}
    stride = lcm(*(jump.numerator for jump in jumps.values()))
    length = graph.input_shape[1 + side]
    for size in range((length - 1) % stride + 1, length + 1, stride):
        image = tuple(size if i == side else n for i, n in enumerate(graph.input_shape[1:]))
        sizes = _sizes(_layouts(graph, image), jumps, side)
        starts = [_start(need, jumps, stride, length - size) for need in known] if sizes else []
        if sizes and all(_serves(n, jumps, sizes, s) for n, s in zip(known, starts, strict=True)):
            offsets = [int(start / jumps[node]) for start in starts]
            return _Fit(size, tuple(starts), tuple(place - offset for place, offset in enumerate(offsets)))
    raise AssertionError("the whole image serves every position")


Needs = Mapping[fx.Node, tuple[int, int]]
"""First and last place that is asked for along one side, for every node that has it."""


def _needs(graph: NetGraph, node: fx.Node, axis: int, place: int, full: "Layouts", side: int) -> Needs | None:
    """What one row (or column) of a layer asks for along a side; None where that cannot be followed."""
    demand = [Places(frozenset(range(1 if i == 0 else n))) for i, n in enumerate(shape_of(node))]
    demand[axis] = Places(frozenset({place}))
    needs = {}
    for source, asked in demands(graph, node, tuple(demand), borders=True).items():
        if source not in full:
            return None
        along = [
            places.at for places, extent in zip(asked, full[source], strict=True) if extent and extent.side == side
        ]
        if along:
            needs[source] = min(along[0]), max(along[0])
    return needs


def _start(need: Needs, jumps: Mapping[fx.Node, Fraction], stride: int, last: int) -> int:
    """The last multiple of the stride, not beyond ``last``, at which a crop can start and cut off nothing needed."""
    first = min(place * jumps[node] for node, (place, _) in need.items())
    return min(int(first // stride) * stride, last)


def _serves(need: Needs, jumps: Mapping[fx.Node, Fraction], sizes: Mapping[fx.Node, int], start: int) -> bool:
    """Whether everything needed is in the maps of a crop."""
    return all(last < start / jumps[node] + sizes[node] for node, (_, last) in need.items())


# ---- how a crop's size spreads forwards ------------------------------------------------------------------------------


class Extent(NamedTuple):
    """An axis that is rows (side 0) or columns (side 1): pixels from one place to the next, and how many places."""

    side: int
    jump: Fraction
    size: int


Layout = tuple[Extent | None, ...]
"""One entry an axis of a tensor; None for axes that are no rows or columns."""

Layouts = Mapping[fx.Node, Layout]


def _layouts(graph: NetGraph, image: Sequence[int]) -> dict[fx.Node, Layout]:
    """The layout of every node, for an image of some height and width, as far as there are rules."""
    varying = varying_nodes(graph)
    sides = [Extent(side, Fraction(1), size) for side, size in enumerate(image)]
    layouts: dict[fx.Node, Layout] = {image_node(graph): (None, None, *sides)}
    for node in graph.nodes:
        if node.op == "call_function" and node in varying:
            sources = [n for n in node.all_input_nodes if n in varying]
            if all(source in layouts for source in sources):
                layout = _RULES.get(op_name(node), _none)(node, layouts)
                if layout is not None and all(extent is None or extent.size > 0 for extent in layout):
                    layouts[node] = layout
    return layouts


def _sizes(layouts: Layouts, nodes: Iterable[fx.Node], side: int) -> dict[fx.Node, int] | None:
    """How many places each node has along a side; None if one of them has no layout."""
    if any(node not in layouts for node in nodes):
        return None
    return {node: next(e for e in layouts[node] if e and e.side == side).size for node in nodes}


def _first(node: fx.Node, layouts: Layouts) -> Layout:
    arguments: Any = node.args
    return layouts[arguments[0]]


def _none(node: fx.Node, layouts: Layouts) -> None:
    return None


def _windowed(node: fx.Node, layouts: Layouts) -> Layout | None:
    along = windows(node)
    lead, space = _first(node, layouts)[: -len(along)], _first(node, layouts)[-len(along) :]
    if any(lead):
        return None
    if op_name(node).startswith("conv_transpose"):
        more = each(argument(node, "output_padding"), len(along))
        ends = [w.dilation * (w.taps - 1) + 1 - w.before - w.after + m for w, m in zip(along, more, strict=True)]
        return *lead, *(
            e and Extent(e.side, e.jump / w.stride, (e.size - 1) * w.stride + end)
            for e, w, end in zip(space, along, ends, strict=True)
        )
    walked = (e and Extent(e.side, e.jump * w.stride, w.count(e.size)) for e, w in zip(space, along, strict=True))
    return *lead, *walked


def _pointwise(node: fx.Node, layouts: Layouts) -> Layout | None:
    """Sums, products and activations: all that is not broadcast along an axis must be laid out alike there."""
    rank = len(shape_of(node))
    found: list[set[Extent | None]] = [set() for _ in range(rank)]
    for source in node.all_input_nodes:
        if isinstance(source.meta.get("val"), Tensor):
            sizes = shape_of(source)
            layout = layouts.get(source, (None,) * len(sizes))
            for axis, extent, size in zip(range(rank - len(sizes), rank), layout, sizes, strict=True):
                if extent is not None or size != 1:
                    found[axis].add(extent)
    return None if any(len(kinds) > 1 for kinds in found) else tuple(next(iter(kinds), None) for kinds in found)


def _over_axes(node: fx.Node, layouts: Layouts) -> Layout | None:
    layout = _first(node, layouts)
    return None if any(layout[axis] for axis in spread.mixed_axes(node)) else layout


def _reduction(node: fx.Node, layouts: Layouts) -> Layout | None:
    if isinstance(argument(node, "other"), fx.Node):
        return _pointwise(node, layouts)
    layout, axes = _first(node, layouts), reduced_axes(node)
    if any(layout[axis] for axis in axes):
        return None
    dropped = len(shape_of(node)) < len(layout)
    return tuple(extent for axis, extent in enumerate(layout) if not (dropped and axis in axes))


def _reshaped(node: fx.Node, layouts: Layouts) -> Layout | None:
    arguments: Any = node.args
    before, after = _first(node, layouts), shape_of(node)
    alone = {a[0]: b[0] for a, b in spread.axis_groups(shape_of(arguments[0]), after) if len(a) == len(b) == 1}
    if any(extent and axis not in alone for axis, extent in enumerate(before)):
        return None
    placed = {alone[axis]: extent for axis, extent in enumerate(before) if extent}
    return tuple(placed.get(axis) for axis in range(len(after)))


def _permuted(node: fx.Node, layouts: Layouts) -> Layout:
    before = _first(node, layouts)
    return tuple(before[axis] for axis in spread.permutation(node))


def _part(node: fx.Node, layouts: Layouts) -> Layout | None:
    before = _first(node, layouts)
    axis = (argument(node, "dim") or 0) % len(before)
    if before[axis]:
        return None
    return before[:axis] + before[axis + 1 :] if op_name(node) in ("select", "unbind") else before


def _concatenated(node: fx.Node, layouts: Layouts) -> Layout | None:
    arguments: Any = node.args
    parts = {layouts.get(source) for source in arguments[0]}
    first = next(iter(parts))
    if len(parts) > 1 or first is None or first[(argument(node, "dim") or 0) % len(first)]:
        return None
    return first


def _padded(node: fx.Node, layouts: Layouts) -> Layout | None:
    padding = spread.constant_padding(node)
    if padding is None:
        return None
    pairs = zip(_first(node, layouts), padding, strict=True)
    return tuple(e and Extent(e.side, e.jump, e.size + before + after) for e, (before, after) in pairs)


_FAMILIES: dict[Callable[[fx.Node, Layouts], Layout | None], Set[str]] = {
    _windowed: spread.WINDOWED,
    _pointwise: spread.POINTWISE,
    _over_axes: spread.OVER_AXES,
    _reduction: REDUCTIONS,
    _reshaped: spread.RESHAPES,
    _permuted: spread.PERMUTATIONS,
    _part: spread.PARTS,
    _concatenated: spread.CONCATENATIONS,
    _padded: spread.CONSTANT_PADDINGS,
    _first: spread.CHANNEL_BY_CHANNEL | {"getitem"},
}
_RULES = {name: rule for rule, names in _FAMILIES.items() for name in names}
