"""Crops on which a network computes exactly what it computes at one position of a whole image.

A crop that starts at a multiple of the network's stride gives every map a start of its own: place ``i`` of the crop's
map is place ``i + offset`` of the image's. A position's value is the same on both if, at every operation on the way,
all places that it reads are there, and what lies beyond a border of the crop is either not read, or beyond the same
border of the image. Both are checked here, operation by operation and for every position, not assumed from the field.

How large the maps of a crop are is asked of `viscircuits.model.field.extents`; operations whose place decides what they
compute (adaptive pools, interpolation, reflected padding, learnt positions) have no rule there, and layers behind them
have no crops. Only the graph at the image's size is looked at: a module that does
something else at other sizes (an ``if`` on a width) is not noticed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from torch import fx

from viscircuits.errors import TargetError
from viscircuits.model.field.demands import demands, image_node
from viscircuits.model.field.extents import Extent, Extents, ExtentsOf, extents_of
from viscircuits.model.field.places import Places
from viscircuits.model.field.receptive_field import Area
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import shape_of


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

    def at(self, position: Sequence[int]) -> tuple[Area, tuple[int, int]]:
        """Returns the crop for a position of the layer's map, and where the position stands in the crop's map."""
        if len(position) != 2 or not all(0 <= p < len(s) for p, s in zip(position, self.starts, strict=False)):
            raise TargetError(
                f"position {tuple(position)} is not on the map, {len(self.starts[0])} x {len(self.starts[1])}"
            )
        y, x = position
        top, left = self.starts[0][y], self.starts[1][x]
        return Area(top, left, top + self.size[0], left + self.size[1]), (self.places[0][y], self.places[1][x])


def aligned_crop(graph: NetGraph, layer: str, position: Sequence[int]) -> tuple[Area, tuple[int, int]] | None:
    """Returns the crop on which the model gives a position's exact value, and where it stands in the crop's map.

    ``run(model, graph, crop(images, box), [layer])[layer][:, :, y, x]`` then is what the whole images give at the
    position, up to rounding. None where there is no such crop that is smaller than the image. For many positions of a
    layer take `aligned_crops` once.

    Args:
        graph: the traced network.
        layer: name of a module whose output is a map.
        position: row and column on that map.
    """
    crops = aligned_crops(graph, layer)
    return None if crops is None else crops.at(position)


def aligned_crops(graph: NetGraph, layer: str) -> AlignedCrops | None:
    """Returns exact crops for all positions of a layer; None where none is smaller than the image.

    Their size is the smallest that serves every position, with starts at multiples of the network's stride and ends
    that fit the image's own border.
    """
    output, image = graph.output(layer), graph.input_shape[1:]
    image_node(graph)  # raises where the images are no pictures
    # What the rules say of the whole image is compared with the trace, so that a rule which is wrong about an option
    # (a rounding, a padding) costs the crops and no exactness.
    full = {node: extents for node, extents in extents_of(graph, image).items() if _agrees(node, extents)}
    extents = full.get(output.node)
    sides = [extent.side for extent in extents if extent] if extents else []
    # rows before columns: a transposed map would be read at the wrong place
    if extents is None or sides != [0, 1] or len(output.map_shape) != 2:
        return None
    fits = [_fit(graph, output.node, extents, full, side) for side in (0, 1)]
    if any(fit is None for fit in fits) or tuple(fit.size for fit in fits if fit) == tuple(image):
        return None
    rows, columns = (fit for fit in fits if fit)
    return AlignedCrops((rows.size, columns.size), (rows.starts, columns.starts), (rows.places, columns.places))


def _agrees(node: fx.Node, extents: Extents) -> bool:
    """Whether the sizes that the rules give for the whole image are those of the trace."""
    return all(extent is None or extent.size == size for extent, size in zip(extents, shape_of(node), strict=True))


class _Fit(NamedTuple):
    """Crops along one side: their size, and for every place of the layer the start and the place in the crop's map."""

    size: int
    starts: tuple[int, ...]
    places: tuple[int, ...]


