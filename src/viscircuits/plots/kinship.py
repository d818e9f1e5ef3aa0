"""How much the circuits of several features overlap, as a matrix and a tree a layer."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from viscircuits.canvas.markup import plain
from viscircuits.errors import StudyError
from viscircuits.plots.plate import FAINT, INK, MUTED, Plate
from viscircuits.plots.style import AS_IT_IS, drawing
from viscircuits.plots.themed import RAMP
from viscircuits.subcircuits.algebra import WHOLE, Overlaps

_COLOURS = "Blues"
_CELL, _TREE, _GAP = 0.26, 0.75, 0.55
_READABLE = 10
"""Circuits up to which numbers stand in the cells."""


def kinship(found: Overlaps, layers: Sequence[str] | None = None, title: str = "") -> Plate:
    """Returns a page of matrices, the whole circuits first; a tree beside each joins what overlaps.

    Rows and columns are in the order of the tree, whose joins stand at the mean IoU of what they join, from 1 at the
    matrix to 0 at its root.

    Args:
        found: the overlaps.
        layers: which layers, beside the whole; where None all in which any two circuits have something to compare.
        title: what stands above.
    """
    telling = [name for name in found.iou if name != WHOLE and not math.isnan(found.mean(name)[0])]
    shown = [WHOLE, *(telling if layers is None else layers)]
    if unknown := [name for name in shown if name not in found.iou]:
        raise StudyError(f"no overlaps of layer {unknown[0]!r}; there are {', '.join(found.iou)}")
    n = len(found.names)
    # few circuits get large cells with numbers in them, many get cells that fit on a page
    cell = max(_CELL, 1.5 / n) if n < _READABLE else max(0.07, min(_CELL, 2.9 / n))
    names = 0.085 * max(map(len, found.names)) + 0.1 if n <= 40 else 0.1
    side = n * cell
    wide, high = names + side + _TREE + _GAP, side + 1.05
    columns = max(1, min(len(shown), int(12 / wide)))
    lines = math.ceil(len(shown) / columns)
    plate = Plate(max(columns * wide + 0.4, 6), 0.75 + lines * high)
    plate.text(0.3, 0.15, title, size=13, weight="bold")
    said = "Each cell: IoU of two circuits' kernels (mean; by chance). Trees join circuits at their mean IoU, 1 to 0."
    plate.text(0.3, 0.43, said, size=8.5, colour=MUTED)
    for number, layer in enumerate(shown):
        x, y = 0.3 + (number % columns) * wide, 0.85 + (number // columns) * high
        _matrix(plate, found, layer, x + names, y + 0.5, side).set_gid(f"{RAMP}-{number}")
    return plate


@drawing
def _matrix(plate: Plate, found: Overlaps, layer: str, x: float, y: float, side: float) -> Axes:
    """The matrix of a layer, with its tree; its axes come back."""
    order = list(found.order(layer))
    n = len(order)
    iou = found.iou[layer][order][:, order].numpy()
    mean, chance = found.mean(layer)
    plate.text(x, y - 0.42, layer or "whole circuits", size=10, weight="bold")
    plate.text(x, y - 0.21, f"mean {mean:.2f}, by chance {chance:.2f}", size=8, colour=MUTED)
    axes = plate.axes(x, y, side, side)
    # nan is no overlap of 0: nothing is relevant to both; such cells stay the colour of the ground
    axes.imshow(np.ma.masked_invalid(iou), cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("#f1f3f5")
    axes.set_xticks([])
    places, names = (range(n), [plain(found.names[i]) for i in order]) if n <= 40 else ([], [])
    axes.set_yticks(places, names, fontsize=7.5, **AS_IT_IS)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
    if n <= _READABLE:
        for i in range(n):
            for j in range(n):
                if not np.isnan(iou[i, j]):
                    # ".75" for "0.75": the zero says nothing, and cells are narrow
                    axes.text(j, i, f"{iou[i, j]:.2f}"[int(iou[i, j] < 1) :], ha="center", va="center", fontsize=6.5,
                              color="white" if iou[i, j] > 0.55 else INK)  # fmt: skip
    _tree(plate.axes(x + side + 0.04, y, _TREE, side), found, layer, order)
    return axes


@drawing
def _tree(axes: Axes, found: Overlaps, layer: str, order: list[int]) -> None:
    """The joins, from the leaves at the left to the root at the right."""
    place = {leaf: float(row) for row, leaf in enumerate(order)}
    depth = dict.fromkeys(place, 0.0)
    # scipy numbers a join after the leaves and the joins before it
    for number, (one, other, distance, _) in enumerate(found.linkage(layer).tolist(), len(order)):
        a, b = int(one), int(other)
        axes.plot([depth[a], distance, distance, depth[b]], [place[a], place[a], place[b], place[b]], color="#5c6570",
                  linewidth=1.1, solid_joinstyle="miter", clip_on=False)  # fmt: skip
        place[number], depth[number] = (place[a] + place[b]) / 2, distance
    axes.set(xlim=(0, 1), ylim=(len(order) - 0.5, -0.5), yticks=[], xticks=[0, 1])
    axes.set_xticklabels(["1", "0"], fontsize=6.5, color=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=2, color=FAINT)
