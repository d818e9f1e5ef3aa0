"""A feature split by its pictures: how each set's circuit serves each set, what circuits share, what they look for."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from viscircuits.canvas.markup import plain
from viscircuits.plots.plate import FAINT, INK, MUTED, Plate, Rgb, Strip, blank, colour_of
from viscircuits.plots.style import AS_IT_IS, drawing
from viscircuits.subcircuits.split import Split

_WORDS = {"distinct": "#00734f", "shared": "#005a93", "cannot tell": "#5c6570"}
_GREY, _PALE = "#8b949e", "#dfe3e7"
_TICKS = (1, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.01, 0.005)
_WIDTH, _SIDE, _ROW = 11.2, 0.88, 1.42
_TOP = 1.15


def split_page(found: Split, names: Mapping[int, str], strips: Sequence[Strip], renders: Sequence[Rgb] = ()) -> Plate:
    """Returns a page of a split: the verdict, own and cross curves, overlap by layer, pictures of each set.

    Args:
        found: the split.
        names: set -> what it is called.
        strips: the pictures of each set; where there are renders, those of all sets together stand last.
        renders: what the model and each set's circuit look for (`viscircuits.report.gathering.renderings`).
    """
    layers = list(found.division.iou_by_layer)
    high = max(3.7, 0.17 * len(layers) + 0.6)
    rows = len(strips)
    plate = Plate(_WIDTH, _TOP + high + 0.85 + rows * _ROW)
    _heading(plate, found)
    _curves(plate.axes(0.75, _TOP + 0.3, 4.75, high - 0.3), found, names)
    _overlaps(plate.axes(8.75, _TOP + 0.3, 2.2, high - 0.3), found)
    start = _TOP + high + 0.75
    for row, strip in enumerate(strips):
        plate.strip(strip, 0.3, start + row * _ROW, _SIDE)
    # the model comes first among renders, and its pictures stand in the last row
    for row, pixels in enumerate([*renders[1:], *renders[:1]]):
        own = colour_of(row) if row < len(found.names) else INK
        said = "found nothing" if blank(pixels) else "it looks for"
        plate.text(_WIDTH - 1.2, start + row * _ROW + 0.18, said, size=8, colour=MUTED)
        plate.picture(pixels, _WIDTH - 1.2, start + row * _ROW + 0.37, _SIDE, own)
    return plate


def _heading(plate: Plate, found: Split) -> None:
    verdict = found.verdict
    plate.text(0.3, 0.18, f"{found.target.at(None)}, split by what excites it", size=13, weight="bold")
    plate.text(0.3, 0.5, verdict.word, size=11.5, colour=_WORDS[verdict.word], weight="bold")
    plate.text(0.3, 0.74, fill(verdict.reason, 150), size=9.5, colour=INK, linespacing=1.35)


@drawing
def _curves(axes: Axes, found: Split, names: Mapping[int, str]) -> None:
    x, n = list(found.densities), len(found.names)
    own = torch.eye(n, dtype=torch.bool)
    handles: list[Line2D | Patch] = []
    if len(found.control_curves):
        # a whole band of controls, not their mean: one sees whether the sets lie outside of what chance does
        for kept, style in ((own, "-"), (~own, "--")):
            # own: a circuit on the set it was found on; ~own: on the others
            values = found.control_curves[:, :, kept]  # (k, d, pairs)
            low, high = values.amin((0, 2)).tolist(), values.amax((0, 2)).tolist()
            axes.fill_between(x, low, high, color=_PALE, alpha=0.75, linewidth=0, zorder=1)
            axes.plot(x, _median(values), color=_GREY, linewidth=1.1, linestyle=style, zorder=2)
    for s, number in enumerate(found.names):
        colour = colour_of(s)
        across = found.curves[:, s, ~own[s]].mean(1).tolist()
        axes.plot(x, found.curves[:, s, s].tolist(), color=colour, linewidth=2, zorder=4, marker="o", markersize=3.4,
                  markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
        axes.plot(x, across, color=colour, linewidth=1.8, linestyle=(0, (4, 2)), zorder=3)
        # later sets get smaller arrows on top, because several may end at one density
        last = found.division.densities[s]
        axes.plot([last], [0], marker="^", markersize=max(4, 11 - 4 * s), color=colour, clip_on=False, zorder=6 + s)
        handles.append(Line2D([], [], color=colour, linewidth=2, label=f"circuit of {names[number]}"))
    handles += [
        Line2D([], [], color=INK, linewidth=1.6, label="on its own pictures"),
        Line2D([], [], color=INK, linewidth=1.6, linestyle=(0, (4, 2)), label="on the others'"),
        Line2D([], [], color=INK, marker="^", markersize=7, linestyle="", label=f"last within {found.tolerance:g}"),
    ]
    if len(found.control_curves):
        handles.append(Patch(color=_PALE, label=f"{len(found.control_curves)} random splits"))
    # a circuit may be off by many times the response; that far up there is nothing to tell apart
    top = min(1.25, 1.05 * float(found.curves.max()))
    axes.axhline(found.tolerance, color=_GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
    axes.set_xscale("log")
    axes.set(xlim=(1.05, x[-1] * 0.93), ylim=(0, max(top, 2 * found.tolerance)))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick >= x[-1] * 0.99]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("density: kept / relevant kernels", fontsize=9)
    axes.set_ylabel("mean |circuit − full| / mean |full|", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.set_title("How far each circuit is off", fontsize=10, loc="left", color=INK)
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8.2, labelspacing=0.45
    )


def _median(values: torch.Tensor) -> list[float]:
    return values.permute(1, 0, 2).flatten(1).median(1).values.tolist()


@drawing
def _overlaps(axes: Axes, found: Split) -> None:
    """IoU of the sets' circuits in each layer, beside the range of the random splits'."""
    own = {"all": found.division.iou} | found.division.iou_by_layer
    random = [{"all": control.iou} | control.iou_by_layer for control in found.controls]
    for place, (layer, iou) in enumerate(own.items()):
        some = [control[layer] for control in random if layer in control]
        if some:
            axes.plot(
                [min(some), max(some)], [place, place], color=_PALE, linewidth=5, solid_capstyle="round", zorder=1
            )
            axes.plot([float(np.median(some))], [place], marker="|", markersize=8, color=_GREY, zorder=2)
        axes.plot([iou], [place], marker="o", markersize=5.5, color=INK if place else "#D55E00", zorder=3)
    small = 8.5 if len(own) < 16 else 7
    axes.set_yticks(range(len(own)), [plain(layer) if place else "all layers" for place, layer in enumerate(own)],
                    fontsize=small, **AS_IT_IS)  # fmt: skip
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.02))
    axes.grid(axis="x", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=small)
    axes.spines["left"].set_color(FAINT)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("IoU of kernels; grey: random splits", fontsize=8.5)
    axes.set_title("What the circuits share", fontsize=10, loc="left", color=INK)
