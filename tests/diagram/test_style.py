"""matplotlib is shared: nobody's rcParams are set, threads draw what one thread draws, and names are no formulas."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch

from diagram.test_curve import rows
from viscircuits.canvas.marks import Bezier, Box, Disc, Scene, Text
from viscircuits.evaluate.table import table
from viscircuits.plots.curve import Curve, preservation_curve
from viscircuits.plots.plate import Plate, Strip
from viscircuits.plots.raster import write_png
from viscircuits.plots.surface import surfaces
from viscircuits.probes.axis import Axis
from viscircuits.probes.patterns import Arc
from viscircuits.probes.surface import Surface


def curve(number: int, name: str = "a1") -> str:
    frame = table(rows(name, number / 100)).with_columns(criterion=pl.col("criterion").replace("mine", name))
    return preservation_curve(frame, title=f"{name} {number}")._repr_svg_()


def plate(number: int, name: str = "a1") -> bytes:
    page = Plate(2.0, 1.2)
    page.strip(Strip(name, str(number), [np.full((3, 4, 4), number / 9, np.float32)] * 2), 0.1, 0.1, 0.4)
    page.axes(1.4, 0.5, 0.5, 0.5).plot([0, 1], [0, number], label=name)
    return page.rendered()


def scene(folder) -> Callable[..., bytes]:
    def draw(number: int, name: str = "a1") -> bytes:
        parts = (
            Box(5, 5, 20, 10, "panel", "ink", radius=3),
            Bezier(((0, 0), (60, 30)), "wire"),
            Disc(((9, 9),), 4, "ink"),
        )
        file = folder / f"{name.encode('utf-8', 'replace').hex()[:20]}-{number}.png"
        write_png(Scene(90, 50, "", "", (*parts, Text(10, 40, f"{name} {number}"))), file)
        return file.read_bytes()

    return draw


def heat_map(number: int, name: str = "a1") -> Curve:
    axes = Axis("x", (0.0, 1.0, 2.0)), Axis("y", (0.0, 1.0))
    values = torch.arange(6.0).reshape(3, 2) + number
    return surfaces([{name: Surface("a:1", Arc(), axes, values, 0.5)}], labels=[name], title=str(number))


def heat(number: int, name: str = "a1") -> str:
    return heat_map(number, name)._repr_svg_()


def test_threads_draw_what_one_thread_draws_and_set_nobodys_style(tmp_path, monkeypatch):
    jobs = [(draw, number) for number in range(4) for draw in (curve, plate, scene(tmp_path), heat)]
    alone = [draw(number) for draw, number in jobs]
    written, done = [], Event()
    before = dict(matplotlib.rcParams)
    monkeypatch.setattr(matplotlib.RcParams, "__setitem__", lambda _, key, value: written.append((key, value)))

    def watched() -> bool:
        same = True
        while not done.wait(0.001):
            same &= dict(matplotlib.rcParams) == before
        return same

    with ThreadPoolExecutor(9) as pool:
        ninth = pool.submit(watched)
        together = [*pool.map(lambda job: job[0](job[1]), jobs)]
        done.set()
    assert together == alone
    assert ninth.result()
    assert not written


def test_style_is_ours_whatever_the_users(tmp_path):
    draws = (curve, plate, scene(tmp_path), heat)
    plain = [draw(1) for draw in draws]
    theirs = {
        "font.size": 15, "font.family": "serif", "svg.fonttype": "path", "svg.hashsalt": None, "xtick.color": "red",
        "axes.labelcolor": "blue", "axes.edgecolor": "green", "axes.spines.top": True, "text.parse_math": True,
    }  # fmt: skip
    with matplotlib.rc_context(theirs):
        assert [draw(1) for draw in draws] == plain
        assert matplotlib.rcParams["font.size"] == 15


@pytest.mark.parametrize("name", [r"$\frac{$", r"\input{/etc/passwd} $x$"])
def test_names_are_neither_formulas_nor_tex(tmp_path, name):
    for draw in (curve, plate, scene(tmp_path), heat):
        draw(1, name)
    assert f">{name}<" in curve(1, name)
    assert f">{name}<" in heat(1, name)


def test_control_and_half_characters_are_drawn_as_a_sign(tmp_path):
    for draw in (plate, scene(tmp_path), heat):
        draw(1, "a\ud800b\x00\x1b[31m")
    assert ">a��<" in heat(1, "a\ud800\x1b")
