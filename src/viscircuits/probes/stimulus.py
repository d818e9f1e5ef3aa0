"""Families of stimuli: arcs, corners, rings, squares, lines, gratings, textures; each stimulus is a few numbers.

Lengths are in half sides of the picture and angles in degrees (see `viscircuits.probes.canvas`), so that a family fits
a receptive field of any size. Arc and corner, ring and square are *matched*: with the same radius and angle, and an
opening of 180 degrees less the extent, the corner's legs touch the arc at its ends (paper 6.2), and the square's sides
touch the ring. Not here: pixels and colours (`viscircuits.probes.drawing`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, final, get_args

import torch

from viscircuits.errors import ImageError, closest
from viscircuits.header import TEXT, Check, listed, number, one_of, shown, whole, wrong
from viscircuits.probes.canvas import Canvas, Map, direction

Anchor = Literal["centre", "outline"]
"""What stands at ``(x, y)``: the centre of the circle, or the middle of the arc (the tip of the corner)."""


@dataclass(frozen=True, kw_only=True)
class Stimulus(ABC):
    """A picture as numbers.

    Args:
        contrast: from -1 to 1; how far the ground is moved towards the colour, or, below 0, away from it.
        colour: a hue in degrees (of full saturation; 0 is red), or one number in [0, 1] a channel, or one for all.
        x: where it stands, to the right of the centre.
        y: and above it.
    """

    contrast: float = 1.0
    colour: float | tuple[float, ...] = (1.0,)
    x: float = 0.0
    y: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise ImageError(f"expected a finite {field.name}, got {value} in {self}")
            if field.name in _POSITIVE and value <= 0:
                raise ImageError(f"expected a {field.name} above 0, got {value} in {self}")
        if abs(self.contrast) > 1:
            raise ImageError(f"expected a contrast from -1 to 1, got {self.contrast}")

    @property
    def periods(self) -> dict[str, float]:
        """Parameter -> degrees after which the picture is the same again; parameters without a period are left out."""
        return {"colour": 360.0}

    @abstractmethod
    def pattern(self, canvas: Canvas) -> Map:
        """Returns how much of the colour there is at every pixel: shapes 0 to 1, waves -1 to 1."""

    def to_json(self) -> dict[str, Any]:
        """Returns the stimulus as plain JSON; `stimulus_from_json` is the inverse."""
        return {"family": type(self).__name__, **asdict(self)}

    def at(self, point: Mapping[str, float]) -> "Stimulus":
        """Returns the stimulus with some parameters set, rounded where they are whole numbers."""
        whole = {name: isinstance(getattr(self, name), int) for name in point}
        return replace(self, **{name: round(value) if whole[name] else float(value) for name, value in point.items()})

    def _own(self, canvas: Canvas) -> Canvas:
        return canvas.moved(self.x, self.y)


_POSITIVE = ("radius", "thickness", "extent", "length", "frequency", "waves")


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
    anchor: Anchor = "centre"

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
    anchor: Anchor = "centre"

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
        own = own.moved(self.radius / s, 0.0) if self.anchor == "centre" else own
        depth = -s * own.x - c * own.y.abs()  # within the wedge that opens to the left of the tip
        reached = -c * own.x + s * own.y.abs()  # along the nearer leg
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
        turns, octaves, phases = torch.rand(3, int(self.waves), generator=generator, dtype=torch.float64).tolist()
        total = torch.zeros_like(own.x)
        for k, (turn, octave, phase) in enumerate(zip(turns, octaves, phases, strict=True)):
            c, s = direction(180 * (k + turn) / self.waves)
            frequency = self.frequency * 2 ** (octave - 0.5)
            total += torch.cos(math.pi * frequency * (own.x * c + own.y * s) + 2 * math.pi * phase)
        return torch.tanh(total * math.sqrt(2 / self.waves))


FAMILIES: dict[str, type[Stimulus]] = {
    family.__name__: family for family in (Arc, Corner, Ring, Square, Line, Grating, Texture)
}
"""Name -> family."""


def stimulus_from_json(value: dict[str, Any]) -> Stimulus:
    """Returns the stimulus that `Stimulus.to_json` wrote; an `ImageError` for any other value."""
    if not JSON.holds(value):
        raise ImageError(f"expected {JSON.expected}, got {shown(value)}")
    family = family_of(value["family"])
    parameters: dict[str, Any] = {field.name: value[field.name] for field in fields(family)}
    for field in fields(family):
        given = parameters[field.name]
        if isinstance(given, list | tuple):
            parameters[field.name] = tuple(map(float, given))
        elif isinstance(field.default, float | tuple):
            parameters[field.name] = float(given)
    return family(**parameters)


def _is_json(value: Any) -> bool:
    """Whether a value has a family and exactly its parameters, each of the type that it has by default."""
    named = isinstance(value, dict) and isinstance(value.get("family"), str)
    family = next((f for name, f in FAMILIES.items() if named and name.lower() == value["family"].lower()), None)
    if family is None:
        return False
    checks = {field.name: _check(field.name, field.default) for field in fields(family)}
    return not wrong({"family": TEXT, **checks}, value)


def _check(name: str, default: object) -> Check:
    if name == "colour":
        return Check("a colour", lambda value: number().holds(value) or listed(number(), 1).holds(value))
    match default:
        case str():
            return one_of(*get_args(Anchor))
        case int():
            return whole(-(2**63))
        case _:
            return number()


JSON = Check("a stimulus, as surface.save writes it", _is_json)
"""The check for what `Stimulus.to_json` gives."""


def family_of(name: str) -> type[Stimulus]:
    """Returns a family by name, in letters of any size; an `ImageError` lists them where there is none."""
    by_lower = {known.lower(): family for known, family in FAMILIES.items()}
    if name.lower() not in by_lower:
        raise ImageError(f"no family {name!r}{closest(name.lower(), by_lower)}; there are {', '.join(by_lower)}")
    return by_lower[name.lower()]
