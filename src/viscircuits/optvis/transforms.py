"""Transforms: random views of a picture, so that only what survives them is drawn.

The family: ``(config) -> (uniform random numbers of one picture) -> 3 x 3 matrix``. A matrix takes places of the view
to places of the picture, both counted from the centre in half sides (of the shorter side), x before y, y down. A chain
of transforms is the product of its matrices, and the picture is resampled once, straight to the size that the network
wants; what lies outside it is grey.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import ImageError

OUTSIDE = 0.5
"""The value of what lies outside the picture."""


@dataclass(frozen=True)
class Transform(ABC):
    """One random change of view; ``draws`` numbers in [0, 1) decide it."""

    draws: ClassVar[int] = 1

    @abstractmethod
    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""


@dataclass(frozen=True)
class Jitter(Transform):
    """Shifts by up to ``most`` of the side, each way."""

    draws = 2
    most: float

    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""
        return _affine(shift=(2 * u - 1) * 2 * self.most)


@dataclass(frozen=True)
class Scale(Transform):
    """Magnifies by a factor from ``low`` to ``high``."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ImageError(f"expected factors 0 < low <= high to scale by, got {self.low} and {self.high}")

    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""
        # the inverse, because the matrix says where a place of the view is looked up
        return _affine(zoom=1 / (self.low + u[:, 0] * (self.high - self.low)))


@dataclass(frozen=True)
class Rotate(Transform):
    """Turns by up to ``most`` degrees, each way."""

    most: float

    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""
        return _affine(turn=(2 * u[:, 0] - 1) * math.radians(self.most))


@dataclass(frozen=True)
class Pad(Transform):
    """Puts a border around the picture, ``border`` of its side wide; never random."""

    draws = 0
    border: float

    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""
        return _affine(zoom=u.new_full((len(u),), 1 + 2 * self.border))


@dataclass(frozen=True)
class Crop(Transform):
    """Shows a window anywhere in the picture, ``low`` to ``high`` of its side wide, at full size."""

    draws = 3
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ImageError(f"expected sides 0 < low <= high <= 1 to crop to, got {self.low} and {self.high}")

    def matrix(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n 3 3"]:
        """Returns the matrix from places of the view to places of the picture."""
        side = self.low + u[:, 0] * (self.high - self.low)
        return _affine(zoom=side, shift=(2 * u[:, 1:] - 1) * (1 - side)[:, None])


STANDARD = (Jitter(0.04), Scale(0.9, 1.1), Rotate(10.0), Jitter(0.02))
"""Olah et al. (2017), relative to the side of the picture."""


def chain(transforms: Sequence[Transform], generators: Sequence[torch.Generator]) -> Float[Tensor, "n 3 3"]:
    """Returns one random matrix a picture, drawn from its own generator."""
    total = torch.eye(3, dtype=torch.float64).repeat(len(generators), 1, 1)
    draws = sum(transform.draws for transform in transforms)
    # all numbers of a picture at once, in double precision: the same at any number of pictures, on any device
    u = torch.stack([torch.rand(draws, generator=g, dtype=torch.float64) for g in generators])
    for transform, part in zip(transforms, u.split([t.draws for t in transforms], 1), strict=True):
        # the matrix of the first transform stands at the left: places of the view go through the last one first
        total = total @ transform.matrix(part)
    return total


def view(
    pictures: Float[Tensor, "n c h w"], matrices: Float[Tensor, "n 3 3"], size: tuple[int, int]
) -> Float[Tensor, "n c y x"]:
    """Returns what the matrices show of the pictures, by bilinear interpolation.

    Args:
        pictures: in [0, 1].
        matrices: one a picture, from places of the view to places of the picture.
        size: height and width of the view.
    """
    to_picture = _half_sides(*pictures.shape[2:]).inverse() @ matrices @ _half_sides(*size)
    grid = torch.nn.functional.affine_grid(
        to_picture[:, :2].to(pictures), [len(pictures), pictures.shape[1], *size], align_corners=False
    )
    # grid_sample puts zero outside of the picture: so zero is made the grey, and undone behind it
    return torch.nn.functional.grid_sample(pictures - OUTSIDE, grid, align_corners=False) + OUTSIDE


def _half_sides(height: int, width: int) -> Float[Tensor, "3 3"]:
    """From torch's coordinates (every side from -1 to 1) to half sides of the shorter side."""
    short = min(height, width)
    return torch.diag(torch.tensor([width / short, height / short, 1.0], dtype=torch.float64))


def _affine(
    zoom: Float[Tensor, " n"] | None = None,
    turn: Float[Tensor, " n"] | None = None,
    shift: Float[Tensor, "n 2"] | None = None,
) -> Float[Tensor, "n 3 3"]:
    given = next(value for value in (zoom, turn, shift) if value is not None)
    matrix = torch.eye(3, dtype=given.dtype).repeat(len(given), 1, 1)
    if turn is not None:
        matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = (
            turn.cos(),
            -turn.sin(),
            turn.sin(),
            turn.cos(),
        )
    if zoom is not None:
        matrix[:, :2, :2] *= zoom[:, None, None]
    if shift is not None:
        matrix[:, :2, 2] = shift
    return matrix
