"""Where everything stands: columns from the image to the target, pure geometry in pixels.

Vertices are boxes. A block's column is the length of the longest way to it. A link between distant columns goes through
*points* on the way, one a source and column, so that a channel read far away is one line that then spreads out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from viscircuits.diagram.geometry.ordering import ordered

_POINT = 6.0
"""Height that a passing line takes in a column."""

_STRAIGHT = 8.0
"""How much more a line in passing asks for the height of its neighbours than a vertex does."""


@dataclass(frozen=True)
class Room:
    """What takes room: a vertex's size, what stays free below it, and above the first of a block for its heading."""

    id: str
    block: str
    width: float
    height: float
    heading: float = 0.0
    foot: float = 0.0


@dataclass(frozen=True)
class Layout:
    """A finished layout.

    Attributes:
        x, y: the centre of every box, and of every point on the way.
        routes: link -> the ids it runs through, ends included.
        columns: the ids of boxes and points, column by column, from the top.
        width, height: the room it all takes; the smallest coordinates are 0.
    """

    x: Mapping[str, float]
    y: Mapping[str, float]
    routes: Mapping[tuple[str, str], tuple[str, ...]]
    columns: Sequence[Sequence[str]]
    width: float
    height: float


def arrange(
    boxes: Sequence[Room],
    links: Sequence[tuple[str, str]],
    gaps: Sequence[float],
    spacing: float = 8.0,
) -> Layout:
    """Returns where boxes stand and lines run.

    Args:
        boxes: the vertices, in the order in which they run; blocks in one piece.
        links: pairs of ids, each once.
        gaps: the room to the right of each column but the last (see `columns`).
        spacing: the least room between boxes of one column.
    """
    column = columns(boxes, links)
    routes, points = _routes(links, column)
    blocks = {box.id: box.block for box in boxes} | {point: point for point in points}
    order: list[list[str]] = [[] for _ in range(max(column.values(), default=0) + 1)]
    # first in order of execution, points last: what can be left as it is then reads as the network runs
    for name, number in [*column.items(), *points.items()]:
        order[number].append(name)
    # a stretch that many links share is one line: it crosses another once
    steps = list(dict.fromkeys(pair for route in routes.values() for pair in pairwise(route)))
    order = ordered(order, steps, blocks)
    sizes = {box.id: box for box in boxes} | {point: Room(point, point, 0.0, _POINT) for point in points}
    y = _heights(order, steps, sizes, spacing)
    x, right = _across(order, sizes, gaps)
    # with headings and feet, which stand outside of the boxes
    top = min(y[v] - sizes[v].height / 2 - sizes[v].heading for v in y)
    bottom = max(y[v] + sizes[v].height / 2 + sizes[v].foot for v in y)
    return Layout(x, {v: place - top for v, place in y.items()}, routes, order, right, bottom - top)


def columns(boxes: Sequence[Room], links: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Returns every box's column: that of its block, one more than the furthest block that leads into it."""
    # by blocks and not by boxes: a filter that reads the image alone still stands with its layer, under one heading
    block = {box.id: box.block for box in boxes}
    into: dict[str, set[str]] = {}
    for a, b in links:
        if block[a] != block[b]:
            into.setdefault(block[b], set()).add(block[a])
    depth: dict[str, int] = {}
    pending = list(dict.fromkeys(block.values()))
    while pending:
        # a block has its column as soon as all that lead into it have theirs
        ready = [name for name in pending if into.get(name, set()) <= depth.keys()]
        assert ready, "blocks lead into each other in a circle"
        for name in ready:
            depth[name] = 1 + max((depth[other] for other in into.get(name, ())), default=-1)
        pending = [name for name in pending if name not in depth]
    return {box.id: depth[box.block] for box in boxes}


def _routes(
    links: Iterable[tuple[str, str]], column: Mapping[str, int]
) -> tuple[dict[tuple[str, str], tuple[str, ...]], dict[str, int]]:
    """Link -> ids it runs through, and the points on the way with their columns."""
    routes: dict[tuple[str, str], tuple[str, ...]] = {}
    points: dict[str, int] = {}
    for a, b in links:
        # named after source and column, so that all that read one channel far away share its points; ids of
        # vertices have no ">" in them, by which `_heights` tells points
        way = {f"{a}>{i}": i for i in range(column[a] + 1, column[b])}
        points |= way
        routes[a, b] = (a, *way, b)
    return routes, points


def _heights(
    columns: Sequence[Sequence[str]], steps: Sequence[tuple[str, str]], sizes: Mapping[str, Room], spacing: float
) -> dict[str, float]:
    """The middle of every box: near the mean of what it is joined to, in order, and never too close to the next."""
    near: dict[str, list[tuple[str, float]]] = {name: [] for column in columns for name in column}
    for a, b in steps:
        straight = _STRAIGHT if ">" in a and ">" in b else 1.0  # a line in passing should not bend
        near[a].append((b, straight))
        near[b].append((a, straight))
    offsets = [_offsets(column, sizes, spacing) for column in columns]
    y: dict[str, float] = {}
    for column, offset in zip(columns, offsets, strict=True):
        y |= {v: o - offset[-1] / 2 for v, o in zip(column, offset, strict=True)}
    # to and fro, as the order was found: in one direction alone the last columns would only follow the first
    for _ in range(12):
        for i in [*range(len(columns)), *range(len(columns) - 1, -1, -1)]:
            wanted = [_mean(y, near[v], y[v]) for v in columns[i]]
            # at once: the next column is drawn towards where these stand now
            y |= dict(zip(columns[i], spread(wanted, offsets[i]), strict=True))
    return y


def _mean(y: Mapping[str, float], near: Sequence[tuple[str, float]], otherwise: float) -> float:
    total = sum(weight for _, weight in near)
    # what nothing is joined to stays where the order has put it
    return sum(weight * y[v] for v, weight in near) / total if total else otherwise


def _offsets(column: Sequence[str], sizes: Mapping[str, Room], spacing: float) -> list[float]:
    """The middles of a column's boxes when they stand as close as they may."""
    offsets, bottom = [], 0.0
    previous = ""
    for i, name in enumerate(column):
        box = sizes[name]
        top = bottom + (spacing if i else 0.0) + (box.heading if box.block != previous else 0.0)
        offsets.append(top + box.height / 2)
        bottom, previous = top + box.height + box.foot, box.block
    return [offset - offsets[0] for offset in offsets]


def spread(wanted: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """Returns places nearest to the wanted ones (least squares) that are at least as far apart as the offsets.

    Pool adjacent violators: without the offsets the places have to rise, and a falling stretch shares its mean.
    """
    pools: list[tuple[float, int]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        mean, count = value - offset, 1
        # the later pool would stand above the earlier one: the nearest that both can have is their common mean
        while pools and pools[-1][0] > mean:
            other, n = pools.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]


def _across(
    order: Sequence[Sequence[str]], sizes: Mapping[str, Room], gaps: Sequence[float]
) -> tuple[dict[str, float], float]:
    x: dict[str, float] = {}
    left = 0.0
    for column, gap in zip(order, [*gaps, 0.0], strict=True):
        # points are as wide as nothing; what passes a column of boxes crosses all of it
        width = max(sizes[name].width for name in column)
        x |= dict.fromkeys(column, left + width / 2)
        left += width + gap
    return x, left
