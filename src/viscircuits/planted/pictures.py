"""Pictures for planted networks: one object of a named class before noise and lone strokes, 20 pixels wide.

A picture has four quarters. One holds its object, a few strokes that meet; each of the others may hold a lone stroke of
any kind and colour, so that a stroke alone tells nothing. Values are intensities from 0 up, one a colour.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from viscircuits.data.images import ImageSet
from viscircuits.planted.wiring import COLOURS, SIZE

STROKES = {
    "right": tuple((0, k) for k in range(4)),
    "down": tuple((k, 0) for k in range(4)),
    "up": tuple((-k, 0) for k in range(4)),
    "across": ((0, -1), (0, 0), (0, 1)),
    "up left": tuple((-k, -k) for k in range(4)),
    "up right": tuple((-k, k) for k in range(4)),
}
"""Name -> pixels (down, right) from the object's centre."""

_HALF, _CLUTTER, _NOISE = SIZE // 2, 0.7, 0.1


@dataclass(frozen=True)
class Stroke:
    """A line of one colour, its strength drawn evenly from a range."""

    colour: str
    kind: str
    low: float = 0.85
    high: float = 1.15


def draw(classes: Mapping[str, tuple[Stroke, ...]], n: int, seed: int) -> ImageSet:
    """Returns labelled pictures, the classes in turn.

    Args:
        classes: name -> the strokes of its object; none for pictures that hold clutter only.
        n: how many pictures.
        seed: of all that is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = [i % len(classes) for i in range(n)]
    objects = list(classes.values())
    images = torch.stack([_picture(objects[label], generator) for label in labels])
    return ImageSet.from_tensors(images, labels).labelled(labels, classes)


def _picture(strokes: tuple[Stroke, ...], generator: torch.Generator) -> Tensor:
    image = _NOISE * torch.rand(len(COLOURS), SIZE, SIZE, generator=generator)
    quarters = torch.randperm(4, generator=generator).tolist()
    for place, quarter in enumerate(quarters):
        top, left = (_HALF * side + 4 + _integer(2, generator) for side in divmod(quarter, 2))
        lone = _lone(generator)
        for stroke in strokes if place == 0 else lone:
            strength = stroke.low + (stroke.high - stroke.low) * float(torch.rand((), generator=generator))
            channel = image[COLOURS.index(stroke.colour)]
            for down, right in STROKES[stroke.kind]:
                # the stronger one where strokes meet: a sum would be brighter there, and tell a meeting by itself
                channel[top + down, left + right] = max(float(channel[top + down, left + right]), strength)
    return image


def _lone(generator: torch.Generator) -> tuple[Stroke, ...]:
    colour, kind = COLOURS[_integer(len(COLOURS), generator)], list(STROKES)[_integer(len(STROKES), generator)]
    present = float(torch.rand((), generator=generator)) < _CLUTTER
    return (Stroke(colour, kind),) if present else ()


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))
