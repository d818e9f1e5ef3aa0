"""What a stimulus is: a picture as a few numbers, which can be varied one by one.

Lengths are in half sides of the picture and angles in degrees (see `viscircuits.probes.canvas`), so that a family fits
a receptive field of any size. Not here: the families themselves (`viscircuits.probes.patterns`), finding one by name or
reading one from a file (`viscircuits.probes.families`), pixels and colours (`viscircuits.probes.drawing`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from viscircuits import store
from viscircuits.errors import ImageError
from viscircuits.probes.canvas import Canvas, Map


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
            # by name, because the families share names, and below zero none of these means anything
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

    def to_json(self) -> dict[str, store.Json]:
        """Returns the stimulus as plain JSON; `viscircuits.probes.families.stimulus_from_json` is the inverse."""
        return {"family": type(self).__name__, **asdict(self)}

    def at(self, point: Mapping[str, float]) -> "Stimulus":
        """Returns the stimulus with some parameters set, rounded where they are whole numbers."""
        # a point of a grid is of floats; a seed or a number of waves has to stay whole
        whole = {name: isinstance(getattr(self, name), int) for name in point}
        return replace(self, **{name: round(value) if whole[name] else float(value) for name, value in point.items()})

    def _own(self, canvas: Canvas) -> Canvas:
        return canvas.moved(self.x, self.y)


_POSITIVE = ("radius", "thickness", "extent", "length", "frequency", "waves")
