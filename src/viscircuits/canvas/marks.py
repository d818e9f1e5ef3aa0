"""What a picture is made of: lines, boxes, discs, rasters and texts, in groups with names.

Colours are *roles* ("ink", "wire", "excite7"), given a value by a `viscircuits.canvas.palette.Palette` when painted.
Two painters know these marks: `svg` writes them as vectors, `raster` draws them as pixels. Coordinates are pixels, y
downwards.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import UInt8

Number = float | int
Point = tuple[Number, Number]
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Bezier:
    """A line through points: straight where there are two, else cubic Bézier pieces (start, then three a piece)."""

    points: tuple[Point, ...]
    role: str
    width: Number = 1.0
    opacity: Number = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle with rounded corners; a role of "" means no fill, no stroke."""

    x: Number
    y: Number
    width: Number
    height: Number
    fill: str = ""
    stroke: str = ""
    line: Number = 1.0
    radius: Number = 0.0


@dataclass(frozen=True)
class Disc:
    """A circle, or many alike."""

    centres: tuple[Point, ...]
    radius: Number
    fill: str = ""
    stroke: str = ""
    line: Number = 1.0
    opacity: Number = 1.0


@dataclass(frozen=True)
class Raster:
    """A picture of pixels; ``sharp`` ones (kernels) keep their pixels' edges and are stored without loss."""

    x: Number
    y: Number
    width: Number
    height: Number
    pixels: UInt8[np.ndarray, "h w 3"] = field(repr=False)
    sharp: bool = False


@dataclass(frozen=True)
class Text:
    """A line of text; ``y`` is its baseline, ``turn`` is in degrees, anticlockwise."""

    x: Number
    y: Number
    text: str
    size: Number = 11.0
    role: str = "ink"
    anchor: Anchor = "start"
    bold: bool = False
    turn: Number = 0.0
    halo: bool = False  # a rim in the colour of the paper, for text that lines may cross


@dataclass(frozen=True)
class Group:
    """Marks that belong together: one vertex, one edge.

    Attributes:
        marks: from the back to the front.
        id: unique in the picture, or "".
        kind: "vertex", "edge", ... (a class in SVG).
        title: what a reader is told about it.
        data: further facts for the interactive page.
        centre: the point about which it may be scaled.
        offset: how far it is moved, right and down.
        hidden: left out of a still picture; an interactive one may show it.
    """

    marks: tuple["Mark", ...]
    id: str = ""
    kind: str = ""
    title: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    centre: Point | None = None
    offset: Point = (0, 0)
    hidden: bool = False


Mark = Bezier | Box | Disc | Raster | Text | Group


@dataclass(frozen=True)
class Scene:
    """A whole picture: its size, what it is called, and its marks from the back to the front."""

    width: Number
    height: Number
    title: str
    description: str
    marks: tuple[Mark, ...]


def flat(
    marks: tuple[Mark, ...], dx: Number = 0, dy: Number = 0
) -> Iterator[tuple[Bezier | Box | Disc | Raster | Text, Number, Number]]:
    """Yields all visible marks without their groups, in painting order, each with how far it is moved.

    Args:
        marks: from the back to the front.
        dx, dy: how far the group that they stand in is moved, right and down.
    """
    for mark in marks:
        if isinstance(mark, Group):
            if not mark.hidden:
                # groups stand in groups, so their offsets add up
                yield from flat(mark.marks, dx + mark.offset[0], dy + mark.offset[1])
        else:
            yield mark, dx, dy


def extent(marks: tuple[Mark, ...]) -> tuple[Number, Number, Number, Number]:
    """Returns left, top, right and bottom of all visible marks; of a text, whose width nobody knows, its anchor."""
    places: list[Point] = []
    for mark, dx, dy in flat(marks):
        match mark:
            case Bezier():
                corners = mark.points
            case Box() | Raster():
                corners = ((mark.x, mark.y), (mark.x + mark.width, mark.y + mark.height))
            case Disc(radius=r):
                corners = tuple(corner for x, y in mark.centres for corner in ((x - r, y - r), (x + r, y + r)))
            case Text():
                corners = ((mark.x, mark.y),)
        places += [(x + dx, y + dy) for x, y in corners]
    across, down = zip(*places, strict=True)
    return min(across), min(down), max(across), max(down)
