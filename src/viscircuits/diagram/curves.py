"""Curved lines between columns, and room along them for small pictures."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Point = tuple[float, float]
Piece = tuple[Point, Point, Point, Point]
"""A cubic Bézier piece: start, two controls, end."""

Solid = tuple[float, float, float, float]
"""A rectangle by its centre, width and height."""

Key = TypeVar("Key", bound=Hashable)

_PLACES = (0.5, 0.42, 0.58, 0.34, 0.66, 0.27, 0.73, 0.2, 0.8)
"""Where along a line a picture may sit, the best first."""


def bezier(start: Point, end: Point) -> Piece:
    """Returns a curve that leaves and arrives horizontally."""
    bend = 0.45 * (end[0] - start[0])
    return start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end


def point(piece: Piece, t: float) -> Point:
    """Returns the point of a curve at ``t`` in [0, 1]."""
    s = 1 - t
    weights = (s**3, 3 * s * s * t, 3 * s * t * t, t**3)
    x, y = (sum(w * p[axis] for w, p in zip(weights, piece, strict=True)) for axis in (0, 1))
    return x, y


@dataclass(frozen=True)
class Thumbnails(Generic[Key]):
    """Where the pictures on lines sit: centre, and whether there was room without touching anything."""

    size: float
    places: Mapping[Key, tuple[float, float, bool]]

    @classmethod
    def placed(cls, pieces: Mapping[Key, Piece], size: float, solid: Sequence[Solid]) -> "Thumbnails[Key]":
        """Returns places for pictures of a size on lines, in the lines' order; the first found room wins."""
        taken = [*solid]
        places = {}
        for key, piece in pieces.items():
            candidates = [point(piece, t) for t in _PLACES]
            free = next((p for p in candidates if not any(_touch((*p, size, size), other) for other in taken)), None)
            x, y = free or candidates[0]
            places[key] = (x, y, free is not None)
            if free is not None:
                taken.append((x, y, size, size))
        return cls(size, places)

    @property
    def n_shown(self) -> int:
        """How many found room."""
        return sum(shown for _, _, shown in self.places.values())


def _touch(a: Solid, b: Solid, gap: float = 3.0) -> bool:
    return abs(a[0] - b[0]) * 2 < a[2] + b[2] + 2 * gap and abs(a[1] - b[1]) * 2 < a[3] + b[3] + 2 * gap
