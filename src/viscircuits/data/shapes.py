"""Procedural pictures whose every pixel is labelled: one coloured, textured object before a scene, 64 pixels wide.

Picture ``i`` of a seed is the same however many are drawn, in whatever order and on whatever machine: it has its own
random stream, and what touches pixels is plain IEEE arithmetic and square roots. Masks hold 0 for nothing and index + 1
into the vocabulary of their category. The class of a picture is its object. Files and folders are not here.

Distances: an object is a function that is negative inside and positive outside, in units of its own radius; the zero
level is exact, and near it the value is the distance to the outline, which is all that anti-aliasing needs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, few, sized
from viscircuits.errors import ImageError

SIZE = 64
OBJECTS = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "delta",
    "star",
    "cross",
    "arc",
    "corner",
    "crescent",
    "arrow",
)
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
TEXTURES = ("plain", "stripes", "checks", "dots")
PARTS = ("inside", "side", "curve", "corner", "tip", "notch", "end", "hub")
SCENES = ("night", "paper", "gradient", "horizon", "spotlight", "grid")
CATEGORIES = {"object": OBJECTS, "colour": COLOURS, "part": PARTS, "texture": TEXTURES, "scene": SCENES}
"""Every category of label and its vocabulary, in mask order."""

Plane = np.ndarray
"""One number, or colour, at every pixel."""
_RGB = np.array(
    (
        *((0.88, 0.16, 0.16), (0.98, 0.54, 0.10), (0.98, 0.87, 0.18), (0.20, 0.70, 0.25)),
        *((0.15, 0.80, 0.85), (0.16, 0.34, 0.90), (0.52, 0.20, 0.72), (0.98, 0.52, 0.74)),
    ),
    np.float32,
)
_Y, _X = np.mgrid[:SIZE, :SIZE].astype(np.float32) + np.float32(0.5)


@dataclass(frozen=True, repr=False)
class Shapes(Shown):
    """Pictures with the class of each and its pixel labels."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    masks: dict[str, UInt8[Tensor, "n h w"]]

    def _card(self) -> Card:
        classes = f"{len(self.labels.unique()):,}"
        facts = {"pictures": f"{len(self):,}", "size": sized(self.images.shape[1:]), "classes": classes}
        return Card("Shapes", {**facts, "labels of pixels": few([*self.masks], 8)})

    def __len__(self) -> int:
        return len(self.labels)


@checked
def generate(n: int, *, seed: int, start: int = 0) -> Shapes:
    """Returns pictures ``start`` to ``start + n - 1`` of a seed.

    Args:
        n: number of pictures, at least 1; they must fit in memory.
        seed: at least 0; each has its own pictures.
        start: at least 0; number of the first picture.

    Raises:
        ImageError: a number is out of range, or memory is short.
    """
    if n < 1 or seed < 0 or start < 0:
        raise ImageError(f"expected n >= 1, seed >= 0 and start >= 0; got n={n}, seed={seed}, start={start}")
    try:
        images = np.empty((n, SIZE, SIZE, 3), np.uint8)
        masks = np.empty((len(CATEGORIES), n, SIZE, SIZE), np.uint8)
        labels = np.empty(n, np.int64)
    except (MemoryError, ValueError, OverflowError):
        raise ImageError(f"no memory for {n} pictures at once; take fewer, and the others with start") from None
    for i in range(n):
        # a stream for each picture, so that it does not matter how many are drawn, or where one begins
        labels[i] = _draw(np.random.default_rng((seed, start + i)), images[i], masks[:, i])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return Shapes(pixels, torch.from_numpy(labels), dict(zip(CATEGORIES, torch.from_numpy(masks), strict=True)))


def draw(index: int, seed: int) -> Shapes:
    """Returns picture ``index`` of a seed, as a set of one."""
    return generate(1, seed=seed, start=index)


