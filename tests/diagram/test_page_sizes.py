"""Feature size: larger pictures push columns and rows apart, and lines follow; in a real browser."""

import re
from itertools import combinations

import pytest

from diagram.test_page_zoom import window
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.extended import diagram
from viscircuits.saliency.registry import score
from viscircuits.target import Target

BOXES = """
all => all.map(el => {
  const box = el.getBoundingClientRect(), to = el.ownerSVGElement.getScreenCTM().inverse();
  const [a, b] = [[box.left, box.top], [box.right, box.bottom]].map(([x, y]) => new DOMPoint(x, y).matrixTransform(to));
  return [a.x, a.y, b.x, b.y];
})
"""
"""Where elements are in the drawing's own pixels."""

LARGEST = 2.5


@pytest.fixture(params=["joins", "crowded"])
def opened(request, drawn, shapesnet, shapes, visit, tmp_path):
    made = drawn
    if request.param == "crowded":  # columns of many rows
        target = Target("features.6", 7)
        scores = score(shapesnet, target, shapes[0], criterion="actgrad")
        made = diagram(Circuit(shapesnet, target, scores.select(density=0.15)), pictures="none")
    (tmp_path / "circuit.html").write_text(made.html())
    return visit(tmp_path / "circuit.html")


def boxes(page, which: str) -> list[list[float]]:
    return page.eval_on_selector_all(which, BOXES)


def grow(page, size: float) -> None:
    page.locator('[name="feature"]').fill(str(size))
    window(page)


def overlaps(page) -> int:
    """Pairs of vertices, with their labels, and of vertices and headings, that lie over one another."""
    vertices, headings = boxes(page, ".picture .vertex"), boxes(page, ".picture .circuit > text")
    pairs = [*combinations(vertices, 2), *((a, b) for a in vertices for b in headings)]
    return sum(a[0] < b[2] - 1 and b[0] < a[2] - 1 and a[1] < b[3] - 1 and b[1] < a[3] - 1 for a, b in pairs)


def test_pictures_and_headings_do_not_overlap_at_any_size(opened):
    page = opened
    page.add_style_tag(content=".ring { display: none }")
    assert overlaps(page) == 0
    for size in (1.4, LARGEST, 0.4):
        grow(page, size)
        assert overlaps(page) == 0


def test_columns_and_rows_move_apart(page):
    before = {tuple(round(n) for n in box[:2]): box for box in boxes(page, ".picture .vertex")}
    grow(page, LARGEST)
    after = boxes(page, ".picture .vertex")
    width = max(box[2] for box in after) - min(box[0] for box in after)
    height = max(box[3] for box in after) - min(box[1] for box in after)
    old = list(before.values())
    assert width > 1.2 * (max(box[2] for box in old) - min(box[0] for box in old))
    assert height > 1.5 * (max(box[3] for box in old) - min(box[1] for box in old))
    stage = page.locator(".stage").bounding_box()
    for mark in page.locator(".picture .vertex").all():  # and the whole drawing is still seen
        box = mark.bounding_box()
        assert stage["x"] <= box["x"]
        assert box["x"] + box["width"] <= stage["x"] + stage["width"]
        assert box["y"] + box["height"] <= stage["y"] + stage["height"]


ENDS = """
() => [...document.querySelectorAll(".picture .edge")].map(el => {
  const n = el.querySelector("path").getAttribute("d").match(/-?[\\d.]+/g).map(Number);
  const body = document.querySelector(`.vertex[data-id="${el.dataset.target}"]`);
  const box = body.firstElementChild.getBoundingClientRect(), to = body.ownerSVGElement.getScreenCTM().inverse();
  const own = body.closest(".circuit").getScreenCTM().inverse();
  const corner = new DOMPoint(box.left, box.top).matrixTransform(own);
  const other = new DOMPoint(box.right, box.bottom).matrixTransform(own);
  return [n.at(-2) - corner.x, n.at(-1) - corner.y, other.y - n.at(-1)];
})
"""


@pytest.mark.parametrize("size", [0.5, 1, LARGEST])
def test_lines_end_at_the_pictures(page, size):
    grow(page, size)
    for gap, below, above in page.evaluate(ENDS):
        assert abs(gap) < 6 * max(1, size)  # the target has a rim
        assert below > 0
        assert above > 0


def test_kernels_stay_on_their_lines_and_all_comes_back(opened):
    page = opened
    middle = """
    all => Math.max(...all.map(el => {
      const box = el.getBoundingClientRect(), own = el.closest(".circuit").getScreenCTM().inverse();
      const at = new DOMPoint(box.x + box.width / 2, box.y + box.height / 2).matrixTransform(own);
      const line = document.querySelector(`.edge[data-id="${el.dataset.edge}"] path`), length = line.getTotalLength();
      let least = Infinity;
      for (let i = 0; i <= 100; i++) {
        const p = line.getPointAtLength(i * length / 100);
        least = Math.min(least, Math.hypot(p.x - at.x, p.y - at.y));
      }
      return least;
    }))
    """
    paths = "all => all.map(el => el.getAttribute('d'))"
    start, lines = boxes(page, ".picture .kernel"), page.eval_on_selector_all(".edge path", paths)
    grow(page, LARGEST)
    assert page.eval_on_selector_all(".picture .kernel:not(.crowded)", middle) < 12
    assert page.eval_on_selector_all(".edge path", paths) != lines
    grow(page, 1)
    for old, new in zip(start, boxes(page, ".picture .kernel"), strict=True):
        assert new == pytest.approx(old, abs=0.3)
    numbers = [[float(n) for n in re.findall(r"[\d.]+", d)] for d in page.eval_on_selector_all(".edge path", paths)]
    for old, new in zip(lines, numbers, strict=True):
        assert new == pytest.approx([float(n) for n in re.findall(r"[\d.]+", old)], abs=0.02)


def test_what_is_looked_at_closely_stays_in_sight(page):
    for _ in range(4):
        page.keyboard.press("+")
    before = window(page)
    grow(page, 1.5)
    after = window(page)
    assert after[2] == pytest.approx(before[2], rel=1e-3)  # as close as before
