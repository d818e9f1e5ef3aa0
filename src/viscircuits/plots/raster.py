"""A scene as pixels, painted by matplotlib."""

from pathlib import Path
from typing import TypedDict

from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.patches import Rectangle as Sharp
from matplotlib.path import Path as Curve
from matplotlib.patheffects import withStroke

from viscircuits.canvas.marks import Bezier, Box, Disc, Number, Raster, Scene, Text, flat
from viscircuits.canvas.markup import plain
from viscircuits.canvas.palette import PALETTES, Theme
from viscircuits.plots.style import AS_IT_IS, drawing, font

_DPI = 100
_POINTS = 72 / _DPI
"""Points a pixel of the scene, in which matplotlib counts lines and letters."""

_FONTS = ("Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")


@drawing
def write_png(scene: Scene, path: str | Path, theme: Theme = "light", scale: Number = 2) -> None:
    """Writes a scene as PNG.

    Args:
        scene: what to paint.
        path: the file.
        theme: the colours.
        scale: pixels for each of the scene's own.
    """
    roles = PALETTES[theme].roles
    figure = Figure((scene.width / _DPI, scene.height / _DPI), facecolor=roles["paper"])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    # matplotlib paints kinds of artists one after another unless each has its own zorder
    for order, (mark, dx, dy) in enumerate(flat(scene.marks)):
        _paint(axes, mark, roles, dx, dy, order)
    # last, because pictures set limits of their own; from high to low, because y points down
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    figure.savefig(path, dpi=_DPI * scale, format="png", metadata={"Software": None})


def _paint(
    axes: Axes, mark: Bezier | Box | Disc | Raster | Text, roles: dict[str, str], dx: Number, dy: Number, order: int
) -> None:
    match mark:
        case Bezier():
            points = [(x + dx, y + dy) for x, y in mark.points]
            codes = [Curve.MOVETO] + [Curve.LINETO if len(points) == 2 else Curve.CURVE4] * (len(points) - 1)
            axes.add_patch(
                PathPatch(Curve(points, codes), fill=False, edgecolor=roles[mark.role], linewidth=mark.width * _POINTS,
                          linestyle=(0, (3, 3)) if mark.dashed else "-", capstyle="butt", alpha=mark.opacity,
                          zorder=order)
            )  # fmt: skip
        case Box():
            axes.add_patch(_box(mark, roles, dx, dy, order))
        case Disc():
            n, size = len(mark.centres), 2 * mark.radius
            centres = [(x + dx, y + dy) for x, y in mark.centres]
            axes.add_collection(
                EllipseCollection([size] * n, [size] * n, [0] * n, units="xy", offsets=centres,
                                  offset_transform=axes.transData, alpha=mark.opacity, zorder=order,
                                  **_colours(mark.fill, mark.stroke, mark.line, roles)),
                autolim=False,
            )  # fmt: skip
        case Raster():
            x, y = mark.x + dx, mark.y + dy
            place = (x, x + mark.width, y + mark.height, y)
            interpolation = "nearest" if mark.sharp else "antialiased"
            axes.imshow(mark.pixels, extent=place, aspect="auto", interpolation=interpolation, zorder=order)
        case Text():
            # letters over lines need a rim, as `paint-order` gives it in SVG
            rim = [withStroke(linewidth=3 * _POINTS, foreground=roles["paper"])] if mark.halo else []
            anchor = {"start": "left", "middle": "center", "end": "right"}[mark.anchor]
            axes.text(mark.x + dx, mark.y + dy, plain(mark.text), size=mark.size * _POINTS, color=roles[mark.role],
                      ha=anchor, va="baseline", weight="bold" if mark.bold else "normal", rotation=mark.turn,
                      rotation_mode="anchor", path_effects=rim, zorder=order, fontfamily=font(_FONTS),
                      **AS_IT_IS)  # fmt: skip


def _box(box: Box, roles: dict[str, str], dx: Number, dy: Number, order: int) -> Sharp | FancyBboxPatch:
    style = _colours(box.fill, box.stroke, box.line, roles)
    place = (box.x + dx, box.y + dy)
    if not box.radius:
        return Sharp(place, box.width, box.height, zorder=order, **style)
    # matplotlib pads a fancy box by default, so that it would be larger than the same box in SVG
    rounded = f"round,pad=0,rounding_size={box.radius}"
    return FancyBboxPatch(place, box.width, box.height, boxstyle=rounded, zorder=order, **style)


class _Colours(TypedDict):
    facecolor: str
    edgecolor: str
    linewidth: float


def _colours(fill: str, stroke: str, width: Number, roles: dict[str, str]) -> _Colours:
    return {
        "facecolor": roles[fill] if fill else "none",
        "edgecolor": roles[stroke] if stroke else "none",
        "linewidth": width * _POINTS if stroke else 0,
    }