def _draw(rng: np.random.Generator, image: Plane, masks: Plane) -> int:
    """Paints one picture and its masks in place; returns its class."""
    u = rng.random(24)  # every number a picture needs; the order is part of the format
    kind, colour, texture, scene = (
        int(u[k] * len(names)) for k, names in enumerate((OBJECTS, COLOURS, TEXTURES, SCENES))
    )
    radius = 14 + 11 * float(u[4])
    x, y = _local(radius, SIZE / 2 + (30 - radius) * (2 * u[5] - 1), SIZE / 2 + (30 - radius) * (2 * u[6] - 1), u[7])
    d = _OBJECTS[kind].distance(x, y, 0.3 + 0.1 * float(u[8]))
    cover = np.clip(np.float32(0.5) - d * radius, 0, 1)[..., None]  # distances are in radii, edges one pixel wide
    surface = _surface(texture, x * radius, y * radius, np.float32(3.2 + 1.3 * u[9]))
    darker = {"night": False, "paper": True, "grid": True}.get(SCENES[scene], bool(u[10] < 0.5))  # seen against it
    tone = _RGB[colour] * np.float32(0.42) if darker else 1 - (1 - _RGB[colour]) * np.float32(0.42)
    jitter = (0.06 * (2 * u[11:14] - 1)).astype(np.float32)
    paint = _RGB[colour] + jitter + surface[..., None] * (tone - _RGB[colour])
    picture = _scene(scene, u[14:20])
    picture += cover * (paint - picture)
    contrast, light, grain = np.float32(0.7 + 0.3 * u[20]), np.float32(0.1 * u[21] - 0.05), np.float32(0.08 * u[22])
    noise = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8).astype(np.float32) / 255 - np.float32(0.5)
    picture = (picture - 0.5) * contrast + (0.5 + light) + noise * grain
    # half a step is added, as the conversion to whole numbers cuts off what stands behind the point
    image[:] = np.clip(picture * 255 + 0.5, 0, 255)
    inside = d < 0
    masks[0], masks[1], masks[3] = inside * (kind + 1), inside * (colour + 1), inside * (texture + 1)
    masks[2] = inside * _parts(_OBJECTS[kind], x, y, d)
    masks[4] = ~inside * (scene + 1)
    return kind


def _local(radius: float, cx: float, cy: float, turn: float) -> tuple[Plane, Plane]:
    """Pixel centres in the object's own axes; turns are rounded so that no libm can be told from another."""
    cos = np.float32(round(math.cos(2 * math.pi * turn), 6)) / radius
    sin = np.float32(round(math.sin(2 * math.pi * turn), 6)) / radius
    x, y = _X - np.float32(cx), _Y - np.float32(cy)
    return x * cos + y * sin, y * cos - x * sin


def _surface(texture: int, x: Plane, y: Plane, period: np.float32) -> Plane:
    """The share of the second tone at each pixel, for object coordinates in pixels and half a period in pixels."""
    if TEXTURES[texture] == "plain":
        return np.zeros_like(x)
    if TEXTURES[texture] == "dots":
        a, b = (abs(v / (2 * period) - np.floor(v / (2 * period)) - 0.5) * (2 * period) for v in (x, y))
        return np.clip(np.float32(0.5) + np.float32(0.58) * period - np.sqrt(a * a + b * b), 0, 1)
    a = _wave(x, period)
    if TEXTURES[texture] == "stripes":
        return a
    b = _wave(y, period)
    return a + b - 2 * a * b


def _wave(v: Plane, period: np.float32) -> Plane:
    """An anti-aliased square wave between 0 and 1 that changes every ``period`` pixels."""
    phase = v / (2 * period)
    return np.clip((abs(phase - np.floor(phase) - 0.5) - 0.25) * (2 * period) + 0.5, 0, 1)


def _scene(scene: int, u: Plane) -> Plane:
    """A background picture [h, w, 3] from six numbers in [0, 1): a shade, a turn and a muted tint among them."""
    tint = (0.10 * (2 * u[3:6] - 1)).astype(np.float32)
    dark, light = np.float32(0.08 + 0.16 * u[0]), np.float32(0.74 + 0.18 * u[0])
    x, y = (_X - SIZE / 2) / SIZE, (_Y - SIZE / 2) / SIZE
    cos, sin = (np.float32(round(f(2 * math.pi * u[1]), 6)) for f in (math.cos, math.sin))
    match SCENES[scene]:
        case "night":
            grey = np.full_like(x, dark)
        case "paper":
            grey = np.full_like(x, light)
        case "gradient":
            grey = (dark + light) / 2 + (x * cos + y * sin) * np.float32(0.55)
        case "horizon":  # a dark ground under a light sky
            ground = np.clip((y - np.float32(0.4 * u[2] - 0.15)) * SIZE + 0.5, 0, 1)
            grey = light - ground * np.float32(0.45)
        case "spotlight":
            across, down = x - np.float32(0.5 * u[1] - 0.25), y - np.float32(0.5 * u[2] - 0.25)
            grey = light - np.clip((across * across + down * down) * np.float32(2.6), 0, 0.62)
        case _:  # "grid": thin lines, as on squared paper
            step = np.float32(9 + 5 * u[2])
            lines = np.maximum(_lines(_X + step * np.float32(u[1]), step), _lines(_Y, step))
            grey = light - lines * np.float32(0.3)
    return grey[..., None] + tint


def _lines(v: Plane, step: np.float32) -> Plane:
    """Anti-aliased lines one pixel wide, ``step`` pixels apart."""
    phase = v / step
    return np.clip(1 - (0.5 - abs(phase - np.floor(phase) - 0.5)) * step, 0, 1)


def _disc(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y) - 1


def _box(x: Plane, y: Plane, width: float = 0.76, height: float = 0.76) -> Plane:
    return np.maximum(abs(x) - np.float32(width), abs(y) - np.float32(height))


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(y - 0.5, abs(x) * np.float32(math.sqrt(3) / 2) - y * np.float32(0.5) - 0.5)


