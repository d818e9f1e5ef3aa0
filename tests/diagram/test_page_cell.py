"""A diagram in a notebook's cell: whole in width and height."""

import pytest

from viscircuits.canvas.page import CELL
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.extended import Diagram, diagram
from viscircuits.saliency.registry import score
from viscircuits.target import Target


@pytest.fixture(params=["joins", "bundled", "crowded"])
def shown(request, drawn, shapesnet, shapes) -> Diagram:
    if request.param == "joins":
        return drawn
    target = Target("features.6", 7)
    scores = score(shapesnet, target, shapes[0], criterion="actgrad")
    circuit = Circuit(shapesnet, target, scores.select(density=0.15))
    return diagram(circuit, pictures="none", most=5 if request.param == "bundled" else 10_000)


def test_it_is_seen_whole(shown, visit, tmp_path):
    file = tmp_path / "notebook.html"
    file.write_text(f'<!doctype html><meta charset="utf-8"><title>cell</title><main>{shown._repr_html_()}</main>')
    page = visit(file)
    page.add_style_tag(content=f"body {{ margin: 0 }} main {{ width: {CELL}px }}")
    frame = page.frames[1]
    frame.wait_for_selector(".vertex[role]")
    frame.wait_for_load_state()
    wait_until_whole(page, frame)
    scrolls = "[document.documentElement.scrollHeight > innerHeight, document.documentElement.scrollWidth > innerWidth]"
    assert frame.evaluate(scrolls) == [False, False]
    stage, outer = frame.locator(".stage").bounding_box(), page.locator("iframe").bounding_box()
    assert outer["width"] == CELL
    boxes = [box.bounding_box() for box in frame.locator(".picture .vertex").all()]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    assert stage["x"] <= left
    assert right <= stage["x"] + stage["width"]
    assert stage["y"] <= top
    assert bottom <= stage["y"] + stage["height"] <= outer["y"] + outer["height"] + 1
    # and it fills the cell: one way, but for its margins, or as large as it may get
    filled = max((right - left) / stage["width"], (bottom - top) / stage["height"])
    assert filled > 0.8


def test_a_cell_that_is_opened_later_is_seen_whole_too(drawn, visit, tmp_path):
    """A hidden frame has no sizes to measure by."""
    file = tmp_path / "notebook.html"
    file.write_text(
        f'<!doctype html><meta charset="utf-8"><title>cell</title><main hidden>{drawn._repr_html_()}</main>'
    )
    page = visit(file)
    frame = page.frames[1]
    frame.wait_for_load_state()
    page.evaluate("document.querySelector('main').hidden = false")
    wait_until_whole(page, frame)
    stage, mark = frame.locator(".stage").bounding_box(), frame.locator(".picture .vertex").last
    assert mark.bounding_box()["x"] + mark.bounding_box()["width"] <= stage["x"] + stage["width"]
    mark.click()
    assert frame.locator("svg.isolated").count() == 1


def wait_until_whole(page, frame) -> None:
    """Waits for the drawing to be fitted, in the first frames after it has its size; a busy machine takes a while."""
    fitted = "[...document.querySelectorAll('.vertex')].every(v => v.getBoundingClientRect().right <= innerWidth)"
    for _ in range(100):
        if frame.evaluate(f"innerWidth > 0 && {fitted}"):
            return
        page.wait_for_timeout(50)
