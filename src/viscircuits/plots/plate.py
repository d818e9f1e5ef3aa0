"""A page of pictures and plots, laid out in inches from the upper left corner."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from viscircuits import store
from viscircuits.canvas.marks import Number
from viscircuits.canvas.markup import plain
from viscircuits.plots.style import AS_IT_IS, drawing, dressed, lettered
from viscircuits.plots.themed import themed_svg

INK, MUTED, FAINT = "#1b1f24", "#5c6570", "#d5dadf"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of sets and clusters: Okabe and Ito's palette, told apart with any colour vision."""

NOISE = "#c3c9d0"
"""Of what is in no set."""

DPI = 130

GAP = 0.06
"""Inches between pictures."""

Rgb = Float[np.ndarray, "3 h w"]
"""A picture in red, green and blue, values in [0, 1]."""


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
    pictures: Sequence[Rgb]
    colour: str = INK


class Plate:
    """A page; shows itself in a notebook."""

    def __init__(self, width: Number, height: Number) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    @drawing
    def axes(self, x: Number, y: Number, width: Number, height: Number) -> Axes:
        """Returns a new plot.

        Args:
            x, y: the upper left corner of its frame, in inches from that of the page.
            width, height: of its frame, in inches.
        """
        place = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return dressed(self.figure.add_axes(place))

    @drawing
    def text(self, x: Number, y: Number, said: str, *, size: Number = 9, colour: str = INK, **style: object) -> None:
        """Writes text.

        Args:
            x, y: its upper left corner, unless the style says otherwise.
            said: the text.
            size: of its letters, in points.
            colour: of its letters.
            style: further properties of matplotlib's text.
        """
        # matplotlib counts from the lower left corner; pages are laid out from the upper left one, as they are read
        text = self.figure.text(x / self.width, 1 - y / self.height, plain(said), size=size, color=colour, **AS_IT_IS)
        text.set(**{"ha": "left", "va": "top", **style})

    @drawing
    def picture(self, pixels: Rgb, x: Number, y: Number, side: Number, colour: str = "") -> None:
        """Puts a picture into a square.

        Args:
            pixels: the picture, in [0, 1].
            x, y: the upper left corner of the square.
            side: of the square, in inches.
            colour: of its frame; no frame where "".
        """
        axes = self.axes(x, y, side, side)
        axes.imshow(np.clip(pixels, 0, 1).transpose(1, 2, 0), interpolation="antialiased")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(visible=bool(colour), color=colour or "none", linewidth=1.6)

    def strip(self, strip: Strip, x: Number, y: Number, side: Number, across: int = 100, lines: int = 1) -> None:
        """Puts a row of pictures, or several lines of them, under its title; what has no room is left out.

        Args:
            strip: the pictures, with title and colour.
            x, y: the upper left corner of the title.
            side: of a picture, in inches.
            across: pictures in a line.
            lines: how many lines there are at most.
        """
        framed, step = strip.colour if strip.colour != INK else "", side + GAP
        self.text(x, y, strip.title, size=9.5, colour=strip.colour, weight="bold")
        self.text(x, y + 0.18, strip.note, size=8, colour=MUTED)
        for number, pixels in enumerate(strip.pictures[: across * lines]):
            line, column = divmod(number, across)
            self.picture(pixels, x + column * step, y + 0.37 + line * step, side, framed)

    @drawing
    def rendered(self, ending: str = "png") -> bytes:
        """Returns the page as a file of pixels: "png" or "jpg"."""
        buffer, figure = io.BytesIO(), lettered(self.figure)
        if ending == "jpg":
            # colours at full resolution: at half of it thin frames and coloured letters smear
            options = {"quality": 70, "subsampling": 0, "optimize": True}
            figure.savefig(buffer, dpi=DPI, format=ending, pil_kwargs=options)
        else:
            # matplotlib's version in the file would make equal pictures unequal files
            figure.savefig(buffer, dpi=DPI, format=ending, metadata={"Software": None})
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Writes the page as PNG or JPEG, by the ending of the path, atomically, and returns the path."""
        file = Path(path)
        with store.atomic(file) as temporary:
            temporary.write_bytes(self.rendered(file.suffix[1:]))
        return file

    @drawing
    def themed(self) -> str:
        """Returns the page as an SVG document that is dark in dark pages (`viscircuits.plots.themed`)."""
        return themed_svg(lettered(self.figure), DPI)

    def publish(self, path: str | Path) -> Path:
        """Writes the page as `save` does, and beside it, for reports, as SVG; returns the path of the latter."""
        shown = self.save(path).with_suffix(".svg")
        with store.atomic(shown) as temporary:
            temporary.write_text(self.themed(), encoding="utf-8")
        return shown

    def _repr_png_(self) -> bytes:
        return self.rendered()


def blank(picture: Rgb) -> bool:
    """Returns whether a picture is of one colour: nothing was found to draw."""
    # exactly one: a start without a gradient is a picture of equal numbers, and the faintest drawing is not
    return not np.ptp(picture)