def _outline(d: Plane, w: float) -> Plane:
    """The band of width ``w`` just inside an outline."""
    return np.maximum(d, -d - w)


def _star(x: Plane, y: Plane) -> Plane:
    """Five points: mirrored into one half of one point, where the outline is a single line."""
    c, s = np.float32(math.cos(math.pi / 5)), np.float32(math.sin(math.pi / 5))
    x, y = abs(x), -y
    for side in (c, -c):
        fold = 2 * np.maximum(side * x - s * y, 0)
        x, y = x - fold * side, y + fold * s
    ax, ay = np.float32(0.44) * s, np.float32(0.44) * c - 1
    return (abs(x) * -ay + (y - 1) * ax) / np.sqrt(ax * ax + ay * ay)


def _cross(x: Plane, y: Plane, w: float) -> Plane:
    return np.minimum(_box(x, y, 0.96, w / 2), _box(x, y, w / 2, 0.96))


def _corner(x: Plane, y: Plane, w: float) -> Plane:
    return np.maximum(_box(x, y), np.minimum(x, y) + (np.float32(0.76) - w))


def _crescent(x: Plane, y: Plane) -> Plane:
    return np.maximum(_disc(x, y), np.float32(0.82) - np.sqrt((x - np.float32(0.5)) ** 2 + y * y))


def _arrow(x: Plane, y: Plane, w: float) -> Plane:
    head = np.maximum(-x, (np.float32(0.8) * (x - 1) + abs(y)) / np.float32(math.sqrt(1.64)))
    return np.minimum(head, _box(x + np.float32(0.45), y, 0.5, w / 2))


@dataclass(frozen=True)
class _Object:
    """An outline and its named places: ``rim`` along the outline, ``points`` (part, x, y) within 0.22 of each."""

    distance: Callable[[Plane, Plane, float], Plane]
    rim: str
    solid: bool = True
    points: tuple[tuple[str, float, float], ...] = ()


def _around(part: str, n: int, radius: float, first: float = 0.0) -> tuple[tuple[str, float, float], ...]:
    """``n`` points evenly on a circle, ``first`` in turns."""
    angles = [2 * math.pi * (first + k / n) for k in range(n)]
    return tuple((part, radius * math.cos(a), radius * math.sin(a)) for a in angles)


_FOUR, _THREE = _around("corner", 4, 1.0, 1 / 8), _around("corner", 3, 0.92, 1 / 12)
_OBJECTS = (
    _Object(lambda x, y, w: _disc(x, y), "curve"),
    _Object(lambda x, y, w: _outline(_disc(x, y), w), "curve", solid=False),
    _Object(lambda x, y, w: _box(x, y), "side", points=_FOUR),
    _Object(lambda x, y, w: _outline(_box(x, y), w * 0.8), "side", solid=False, points=_FOUR),
    _Object(lambda x, y, w: _triangle(x, y), "side", points=_THREE),
    _Object(lambda x, y, w: _outline(_triangle(x, y), w * 0.6), "side", solid=False, points=_THREE),
    _Object(
        lambda x, y, w: _star(x, y), "side", points=_around("tip", 5, 0.9, 3 / 4) + _around("notch", 5, 0.48, 1 / 4)
    ),
    _Object(_cross, "side", solid=False, points=(("hub", 0.0, 0.0), *_around("end", 4, 0.88))),
    _Object(
        lambda x, y, w: np.maximum(_outline(_disc(x, y), w), -y),
        "curve",
        solid=False,
        points=(("end", 0.84, 0.06), ("end", -0.84, 0.06)),
    ),
    _Object(_corner, "side", solid=False, points=(("corner", -0.6, -0.6), ("end", 0.68, -0.58), ("end", -0.58, 0.68))),
    _Object(lambda x, y, w: _crescent(x, y), "curve", points=(("tip", 0.5, 0.8), ("tip", 0.5, -0.8))),
    _Object(
        _arrow, "side", points=(("tip", 0.92, 0.0), ("corner", 0.08, 0.7), ("corner", 0.08, -0.7), ("end", -0.88, 0.0))
    ),
)
assert len(_OBJECTS) == len(OBJECTS)


def _parts(obj: _Object, x: Plane, y: Plane, d: Plane) -> Plane:
    """The part at each pixel as index + 1: inside or rim, overruled near a named point."""
    rim = np.uint8(PARTS.index(obj.rim) + 1)
    parts = np.where(d < -0.2, np.uint8(1), rim) if obj.solid else np.full(x.shape, rim)
    for name, px, py in obj.points:
        across, down = x - np.float32(px), y - np.float32(py)
        parts[across * across + down * down < 0.22 * 0.22] = PARTS.index(name) + 1
    return parts
