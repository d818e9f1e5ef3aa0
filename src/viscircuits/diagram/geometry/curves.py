"""Curved lines between columns, and room along them for small pictures."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from viscircuits.canvas.marks import Point

Piece = tuple[Point, Point, Point, Point]
"""A cubic Bézier piece: start, two controls, end."""

Solid = tuple[float, float, float, float]
"""A rectangle by its centre, width and height."""

Link = TypeVar("Link", bound=Hashable)

_PLACES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73, 0.2, 0.8)
"""Where along a line a picture may sit, the best first."""


def bezier(start: Point, end: Point) -> Piece:
    """Returns a curve that leaves and arrives horizontally."""
    # less than half, so that the curve never turns back even where columns stand close
    bend = 0.45 * (end[0] - start[0])
    return start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end


def point(piece: Piece, t: float) -> Point:
    """Returns the point of a curve at ``t`` in [0, 1]."""
    s = 1 - t
    weights = (s**3, 3 * s * s * t, 3 * s * t * t, t**3)
    x = sum(weight * place[0] for weight, place in zip(weights, piece, strict=True))
    y = sum(weight * place[1] for weight, place in zip(weights, piece, strict=True))
    return x, y


@dataclass(frozen=True)
class Thumbnails(Generic[Link]):
    """Where the pictures on lines sit: centre, and whether there was room without touching anything."""

    size: float
    places: Mapping[Link, tuple[float, float, bool]]

    @classmethod
    def placed(cls, pieces: Mapping[Link, Piece], size: float, solid: Sequence[Solid]) -> "Thumbnails[Link]":
        """Returns places for pictures on lines, in the lines' order; the first found room wins.

        Args:
            pieces: the line that each picture sits on.
            size: side of the pictures, in pixels.
            solid: what no picture may touch.
        """
        taken = [*solid]
        places = {}
        for key, piece in pieces.items():
            candidates = [point(piece, t) for t in _PLACES]
            free = _free(candidates, size, taken)
            # without room it still gets a place, where it shows when the reader asks for its kernel
            x, y = free or candidates[0]
            places[key] = (x, y, free is not None)
            if free is not None:
                taken.append((x, y, size, size))
        return cls(size, places)

    @property
    def n_shown(self) -> int:
        """How many found room."""
        return sum(shown for _, _, shown in self.places.values())


def _free(candidates: Sequence[Point], size: float, taken: Sequence[Solid]) -> Point | None:
    """The first place where a picture of this size touches nothing."""
    for place in candidates:
        if not any(_touch((*place, size, size), other) for other in taken):
            return place
    return None


def _touch(a: Solid, b: Solid, gap: float = 3.0) -> bool:
    return abs(a[0] - b[0]) * 2 < a[2] + b[2] + 2 * gap and abs(a[1] - b[1]) * 2 < a[3] + b[3] + 2 * gap
