"""The preservation curve: same table, same bytes; every word a reader needs; every number where it belongs."""

import html
import inspect
from pathlib import Path

import polars as pl
import pytest

from viscircuits.diagram.chosen import called
from viscircuits.diagram.curve import preservation_curve
from viscircuits.errors import StudyError
from viscircuits.evaluate.sweep import table


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
            "pearson_signed": -top * density, "spearman": top * density, "relative_difference": 3 - density,
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
    ):  # fmt: skip
        assert words in text, words
    assert "font-family" in text
    assert "<text" in text  # words stay words
    filters = table(rows()).with_columns(pl.lit("filter").alias("granularity"))
    assert "relevant filters" in svg(preservation_curve(filters))
    assert "8,456 to 9,000" in svg(
        preservation_curve(pl.concat([filters, filters.with_columns(relevant=pl.lit(9000, pl.Int64))]))
    )


@pytest.mark.parametrize("metric", ["pearson", "pearson_signed", "spearman", "relative_difference"])
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