def _fit(graph: NetGraph, node: fx.Node, extents: Extents, full: ExtentsOf, side: int) -> _Fit | None:
    """The smallest crops along one side of the image; None where an operation on the way has no rule."""
    axis = next(axis for axis, extent in enumerate(extents) if extent and extent.side == side)
    needs = [_needs(graph, node, axis, place, full, side) for place in range(shape_of(node)[axis])]
    if any(need is None for need in needs):
        return None
    known = [need for need in needs if need is not None]
    jumps = {source: _along(full[source], side).jump for need in known for source in need}
    # Only at a multiple of every jump does a place of a crop's map stand for a place of the image's. An upsampled map
    # has a jump of a fraction; whole numbers of pixels are multiples of it where they are multiples of its numerator.
    stride = lcm(*(jump.numerator for jump in jumps.values()))
    length = graph.input_shape[1 + side]
    # sizes that differ from the image's by a multiple of the stride, so that the last crop ends where the image does
    for size in range((length - 1) % stride + 1, length + 1, stride):
        image = tuple(size if i == side else n for i, n in enumerate(graph.input_shape[1:]))
        sizes = _sizes(extents_of(graph, image), jumps, side)
        starts = [_start(need, jumps, stride, length - size) for need in known] if sizes else []
        if sizes and all(_serves(n, jumps, sizes, s) for n, s in zip(known, starts, strict=True)):
            offsets = [int(start / jumps[node]) for start in starts]
            return _Fit(size, tuple(starts), tuple(place - offset for place, offset in enumerate(offsets)))
    raise AssertionError("the whole image serves every position")


Needs = Mapping[fx.Node, tuple[int, int]]
"""First and last place that is asked for along one side, for every node that has it."""


def _needs(graph: NetGraph, node: fx.Node, axis: int, place: int, full: ExtentsOf, side: int) -> Needs | None:
    """What one row (or column) of a layer asks for along a side; None where that cannot be followed."""
    demand = [Places(frozenset(range(1 if i == 0 else n))) for i, n in enumerate(shape_of(node))]
    demand[axis] = Places(frozenset({place}))
    needs = {}
    # at the border what lies beyond is padding, which a crop that ends there has as well; so it is not asked for
    for source, places in demands(graph, node, tuple(demand), borders=True).items():
        if source not in full:
            return None
        pairs = zip(places, full[source], strict=True)
        along = [one.at for one, extent in pairs if extent and extent.side == side]
        # the first and the last are enough: a crop holds all places between two that it holds
        if along:
            needs[source] = min(along[0]), max(along[0])
    return needs


def _along(extents: Extents, side: int) -> Extent:
    """The axis that is a side of the image."""
    return next(extent for extent in extents if extent and extent.side == side)


def _start(need: Needs, jumps: Mapping[fx.Node, Fraction], stride: int, last: int) -> int:
    """The last multiple of the stride, not beyond ``last``, at which a crop can start and cut off nothing needed."""
    first = min(place * jumps[node] for node, (place, _) in need.items())
    return min(int(first // stride) * stride, last)


def _serves(need: Needs, jumps: Mapping[fx.Node, Fraction], sizes: Mapping[fx.Node, int], start: int) -> bool:
    """Whether everything needed is in the maps of a crop."""
    # Every map on the way is looked at, not the image alone: padding inside the network makes a crop's maps shorter
    # than what the crop could feed.
    return all(last < start / jumps[node] + sizes[node] for node, (_, last) in need.items())


def _sizes(known: ExtentsOf, nodes: Iterable[fx.Node], side: int) -> dict[fx.Node, int] | None:
    """How many places each node has along a side; None if one of them has no extents."""
    # a crop of few pixels may leave a map behind some window without any place
    if any(node not in known for node in nodes):
        return None
    return {node: _along(known[node], side).size for node in nodes}
