"""Figures for pages: SVG documents that are light or dark as the page is that shows them.

A figure is drawn once, in the colours of paper. Rules beside it replace each of them where the page around it is dark;
browsers apply them by the colours of the element that shows the image, so that the button of our pages works too.
Photographs stay as they are. Maps of numbers, whose axes are named `RAMP`, are turned over: what is white becomes dark.

Not here: curves that are saved for use elsewhere (`viscircuits.plots.curve.Curve.save`), which have no such rules.
"""

import re

from matplotlib.figure import Figure

from viscircuits.canvas.palette import PALETTES
from viscircuits.plots.vector import svg

RAMP = "ramp"
"""How the names (gid) of axes begin whose images are maps of numbers in colours, and no photographs."""

_PAINT = re.compile(r"(?<![\w-])(fill|stroke): (#[0-9a-f]{6})\b")

_GREY = 0.14
"""How far the channels of a grey differ at most, in [0, 1]: ours are a little blue."""

_READABLE = 4.5
"""Contrast that letters need (WCAG 2, level AA)."""

_STEPS = 20

_Shade = tuple[float, float, float]


def themed_svg(figure: Figure, dpi: int) -> str:
    """Returns a figure as an SVG document for an image on a page, with its colours for dark pages.

    Args:
        figure: drawn on white.
        dpi: pixels an inch of the pictures in it.
    """
    document = svg(figure, dpi, small=True)
    return document.replace("</style>", f"{_rules(document)}</style>", 1)


def _rules(document: str) -> str:
    """The rules for dark pages, one for each colour of a document."""
    ink = PALETTES["dark"].ink
    rules = [
        # what is black has no colour of its own in matplotlib's documents
        f"svg{{fill:{ink}}}",
        f'[id^="{RAMP}"] image{{filter:invert(.92) hue-rotate(180deg)}}',
    ]
    for what, colour in sorted(set(_PAINT.findall(document))):
        # colours stand in attributes, which only !important outranks
        rules.append(f'[style*="{what}: {colour}"]{{{what}:{darkened(colour)}!important}}')
    return f"\n@media (prefers-color-scheme:dark){{{''.join(rules)}}}"


def darkened(colour: str) -> str:
    """Returns the colour ``#rrggbb`` that stands on dark paper for one that stands on white.

    Greys change places, from white, which becomes the paper, to black; colours keep their hue and get as light as
    letters have to be.
    """
    shade, palette = _channels(colour), PALETTES["dark"]
    paper, ink = _channels(palette.paper), _channels(palette.ink)
    if max(shade) - min(shade) <= _GREY:
        return _hexadecimal(_mixed(ink, paper, sum(shade) / 3))
    white = (1.0, 1.0, 1.0)
    lighter = (_mixed(shade, white, step / _STEPS) for step in range(_STEPS))
    return _hexadecimal(next((one for one in lighter if _contrast(one, paper) >= _READABLE), white))


def _channels(colour: str) -> _Shade:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _hexadecimal(shade: _Shade) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in shade)


def _mixed(one: _Shade, other: _Shade, share: float) -> _Shade:
    red, green, blue = (a + share * (b - a) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _contrast(one: _Shade, other: _Shade) -> float:
    """The contrast of two colours, as WCAG 2 defines it, from 1 to 21."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(shade: _Shade) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shade)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
