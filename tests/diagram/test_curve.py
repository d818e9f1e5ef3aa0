"""The preservation curve: same table, same bytes; every word a reader needs; every number where it belongs."""

import html
import inspect
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from viscircuits.errors import StudyError
from viscircuits.evaluate.faithfulness import Faithful, Faithfulness
from viscircuits.evaluate.interval import Interval
from viscircuits.evaluate.preservation import Preservation
from viscircuits.evaluate.table import table
from viscircuits.plots.curve import preservation_curve
from viscircuits.plots.faithfulness import faithfulness_curve
from viscircuits.study.chosen import called


def rows(target: str = "features.10:5", shift: float = 0.0) -> list[dict]:
    """Three densities, a criterion, its control and random; values that are easy to find again."""
    common = {
        "relevant": 8456,
        "disconnected": False, "zero_scores": 0, "reason": None, "granularity": "kernel", "biases": "masked",
        "n_scoring": 20, "n_held_out": 20, "seed": 0, "seconds": 0.0,
    }  # fmt: skip
    series = (("actgrad", "best", 1.0), ("actgrad", "worst", 0.2), ("random", "best", 0.5), ("mine", "best", 0.7))
    return [
        common | {
            "target": target, "criterion": criterion, "order": order, "density": density, "sparsity": 1 - density,
            "kept": round(8456 * density), "effective": 1, "effective_density": density,
            "pearson": top * density + shift,
            "pearson_signed": top * density, "spearman": top * density, "relative_difference": 3 - density,
            "sd_ratio": 2 * top * density,
        }
        for criterion, order, top in series for density in (0.9, 0.1, 0.001)
    ]  # fmt: skip


def svg(curve) -> str:
    return html.unescape(curve._repr_svg_())


def test_the_same_table_gives_the_same_files(tmp_path):
    first = preservation_curve(table(rows()), title="shapesnet").save(tmp_path / "a.b")
    table(rows()).write_parquet(tmp_path / "t.parquet")
    again = preservation_curve(pl.read_parquet(tmp_path / "t.parquet"), title="shapesnet").save(
        tmp_path / "again" / "a.b"
    )
    assert [f.name for f in first] == ["a.b.png", "a.b.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.b.png", "a.b.svg", "again", "t.parquet"]
    changed = preservation_curve(table(rows(shift=0.001)), title="shapesnet").save(tmp_path / "changed")
    assert changed[1].read_bytes() != first[1].read_bytes()


def test_what_the_picture_says():
    text = svg(preservation_curve(table(rows()), title="A <title> & more"))
    for words in (
        "A <title> & more", "density", "sparsity", "relevant kernels", "8,456", "features.10:5", "masked circuits",
        "20",
        "|Pearson r| with the full model", "actgrad", "actgrad, worst first", "random", "mine",
        "that were not scored on",
    ):  # fmt: skip
        assert words in text, words
    assert "unseen" not in text
    assert "inverted" not in text
    assert "font-family" in text
    assert "<text" in text  # words stay words
    filters = table(rows()).with_columns(pl.lit("filter").alias("granularity"))
    assert "relevant filters" in svg(preservation_curve(filters))
    assert "8,456 to 9,000" in svg(
        preservation_curve(pl.concat([filters, filters.with_columns(relevant=pl.lit(9000, pl.Int64))]))
    )


@pytest.mark.parametrize("metric", ["pearson", "pearson_signed", "spearman", "relative_difference", "sd_ratio"])
def test_every_line_holds_its_numbers(metric):
    frame = table(rows())
    axes = preservation_curve(frame, metric=metric).figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["actgrad", "actgrad, worst first", "random", "mine"]
    for line, (criterion, order) in zip(
        axes.lines, frame.select("criterion", "order").unique(maintain_order=True).rows(), strict=True
    ):
        own = frame.filter(pl.col("criterion") == criterion, pl.col("order") == order).sort("density")
        assert list(line.get_xdata()) == own["density"].to_list()
        assert list(line.get_ydata()) == own[metric].to_list()
        low, high = axes.get_ylim()
        assert low <= own[metric].min()
        assert own[metric].max() <= high
    start, end = axes.get_xlim()
    assert start >= 1.0 > 0.001 >= end  # from dense to sparse
    best, worst = axes.lines[:2]
    assert best.get_color() == worst.get_color()
    assert best.get_linestyle() != worst.get_linestyle()
    assert len({line.get_color() for line in axes.lines}) == 3


