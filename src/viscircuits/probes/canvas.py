"""Drawing by coverage: how much of every pixel lies inside a shape, from the distance of its centre to the outline.

Coordinates: the origin is the centre of the picture, ``x`` goes right and ``y`` up, and 1 is half of the shorter side.
Angles are degrees, counter-clockwise from the right.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import ImageError

Map = Float[Tensor, "h w"]


@dataclass(frozen=True)
class Canvas:
    """The pixels of a picture."""

    x: Map
    y: Map
    scale: float
    """Pixels a unit of length."""

    @classmethod
    def of(cls, height: int, width: int) -> "Canvas":
        """Returns the canvas of a picture of this size."""
        if min(height, width) < 1:
            raise ImageError(f"expected a picture of at least one pixel, got {height} x {width}")
        scale = min(height, width) / 2
        # centres of pixels, and in double precision: angles and radii are compared to many digits
        across, down = ((torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / scale for size in (width, height))
        return cls(across[None, :].expand(height, width), -down[:, None].expand(height, width), scale)

    def moved(self, x: float, y: float) -> "Canvas":
        """Returns the canvas with its origin at a point."""
        return Canvas(self.x - x, self.y - y, self.scale)

    def turned(self, angle: float) -> "Canvas":
        """Returns the canvas with its ``x`` along a direction."""
        c, s = direction(angle)
        return Canvas(self.x * c + self.y * s, self.y * c - self.x * s, self.scale)

    def inside(self, depth: Map) -> Map:
        """Returns the covered share of every pixel whose centre lies ``depth`` within a straight outline."""
        return (depth * self.scale + 0.5).clamp(0, 1)

    def band(self, depth: Map, thickness: float) -> Map:
        """Returns the covered share for a band along an outline, half of it on either side; exact when it is thin."""
        # a difference of two, because a line may be thinner than a pixel, whose share is then below 1 everywhere
        return self.inside(depth + thickness / 2) - self.inside(depth - thickness / 2)

    def resolves(self, frequency: float) -> None:
        """Raises an `ImageError` for waves, in cycles a shorter side, that pixels cannot show."""
        if frequency > self.scale:
            raise ImageError(
                f"{frequency:g} cycles in {2 * self.scale:g} pixels cannot be drawn; at most {self.scale:g} can"
            )


def direction(angle: float) -> tuple[float, float]:
    """Returns cosine and sine of degrees, exact at right angles."""
    turn = math.radians(angle % 360)
    # cos(90 degrees) is 6e-17 in floating point, and the edge of an upright bar would not be straight
    return round(math.cos(turn), 15), round(math.sin(turn), 15)
