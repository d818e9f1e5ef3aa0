"""A page of pictures and plots, laid out in inches from the upper left corner."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from viscircuits import store
from viscircuits.canvas.marks import Number
from viscircuits.canvas.markup import plain
from viscircuits.plots.style import AS_IT_IS, drawing, dressed, lettered

INK, MUTED, FAINT = "#1b1f24", "#5c6570", "#d5dadf"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of sets and clusters: Okabe and Ito's palette, told apart with any colour vision."""

NOISE = "#c3c9d0"
"""Of what is in no set."""

DPI = 130

GAP = 0.06
"""Inches between pictures."""

Pixels = Float[np.ndarray, "3 h w"]


def colour_of(number: int) -> str:
    """Returns the colour of a set; a negative one is none."""
    return NOISE if number < 0 else COLOURS[number % len(COLOURS)]


@dataclass(frozen=True)
class Strip:
    """A row of pictures.

    Args:
        title: what it shows.
        note: more of it, in small letters.
        pictures: the pictures, in [0, 1].
        colour: of title and frames.
    """

    title: str
    note: str
    pictures: Sequence[Pixels]
    colour: str = INK


class Plate:
    """A page; shows itself in a notebook."""

    def __init__(self, width: Number, height: Number) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    @drawing
    def axes(self, x: Number, y: Number, width: Number, height: Number) -> Axes:
        """Returns a new plot whose frame has its upper left corner at (x, y)."""
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return dressed(self.figure.add_axes(place))

    @drawing
    def text(self, x: Number, y: Number, said: str, *, size: Number = 9, colour: str = INK, **style: Any) -> None:
        """Writes text with its upper left corner at (x, y), unless the style says otherwise."""
        given = {"ha": "left", "va": "top", **AS_IT_IS, **style}
        self.figure.text(x / self.width, 1 - y / self.height, plain(said), size=size, color=colour, **given)

    @drawing
    def picture(self, pixels: Pixels, x: Number, y: Number, side: Number, colour: str = "") -> None:
        """Puts a picture into a square, framed in a colour."""
        axes = self.axes(x, y, side, side)
        axes.imshow(np.clip(pixels, 0, 1).transpose(1, 2, 0), interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=bool(colour), color=colour or "none", linewidth=1.6)

    def strip(self, strip: Strip, x: Number, y: Number, side: Number, across: int = 100, lines: int = 1) -> None:
        """Puts a row of pictures, or several lines of them, under its title; what has no room is left out."""
        framed, step = strip.colour if strip.colour != INK else "", side + GAP
        self.text(x, y, strip.title, size=9.5, colour=strip.colour, weight="bold")
        self.text(x, y + 0.18, strip.note, size=8, colour=MUTED)
        for number, pixels in enumerate(strip.pictures[: across * lines]):
            line, column = divmod(number, across)
            self.picture(pixels, x + column * step, y + 0.37 + line * step, side, framed)

    @drawing
    def rendered(self, ending: str = "png") -> bytes:
        """Returns the page as a file of pixels: "png" or "jpg"."""
        buffer = io.BytesIO()
        more: dict[str, Any] = {"metadata": {"Software": None}}
        if ending == "jpg":
            more = {"pil_kwargs": {"quality": 70, "subsampling": 0, "optimize": True}}
        lettered(self.figure).savefig(buffer, dpi=DPI, format=ending, **more)
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Writes the page as PNG or JPEG, by the ending of the path, atomically, and returns the path."""
        file = Path(path)
        with store.atomic(file) as temporary:
            temporary.write_bytes(self.rendered(file.suffix[1:]))
        return file

    def _repr_png_(self) -> bytes:
        return self.rendered()


def blank(picture: Pixels) -> bool:
    """Returns whether a picture is of one colour: nothing was found to draw."""
    return not np.ptp(picture)