@pytest.mark.parametrize("metric", ["pearson", "pearson_within"])
def test_inverted_circuits_are_hollow(metric):
    """|r| hides the sign: the points say it, and the legend says what they say."""
    frame = table(rows()).with_columns(
        pearson_within=pl.col("pearson") / 2,
        pearson_signed=pl.when(pl.col("density") < 0.5).then(-pl.col("pearson")).otherwise(pl.col("pearson")),
    )
    curve = preservation_curve(frame, metric=metric)
    hollow = [line for line in curve.figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 4
    for line, top in zip(hollow, (1.0, 0.2, 0.5, 0.7), strict=True):
        scale = 1 if metric == "pearson" else 0.5
        assert list(line.get_xdata()) == [0.001, 0.1] or list(line.get_xdata()) == [0.1, 0.001]
        assert sorted(line.get_ydata()) == pytest.approx([top * 0.001 * scale, top * 0.1 * scale])
    assert svg(curve).count("inverted (r < 0)") == 1
    for other in ("pearson_signed", "spearman"):
        assert "inverted" not in svg(preservation_curve(frame, metric=other))


def test_inverted_circuits_are_hollow_both_ways():
    """Also where a circuit and the model without it are compared."""

    def kept(r: float) -> Preservation:
        return Preservation(abs(r), abs(r), r, r, 0.5, 1.0, None, 3, 3)

    points = [
        Faithful(density, kept(alone), kept(without), Interval(0.0, 1.0, 0.95), Interval(0.0, 1.0, 0.95), 0.1, 0.9)
        for density, alone, without in ((0.1, -0.4, 0.9), (0.5, 0.8, -0.3))
    ]
    curve = faithfulness_curve(Faithfulness("a:1", "kernel", tuple(points), 1, "masked"))
    hollow = [line for line in curve.figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [([0.1], [0.4]), ([0.5], [0.3])]
    assert svg(curve).count("inverted (r < 0)") == 1
    upright = Faithfulness("a:1", "kernel", (replace(points[0], alone=kept(0.4)),), 1, "masked")
    assert "inverted" not in svg(faithfulness_curve(upright))


def test_lines_are_listed_in_one_order_whatever_that_of_the_rows():
    frame = table(rows())
    turned = pl.concat([frame.filter(pl.col("order") == "worst"), frame.filter(pl.col("order") == "best")])
    labels = [line.get_label() for line in preservation_curve(turned).figure.axes[0].lines]
    assert labels == ["actgrad", "actgrad, worst first", "random", "mine"]
    assert preservation_curve(frame.sort("density", descending=False)).figure.axes[0].lines[0].get_label() == "actgrad"


def test_a_column_that_a_table_does_not_have_yet_is_drawn_empty():
    frame = table(rows()).with_columns(sd_ratio=pl.lit(None, pl.Float64))
    assert "standard deviation: circuit / full model" in svg(preservation_curve(frame, metric="sd_ratio"))
    many = table(rows("a:1") + rows("a:2")).with_columns(sd_ratio=pl.lit(None, pl.Float64))
    svg(preservation_curve(many, metric="sd_ratio"))


def test_criteria_are_called_by_their_names_where_that_is_enough():
    assert called(["snip", "learned,steps=5,densities=0.2/0.1"]) == {
        "snip": "snip",
        "learned,steps=5,densities=0.2/0.1": "learned",
    }
    two = ["snip,rounds=2", "snip", "actgrad", "snip"]
    assert called(two) == {"snip,rounds=2": "snip,rounds=2", "snip": "snip", "actgrad": "actgrad"}
    frame = table(rows()).with_columns(pl.col("criterion").replace("mine", "learned,steps=5"))
    assert preservation_curve(frame).figure.axes[0].lines[-1].get_label() == "learned"
    assert "steps=5" not in svg(preservation_curve(frame))


def test_several_targets_show_median_and_quartiles():
    one = preservation_curve(table(rows()))
    assert not one.figure.axes[0].collections
    assert "median" not in svg(one)
    several = preservation_curve(table(rows("a:1", -0.1) + rows("a:2") + rows("a:3", 0.3)))
    axes = several.figure.axes[0]
    assert len(axes.collections) == 4
    assert "median and quartiles of 3 targets" in svg(several)
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.001, 0.1, 0.9])


def test_nothing_to_draw():
    with pytest.raises(StudyError, match=r"the table holds no measurement to draw"):
        preservation_curve(table([]))
    with pytest.raises(StudyError, match=r"unknown metric 'pearsn'; expected one of pearson, .*relative_difference"):
        preservation_curve(table(rows()), metric="pearsn")


def test_global_style_is_untouched():
    import matplotlib

    before = dict(matplotlib.rcParams)
    svg(preservation_curve(table(rows())))
    assert dict(matplotlib.rcParams) == before
    assert "pyplot" not in Path(inspect.getfile(preservation_curve)).read_text()  # it would choose a backend
