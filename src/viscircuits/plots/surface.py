"""Activation surfaces side by side, as heat maps on one scale of colours (paper, figure 8)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from viscircuits.errors import StudyError
from viscircuits.plots.curve import Curve
from viscircuits.plots.plate import MUTED
from viscircuits.plots.style import drawing, dressed, lettered
from viscircuits.plots.themed import RAMP
from viscircuits.probes.axis import Axis
from viscircuits.probes.experiment import CircleAndCorner
from viscircuits.probes.surface import Surface

_COLOURS = "RdBu_r"  # blue below the answer to the empty stage, red above
_WIDTH, _HEIGHT = 2.9, 2.3  # inches a heat map


@drawing
def surfaces(
    rows: Sequence[Mapping[str, Surface]],
    *,
    marks: Mapping[tuple[int, str], Mapping[str, float]] | None = None,
    labels: Sequence[str] = (),
    title: str = "",
) -> Curve:
    """Returns heat maps side by side; neither red nor blue is the answer to the empty stage.

    Surfaces with the same name have the same scale of colours where they are in one row, so that a model and its
    circuits can be compared.

    Args:
        rows: rows of pictures: heading -> surface of one or two axes. The first axis goes up, the second to the right.
        marks: (row, heading) -> a point to mark, such as the one that a circuit was found for.
        labels: a word a row, to its left.
        title: what stands above the picture.
    """
    if not rows or not all(rows):
        raise StudyError("there is no surface to draw")
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(_WIDTH * columns + 0.9, _HEIGHT * len(rows) + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(rows), columns + 1, width_ratios=[1.0] * columns + [0.035])
    for number, row in enumerate(rows):
        norm, images = _norm(list(row.values())), []
        for column, (heading, surface) in enumerate(row.items()):
            axes = dressed(figure.add_subplot(grid[number, column]))
            axes.set_gid(f"{RAMP}-{number}-{column}")
            images.append(_heat(axes, surface, norm))
            axes.set_title(heading, fontsize=9.5, loc="left", color="#222222")
            if column:
                axes.set_ylabel("")
            if point := (marks or {}).get((number, heading)):
                x, y = (_place(axis, point[axis.name]) for axis in (surface.axes[-1], surface.axes[0]))
                axes.plot(
                    [x], [y], clip_on=False, zorder=4, marker="o", markersize=7, markerfacecolor="#2CA02C",
                    markeredgecolor="white",
                )  # fmt: skip
        # one bar a row, because a row has one scale
        bar = figure.colorbar(images[-1], cax=dressed(figure.add_subplot(grid[number, columns])))
        bar.outline.set_visible(False)
        bar.ax.set_gid(f"{RAMP}-{number}")
        bar.set_label(labels[number] if number < len(labels) else "response", fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color="#111111")
    dots = "; green: what the circuit was found for" if marks else ""
    figure.supxlabel(
        f"neither red nor blue: the answer to the empty stage{dots}", x=0.01, ha="left", fontsize=8.5, color=MUTED
    )
    return Curve(lettered(figure))


def experiment_plate(done: CircleAndCorner, title: str = "") -> Curve:
    """Returns the surfaces of the circle and corner experiment: a row a family, the model first, then its circuits.

    Each circuit stands in the row of the family it was found for; the green dot is the point it was found for.
    """
    rows, marks = [], {}
    for number, (family, full) in enumerate(done.full.items()):
        own = [part for part in done.parts if part.family == family]
        rows.append({"model": full} | {part.name: part.surfaces[family] for part in own})
        marks |= {(number, part.name): part.peak.point for part in own}
    return surfaces(rows, marks=marks, labels=[f"response to {family}" for family in done.full], title=title)


def _heat(axes: Axes, surface: Surface, norm: TwoSlopeNorm) -> AxesImage:
    if len(surface.axes) != 2:
        raise StudyError(f"expected a surface of two axes, got {len(surface.axes)}: {surface.axes}")
    up, right = surface.axes
    image = axes.imshow(
        surface.values.double().numpy(), origin="lower", aspect="auto", cmap=_COLOURS, norm=norm,
        interpolation="nearest",
    )  # fmt: skip
    for axis, put in ((right, axes.xaxis), (up, axes.yaxis)):
        places, words = _ticks(axis)
        put.set_ticks(places, words, fontsize=8.5)
        put.set_label_text(axis.name)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _norm(row: Sequence[Surface]) -> TwoSlopeNorm:
    """White is the model's answer to the empty stage, the first surface's; both sides have one scale."""
    blank = row[0].blank
    # both sides as far as the larger one: equal distances from white are equal strengths
    reach = max(float((surface.values - blank).abs().max()) for surface in row) or 1.0
    return TwoSlopeNorm(blank, blank - reach, blank + reach)


def _ticks(axis: Axis) -> tuple[list[float], list[str]]:
    """Round values on an axis: quarters of a circular one, in degrees."""
    if axis.period is not None:
        values = [axis.period * i / 4 for i in range(5)]
        # a grid may cover less than a turn
        values = [v for v in values if axis.values[0] <= v <= axis.values[-1]]
        return [_place(axis, v) for v in values], [f"{v:g}°" for v in values]
    step = max(1, math.ceil(len(axis.values) / 6))
    values = list(axis.values[::step])
    return [_place(axis, v) for v in values], [f"{v:.3g}" for v in values]


def _place(axis: Axis, value: float) -> float:
    """Where a value stands in cells of the grid."""
    return float(np.interp(value, axis.values, range(len(axis.values))))
