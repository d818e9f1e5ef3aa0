"""The preservation curve: how much of a target survives as its circuit shrinks (paper, figure 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from viscircuits import store
from viscircuits.bounds.arguments import checked
from viscircuits.errors import StudyError
from viscircuits.plots.style import drawing, dressed, lettered
from viscircuits.plots.themed import themed_svg
from viscircuits.plots.vector import svg
from viscircuits.study.chosen import asked_as, called, is_control, series_of, titled

_COLOURS = {  # Okabe and Ito's palette: told apart with any colour vision
    "actgrad": "#0072B2",
    "snip": "#D55E00",
    "force": "#009E73",
    "magnitude": "#CC79A7",
    "activation": "#E69F00",
    "gradient": "#56B4E9",
    "learned": "#332288",
    "reconstruct": "#117733",
    "random": "#8A8A8A",
}
_OTHERS = ("#882255", "#AA4499", "#999933", "#44AA99")
_TICKS = (1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
_METRICS = {
    "pearson": "|Pearson r| with the full model",
    "pearson_within": "|Pearson r| within positions",
    "pearson_signed": "Pearson r with the full model",
    "spearman": "Spearman correlation with the full model",
    "relative_difference": "mean |circuit − full| / mean |full|",
    "sd_ratio": "standard deviation: circuit / full model",
}

_UNSIGNED = ("pearson", "pearson_within")
_UNBOUNDED = ("relative_difference", "sd_ratio")
_INVERTED = "inverted (r < 0)"


class _Marker(TypedDict):
    linestyle: Literal[""]
    marker: str
    markersize: float
    markerfacecolor: str
    markeredgewidth: float


_HOLLOW: _Marker = {
    "linestyle": "", "marker": "o", "markersize": 4.6, "markerfacecolor": "white", "markeredgewidth": 1.3,
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A drawn curve; shows itself in a notebook, saves itself as PNG and SVG."""

    figure: Figure

    @checked
    @drawing
    def save(self, path: str | Path) -> tuple[Path, Path]:
        """Writes ``path.png`` and ``path.svg``, atomically, and returns both paths."""
        base = Path(path)
        png, vector = base.with_name(base.name + ".png"), base.with_name(base.name + ".svg")
        with store.atomic(png) as temporary:
            self.figure.savefig(temporary, dpi=200, format="png", metadata={"Software": None})
        with store.atomic(vector) as temporary:
            temporary.write_text(svg(self.figure, dpi=200), encoding="utf-8")
        return png, vector

    @drawing
    def themed(self) -> str:
        """Returns the curve as an SVG document that is dark in dark pages (`viscircuits.plots.themed`)."""
        return themed_svg(self.figure, 130)

    def publish(self, path: str | Path) -> Path:
        """Writes ``path.png`` and, for reports, the themed ``path.svg``; returns the path of the latter."""
        _, shown = self.save(path)
        with store.atomic(shown) as temporary:
            temporary.write_text(self.themed(), encoding="utf-8")
        return shown

    @drawing
    def _repr_svg_(self) -> str:
        return svg(self.figure)


@checked
@drawing
def preservation_curve(table: pl.DataFrame, *, metric: str = "pearson", title: str = "") -> Curve:
    """Returns the curve of a sweep's table: a line a criterion; over several targets its median and quartiles.

    Args:
        table: rows of a sweep (see `viscircuits.study.measurements.SCHEMA`).
        metric: the column to draw: "pearson", "pearson_within", "pearson_signed", "spearman", "relative_difference" or
            "sd_ratio".
        title: what stands above the picture.
    """
    if metric not in _METRICS:
        raise StudyError(f"unknown metric {metric!r}; expected one of {', '.join(_METRICS)}")
    if table.is_empty():
        raise StudyError("the table holds no measurement to draw")
    figure = Figure(figsize=(7.2, 4.3), layout="constrained")
    axes = dressed(figure.add_subplot())
    several = table["target"].n_unique() > 1
    # colours beyond the palette's are dealt out in turn; a table has no more criteria than nine rounds of them
    names, others = called(table["criterion"]), iter(_OTHERS * 9)
    colours = {criterion: _COLOURS.get(name) or next(others) for criterion, name in names.items()}
    for criterion, order in series_of(table):
        rows = table.filter(pl.col("criterion") == criterion, pl.col("order") == order)
        dashed = is_control(asked_as(criterion, order))
        _line(axes, rows, metric, titled(names[criterion], order), colours[criterion], several, dashed)
        if not several and metric in _UNSIGNED:
            turned = rows.filter(pl.col("pearson_signed") < 0)
            mark_inverted(axes, turned["density"].to_list(), turned[metric].to_list(), colours[criterion])
    _furnish(axes, table, metric, title)
    return Curve(lettered(figure))


