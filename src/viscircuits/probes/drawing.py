"""From stimuli to pictures in [0, 1], and random stimuli of a family."""

import colorsys
from collections.abc import Mapping
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import ImageError, closest
from viscircuits.probes.canvas import Canvas
from viscircuits.probes.stimulus import Stimulus
from viscircuits.store import digest


def draw(
    stimulus: Stimulus, size: int | tuple[int, int], *, channels: int = 3, ground: float = 0.5
) -> Float[Tensor, "c h w"]:
    """Returns the picture of a stimulus: ``ground + contrast * pattern * (colour - ground)``.

    Args:
        stimulus: what to draw.
        size: pixels of a square picture, or height and width.
        channels: how many.
        ground: the grey in [0, 1] that it is drawn on; not every contrast can be shown on every ground.

    Raises:
        ImageError: a colour beyond black or white, or of another number of channels; waves too fine for the pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    pattern = stimulus.pattern(Canvas.of(height, width))
    step = stimulus.contrast * (_channels(stimulus.colour, channels) - ground)
    picture = ground + pattern * step[:, None, None]
    # an error and not a clamp: what is cut off would be another stimulus than the one that is reported
    if not 0 <= ground <= 1 or float(picture.min()) < -1e-9 or float(picture.max()) > 1 + 1e-9:
        raise ImageError(
            f"{stimulus} on a ground of {ground:g} goes from {float(picture.min()):.3g} to {float(picture.max()):.3g}; "
            f"pictures are in [0, 1]: take a smaller contrast, another colour, or a ground of 0.5"
        )
    return picture.clamp(0, 1).float()


def variants(stimulus: Stimulus, ranges: Mapping[str, tuple[float, float]], n: int, *, seed: int = 0) -> list[Stimulus]:
    """Returns ``n`` stimuli that differ from one in parameters drawn evenly from ranges.

    A parameter's numbers depend on the seed and its name alone: families that are given the same ranges get the same
    radii and angles, so that arcs and corners can be compared one by one.

    Args:
        stimulus: what all have in common.
        ranges: parameter -> lowest and highest value; of whole numbers for ``seed``.
        n: how many.
        seed: of the draw.
    """
    known = [field.name for field in fields(stimulus)]
    columns = {}
    for name, (low, high) in ranges.items():
        if name not in known:
            raise ImageError(f"{type(stimulus).__name__} has no parameter {name!r}{closest(name, known)}")
        # a stream for each name: with one stream, a further parameter would change all that are drawn after it
        generator = torch.Generator().manual_seed(int(digest(name, str(seed))[:15], 16))
        columns[name] = (low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)).tolist()
    stimuli = []
    for i in range(n):
        point = {name: column[i] for name, column in columns.items()}
        stimuli.append(stimulus.at(point))
    return stimuli


def _channels(colour: float | tuple[float, ...], channels: int) -> Float[Tensor, " c"]:
    if not isinstance(colour, tuple):
        if channels != 3:
            raise ImageError(f"a hue needs pictures of 3 channels, these have {channels}; give one number a channel")
        colour = colorsys.hsv_to_rgb(colour % 360 / 360, 1.0, 1.0)
    if len(colour) not in (1, channels):
        raise ImageError(f"expected a colour of 1 or {channels} numbers, got {colour}")
    return torch.tensor(colour, dtype=torch.float64).expand(channels)
