"""The families of stimuli: arcs, corners, rings, squares, lines, gratings, textures.

Arc and corner, ring and square are *matched*: with the same radius and angle, and an opening of 180 degrees less the
extent, the corner's legs touch the arc at its ends (paper 6.2), and the square's sides touch the ring. Each family says
how much of the colour there is at every pixel; what all have in common is in `viscircuits.probes.stimulus`.
"""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch

from viscircuits.errors import ImageError
from viscircuits.probes.canvas import Canvas, Map, direction
from viscircuits.probes.stimulus import Stimulus

Handle = Literal["centre", "outline"]
"""What stands at ``(x, y)``: the centre of the circle, or the middle of the arc (the tip of the corner)."""


@final
@dataclass(frozen=True)
class Arc(Stimulus):
    """A part of a circle's line.

    Args:
        radius: of the middle of the line.
        angle: direction from the circle's centre to the middle of the arc.
        extent: degrees that it spans, up to 360.
        thickness: of the line.
        anchor: what stands at ``(x, y)``.
    """

    radius: float = 0.5
    angle: float = 0.0
    extent: float = 90.0
    thickness: float = 0.12
    anchor: Handle = "centre"

    @property
    def periods(self) -> dict[str, float]:
        """As for every stimulus."""
        return super().periods | {"angle": 360.0}

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the coverage: a ring within a wedge."""
        own = self._own(canvas).turned(self.angle)
        own = own.moved(-self.radius, 0.0) if self.anchor == "outline" else own
        ring = own.band(self.radius - torch.hypot(own.x, own.y), self.thickness)
        if self.extent >= 360:
            return ring
        c, s = direction(self.extent / 2)
        sides = torch.stack([s * own.x - c * own.y, s * own.x + c * own.y])
        # up to half a turn a wedge is what both sides have in common; beyond, what either of them has
        wedge = sides.amin(0) if self.extent <= 180 else sides.amax(0)
        return ring * own.inside(wedge)


@final
@dataclass(frozen=True)
class Corner(Stimulus):
    """Two straight lines that meet, touching the circle of a radius at their other ends.

    Args:
        radius: of that circle; the tip is ``radius / sin(opening / 2)`` from its centre.
        angle: direction from the circle's centre to the tip.
        opening: degrees between the lines, between 0 and 180.
        thickness: of the lines.
        anchor: what stands at ``(x, y)``.
    """

    radius: float = 0.5
    angle: float = 0.0
    opening: float = 90.0
    thickness: float = 0.12
    anchor: Handle = "centre"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.opening < 180:
            raise ImageError(f"expected an opening between 0 and 180 degrees, got {self.opening}")

    @property
    def periods(self) -> dict[str, float]:
        """As for every stimulus."""
        return super().periods | {"angle": 360.0}

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the coverage: a wedge less a smaller one, cut where the legs end."""
        c, s = direction(self.opening / 2)
        own = self._own(canvas).turned(self.angle)
        # the tip lies outside of the circle that the legs touch
        own = own.moved(self.radius / s, 0.0) if self.anchor == "centre" else own
        depth = -s * own.x - c * own.y.abs()  # within the wedge that opens to the left of the tip
        reached = -c * own.x + s * own.y.abs()  # along the nearer leg
        # legs end where they touch the circle, as the arc does
        return own.band(depth, self.thickness) * own.inside(self.radius * c / s - reached)


@final
@dataclass(frozen=True)
class Ring(Stimulus):
    """A whole circle's line; radius and thickness as for `Arc`."""

    radius: float = 0.5
    thickness: float = 0.12

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the coverage."""
        own = self._own(canvas)
        return own.band(self.radius - torch.hypot(own.x, own.y), self.thickness)


@final
@dataclass(frozen=True)
class Square(Stimulus):
    """The outline of a square; its sides touch the circle of the radius.

    Args:
        radius: half the side, at the middle of the line.
        angle: direction from the centre to the middle of a side.
        thickness: of the line.
    """

    radius: float = 0.5
    angle: float = 0.0
    thickness: float = 0.12

    @property
    def periods(self) -> dict[str, float]:
        """As for every stimulus."""
        return super().periods | {"angle": 90.0}

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the coverage: a square less a smaller one."""
        own = self._own(canvas).turned(self.angle)
        outer, inner = (
            own.inside(half - own.x.abs()) * own.inside(half - own.y.abs())
            for half in (self.radius + self.thickness / 2, self.radius - self.thickness / 2)
        )
        return outer - inner


@final
@dataclass(frozen=True)
class Line(Stimulus):
    """A straight bar.

    Args:
        angle: its direction; the same after half a turn.
        length: from end to end.
        thickness: of the bar.
    """

    angle: float = 0.0
    length: float = 1.6
    thickness: float = 0.12

    @property
    def periods(self) -> dict[str, float]:
        """As for every stimulus."""
        return super().periods | {"angle": 180.0}

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the coverage."""
        own = self._own(canvas).turned(self.angle)
        return own.band(own.y, self.thickness) * own.band(own.x, self.length)


@final
@dataclass(frozen=True)
class Grating(Stimulus):
    """A wave of straight stripes.

    Args:
        frequency: cycles a shorter side.
        angle: along the stripes, as for a line.
        phase: degrees; 0 has a crest at ``(x, y)``.
    """

    frequency: float = 4.0
    angle: float = 0.0
    phase: float = 0.0

    @property
    def periods(self) -> dict[str, float]:
        """As for every stimulus; half a turn leaves a crest or a trough in the middle where it is."""
        return super().periods | {"angle": 180.0 if self.phase % 180 == 0 else 360.0, "phase": 360.0}

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the wave."""
        # finer waves would come out as other, coarser ones
        canvas.resolves(self.frequency)
        across = self._own(canvas).turned(self.angle).y
        return torch.cos(math.pi * self.frequency * across + math.radians(self.phase))


@final
@dataclass(frozen=True)
class Texture(Stimulus):
    """Waves of all directions, laid over each other at random: blobs of one size without shape.

    Args:
        seed: same seed, same texture, at any size.
        frequency: cycles a shorter side, in the middle of an octave.
        waves: how many.
    """

    seed: int = 0
    frequency: float = 4.0
    waves: int = 48

    def pattern(self, canvas: Canvas) -> Map:
        """Returns the sum of the waves, of deviation 1, squeezed into -1 to 1."""
        canvas.resolves(self.frequency * math.sqrt(2))
        own = self._own(canvas)
        generator = torch.Generator().manual_seed(int(self.seed))
        # on the CPU and in double precision, so that a seed is one texture everywhere
        turns, octaves, phases = torch.rand(3, int(self.waves), generator=generator, dtype=torch.float64).tolist()
        total = torch.zeros_like(own.x)
        for k, (turn, octave, phase) in enumerate(zip(turns, octaves, phases, strict=True)):
            c, s = direction(180 * (k + turn) / self.waves)
            # spread over an octave: waves of one frequency would make a lattice
            frequency = self.frequency * 2 ** (octave - 0.5)
            total += torch.cos(math.pi * frequency * (own.x * c + own.y * s) + 2 * math.pi * phase)
        return torch.tanh(total * math.sqrt(2 / self.waves))