def _line(axes: Axes, rows: pl.DataFrame, metric: str, label: str, colour: str, several: bool, dashed: bool) -> None:
    value = pl.col(metric)
    by_density = rows.group_by("density").agg(
        value.median().alias("middle"), value.quantile(0.25).alias("low"), value.quantile(0.75).alias("high")
    )
    # tables older than a column have nulls in it: matplotlib breaks a line at nan, and fails at None
    by_density = by_density.sort("density").fill_null(float("nan"))
    x, middle = by_density["density"].to_list(), by_density["middle"].to_list()
    if several:
        low, high = by_density["low"].to_list(), by_density["high"].to_list()
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        x, middle, color=colour, linewidth=1.8, linestyle=(0, (4, 2)) if dashed else "-",
        marker="o", markersize=4.2, markeredgecolor="white", markeredgewidth=0.7, label=label, clip_on=False, zorder=3,
    )  # fmt: skip


def mark_inverted(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """Draws the points of inverted circuits hollow, because |r| hides their sign.

    Args:
        axes: the plot.
        x, y: the densities and the |r| of the inverted circuits.
        colour: of their line.
    """
    if x:
        # matplotlib leaves labels out of a legend that begin with an underscore; `explained` finds them all the same
        axes.plot(x, y, color=colour, label=f"_{_INVERTED}", zorder=4, clip_on=False, **_HOLLOW)


def explained(axes: Axes) -> list[Artist]:
    """Returns what the legend lists: the lines that have a name, and what hollow points are, where there are any."""
    handles = axes.get_legend_handles_labels()[0]
    marked = any(str(line.get_label()).endswith(_INVERTED) for line in axes.lines)
    return [*handles, Line2D([], [], color="#666666", label=_INVERTED, **_HOLLOW)] if marked else handles


def _furnish(axes: Axes, table: pl.DataFrame, metric: str, title: str) -> None:
    granularity, targets = table["granularity"][0], table["target"].n_unique()
    densities = sorted(table["density"].unique())
    axes.set_xscale("log")
    # from right to left: reading on, the circuit shrinks
    axes.set_xlim(1.05, densities[0] * 0.93)
    # correlations end at 1, so that figures of several targets can be compared; differences have no end
    if metric in (*_UNSIGNED, *_UNBOUNDED):
        axes.set_ylim(bottom=0)
    if metric not in _UNBOUNDED:
        axes.set_ylim(top=1.0)
    axes.xaxis.set_major_locator(FixedLocator([t for t in _TICKS if t >= densities[0] * 0.99]))
    # on a logarithmic axis matplotlib would label minor ticks too where it spans less than a decade
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"density: kept / relevant {granularity}s  (sparsity = 1 − density)")
    axes.set_ylabel(_METRICS[metric])
    relevant = table["relevant"].unique().sort()
    span = f"{relevant[0]:,}" if len(relevant) == 1 else f"{relevant[0]:,} to {relevant[-1]:,}"
    what = f"median and quartiles of {targets} targets" if targets > 1 else str(table["target"][0])
    axes.legend(
        handles=explained(axes), title=f"{what}\n{span} relevant {granularity}s\n"
        f"{table['biases'][0]} circuits, {table['n_held_out'][0]} images\nthat were not scored on",
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9.5, title_fontsize=8.5,
        alignment="left", labelspacing=0.6,
    )  # fmt: skip
    if title:
        axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color="#111111", pad=10)
