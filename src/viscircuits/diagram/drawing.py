"""The geometry of a diagram: how large everything is, where it stands, and where its lines run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from viscircuits.canvas.marks import Point
from viscircuits.diagram.content import Content, Edge, Vertex, Wire
from viscircuits.diagram.geometry.curves import Piece, Solid, Thumbnails, bezier
from viscircuits.diagram.geometry.layout import Layout, Room, arrange, columns

WIDTH = 1280.0
"""The width a diagram takes where its columns allow it, in pixels."""

MARGIN = 32.0
LINE = 13.0
"""Between the lines of a heading."""

BESIDE = 20.0
"""Between the target's picture and the full model's."""

_LABEL = 15.0
_LETTER = 6.7
_JOIN = 9.0
_CROWD = 80
"""Kernels into one column that give it twice the room."""

_WIDEST = 9.0
_THINNEST = 0.9


@dataclass(frozen=True)
class Drawing:
    """Content with its sizes and places; the origin is the top left corner of all that is drawn.

    Args:
        content: what is drawn.
        filters: block -> how many filters its layer has, for headings.
        beside: whether a second picture, of the full model, stands to the right of the target's.
    """

    content: Content
    filters: Mapping[str, int]
    beside: bool = False

    @cached_property
    def side(self) -> float:
        """The side of a vertex's picture: as large as the fullest column and the number of columns allow."""
        most = max(map(_pictured, self._columns), default=1)
        # bundles are few, and show several members each
        largest = 120.0 if self.content.bundled else 88.0
        return min(largest, max(28.0, min(900 / most - 20, 0.4 * (WIDTH - 2 * MARGIN) / max(1, len(self._columns)))))

    @cached_property
    def plan(self) -> Layout:
        """Where everything stands."""
        return arrange([self._box(vertex) for vertex in self._in_blocks], self.content.links, self._gaps)

    @property
    def width(self) -> float:
        """The width of all of it."""
        return self.plan.width + self.aside

    @property
    def aside(self) -> float:
        """The room that the target's second picture takes, with the space before it."""
        return self.side + BESIDE if self.beside else 0.0

    @cached_property
    def widths(self) -> dict[Edge, float]:
        """The width of every edge."""
        return {edge: self.width_of(edge.score / self.highest) for edge in self.content.edges}

    def width_of(self, share: float) -> float:
        """Returns the width of an edge whose score is this share of the highest: its root, but never invisible."""
        # a root, because scores of one circuit span several powers of ten
        return max(_THINNEST, min(_WIDEST, 0.12 * self.side) * share**0.5)

    @cached_property
    def highest(self) -> float:
        """The highest score of an edge."""
        return max((edge.score for edge in self.content.edges), default=0.0) or 1.0

    def by_score(self) -> list[Edge]:
        """Returns the edges, the strongest first."""
        # ties by kernel, so that one circuit has one drawing
        return sorted(self.content.edges, key=lambda e: (-e.score, e.kernel))

    @cached_property
    def pieces(self) -> dict[Edge | Wire, Piece]:
        """The last stretch of every link, which is its own: from its source, or the last point on the way."""
        return {
            link: self._piece(self.plan.routes[link.source, link.target][-2], link.target)
            for link in [*self.content.wires, *self.content.edges]
        }

    @cached_property
    def trunks(self) -> dict[tuple[str, str], tuple[list[tuple[Point, ...]], list[tuple[str, str]]]]:
        """The stretches on the way to distant columns: each with its lines and all the links that run through it."""
        stretches: dict[tuple[str, str], tuple[list[tuple[Point, ...]], list[tuple[str, str]]]] = {}
        for link, route in self.plan.routes.items():
            for a, b in pairwise(route[:-1]):
                x, y, half = self.plan.x[b], self.plan.y[b], self.halves[b]
                across = ((x - half, y), (x + half, y))
                stretches.setdefault((a, b), ([self._piece(a, b), across], []))[1].append(link)
        return stretches

    @cached_property
    def thumbnails(self) -> Thumbnails:
        """Where kernels' pictures find room, strongest edges first."""
        size = min(30.0, max(13.0, 0.36 * self.side))
        solid = [solid for v in self.content.vertices for solid in self._solid(v)]
        single = [e for e in self.by_score() if e.count == 1]
        return Thumbnails.placed({e: self.pieces[e] for e in single}, size, solid)

    def size(self, vertex: Vertex) -> tuple[float, float]:
        """Returns a vertex's width and height."""
        match vertex.kind:
            case "join":
                return 2 * _JOIN, 2 * _JOIN
            case "image":
                side = min(34.0, max(20.0, 0.5 * self.side))
                return side, side
            case _:
                return self.side, self.side

    def heading(self, vertex: Vertex) -> list[str]:
        """Returns the lines above a vertex's block."""
        room = max([*self._gaps, 0.0]) + self.side
        return broken(vertex.block, int(room / _LETTER))

    def count(self, vertex: Vertex) -> str:
        """Returns how many filters of a vertex's layer are drawn, where that is known."""
        here = len(vertex.members) or sum(v.block == vertex.block for v in self.content.vertices)
        return f"{here} of {self.filters[vertex.block]:,}" if vertex.block in self.filters else ""

    def _solid(self, vertex: Vertex) -> list[Solid]:
        """What a kernel's picture may not cover: the vertex, its number below, the heading above."""
        x, y, (width, height) = self.plan.x[vertex.id], self.plan.y[vertex.id], self.size(vertex)
        if vertex.kind == "join":
            return [(x, y, width, height)]
        lines = self.heading(vertex) if self.tops[vertex.block] == vertex.id else []
        above = (len(lines) + 1.6) * LINE if lines else 0.0
        widest = max((len(line) * _LETTER for line in lines), default=0.0)
        return [(x, y + _LABEL / 2, width, height + _LABEL), (x, y - (height + above) / 2, widest, above)]

    @cached_property
    def tops(self) -> dict[str, str]:
        """Block -> its topmost vertex."""
        # from the bottom up: the last one written is the topmost
        by_height = sorted(self.content.vertices, key=lambda v: -self.plan.y[v.id])
        return {vertex.block: vertex.id for vertex in by_height}

    @cached_property
    def _gaps(self) -> list[float]:
        """The room between columns, so that the whole fills the width: less before joins, more for many kernels."""
        free = WIDTH - 2 * MARGIN - self.aside - sum(map(self._width, self._columns))
        into = Counter(edge.target for edge in self.content.edges)
        shares = [_share(column, into) for column in self._columns[1:]]
        unit = min(210.0, max(self.side * 0.75 + 24, free / (sum(shares) or 1.0)))
        return [unit * share for share in shares]

    def _width(self, column: Sequence[Vertex]) -> float:
        return max(self.size(vertex)[0] for vertex in column)

    @cached_property
    def _columns(self) -> list[list[Vertex]]:
        # a column follows from the links alone; sizes follow from how many columns there are
        depth = columns([Room(v.id, v.block, 0.0, 0.0) for v in self._in_blocks], self.content.links)
        filled: list[list[Vertex]] = [[] for _ in range(max(depth.values()) + 1)]
        for vertex in self._in_blocks:
            filled[depth[vertex.id]].append(vertex)
        return filled

    @cached_property
    def _in_blocks(self) -> list[Vertex]:
        # reversed, so that a block stands where its first vertex does
        names = {v.block: i for i, v in reversed([*enumerate(self.content.vertices)])}
        return sorted(self.content.vertices, key=lambda v: names[v.block])

    def _box(self, vertex: Vertex) -> Room:
        if vertex.kind == "join":
            return Room(vertex.id, vertex.block, *self.size(vertex))
        heading = (len(self.heading(vertex)) + 1.6) * LINE
        return Room(vertex.id, vertex.block, *self.size(vertex), heading, _LABEL)

    @cached_property
    def _ports(self) -> dict[tuple[str, str, bool], float]:
        """(vertex, other end, whether it leaves) -> how far from the vertex's middle a line ends."""
        ends: dict[tuple[str, bool], set[str]] = {}
        for route in self.plan.routes.values():
            for a, b in pairwise(route):
                ends.setdefault((a, True), set()).add(b)
                ends.setdefault((b, False), set()).add(a)
        ports = {}
        for (vertex, leaving), others in ends.items():
            kind = self.content.by_id[vertex].kind if vertex in self.content.by_id else "join"
            reach = 0.0 if kind == "join" else self.size(self.content.by_id[vertex])[1] * 0.36
            # ends in the order of the other ends, or lines would cross right at the vertex
            ranked = sorted(others, key=lambda v: self.plan.y[v])
            for i, other in enumerate(ranked):
                share = 2 * i / (len(ranked) - 1) - 1 if len(ranked) > 1 else 0.0
                ports[vertex, other, leaving] = share * min(reach, 7.0 * (len(ranked) - 1) / 2)
        return ports

    @cached_property
    def halves(self) -> dict[str, float]:
        """Half the width of every vertex; a point on the way is as wide as its column, which lines cross straight."""
        halves = {v.id: self.size(v)[0] / 2 for v in self.content.vertices}
        for column in self.plan.columns:
            widest = max(halves[v] for v in column if v in halves)
            halves |= {v: widest for v in column if v not in halves}
        return halves

    def _end(self, v: str, other: str, leaving: bool) -> tuple[float, float]:
        half = self.halves[v]
        return self.plan.x[v] + (half if leaving else -half), self.plan.y[v] + self._ports[v, other, leaving]

    def _piece(self, a: str, b: str) -> Piece:
        return bezier(self._end(a, b, True), self._end(b, a, False))


def _pictured(column: Sequence[Vertex]) -> int:
    """How many vertices of a column have a picture; joins are small discs."""
    return sum(vertex.kind != "join" for vertex in column)


def _share(column: Sequence[Vertex], into: Mapping[str, int]) -> float:
    """The room before a column, as a part of the usual one."""
    if not _pictured(column):
        return 0.4
    return 1 + min(1.0, sum(into[vertex.id] for vertex in column) / _CROWD)


def broken(name: str, longest: int) -> list[str]:
    """Returns a dotted name as lines: one where it is short, else its last part below the rest, in lines that fit."""
    if len(name) <= min(longest, 12) or "." not in name:
        return [name]
    rest, _, last = name.rpartition(".")
    lines: list[str] = []
    for part in rest.split("."):
        if lines and len(lines[-1]) + 1 + len(part) <= longest:
            lines[-1] += f".{part}"
        else:
            lines.append(part)
    return [*lines, last]
