"""The faithfulness figure: circuits alone and the model without them, with areas, intervals and the random control."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from viscircuits.bounds.arguments import checked
from viscircuits.evaluate.faithfulness import Faithfulness
from viscircuits.plots.curve import _TICKS, Curve, explained, mark_inverted
from viscircuits.plots.style import drawing, dressed, lettered

_LINES = {
    "alone": ("the circuit alone", "#0072B2", "-"),
    "without": ("the model without it", "#D55E00", "-"),
    "random_alone": ("random alone", "#7FA9C4", (0, (4, 2))),
    "random_without": ("without random", "#DDA98A", (0, (4, 2))),
}


@checked
@drawing
def faithfulness_curve(found: Faithfulness, *, title: str = "") -> Curve:
    """Returns the curves of |r| over density, both ways; bands are the bootstrap intervals over images.

    Args:
        found: circuits of several densities.
        title: what stands above the picture.
    """
    figure = Figure(figsize=(7.6, 4.3), layout="constrained")
    axes = dressed(figure.add_subplot())
    densities = [point.density for point in found.points]
    for name, (label, colour, dash) in _LINES.items():
        if name.startswith("random") and not found.n_random:
            continue
        # the control is a mean over draws: an interval over pictures would not be one of it
        wide = not name.startswith("random")
        if wide:
            intervals = [getattr(point, f"{name}_interval") for point in found.points]
            low, high = [i.low for i in intervals], [i.high for i in intervals]
            axes.fill_between(densities, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            densities, found.curve(name), color=colour, linestyle=dash, linewidth=1.8 if wide else 1.3, marker="o",
            markersize=4.2 if wide else 2.8, markeredgecolor="white", markeredgewidth=0.6 if wide else 0.3,
            label=f"{label}: {found.area(name):.2f}", clip_on=False, zorder=3 if wide else 2,
        )  # fmt: skip
        if wide:
            turned = [point for point in found.points if getattr(point, name).signed < 0]
            mark_inverted(axes, [p.density for p in turned], [getattr(p, name).pearson for p in turned], colour)
    _furnish(axes, found, densities)
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color="#111111", pad=10)
    return Curve(lettered(figure))


def _furnish(axes: Axes, found: Faithfulness, densities: list[float]) -> None:
    axes.set_xscale("log")
    # densities ascend, and the largest stands at the left
    axes.set_xlim(densities[-1] * 1.05, densities[0] * 0.93)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(FixedLocator([t for t in _TICKS if densities[0] * 0.99 <= t <= densities[-1] * 1.05]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"density: kept / relevant {found.granularity}s")
    axes.set_ylabel("|Pearson r| with the full model")
    first = found.points[0]
    control = f"\nrandom: same counts by layer, mean of {found.n_random}" if found.n_random else ""
    axes.legend(
        handles=explained(axes), title=f"{found.target}\n{found.kind} circuits\n{first.alone.n_images:,} images, "
        f"{first.alone_interval.level:.0%} bootstrap bands{control}\nnumbers: area over log density",
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9.5, title_fontsize=8.5,
        alignment="left", labelspacing=0.6,
    )  # fmt: skip
