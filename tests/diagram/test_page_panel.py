"""The panel that shows closely what was selected, in a real browser."""

import numpy as np
import pytest

from diagram.test_page import vertex, whole
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.extended import diagram, shown
from viscircuits.saliency.registry import score
from viscircuits.target import Target


def rows(page, heading: str) -> list[str]:
    part = page.locator(".panel .part", has_text=heading).locator("xpath=following-sibling::ul[1]")
    return [row.inner_text() for row in part.locator(".row").all()]


def test_a_click_opens_it_with_the_name_and_the_numbers(page, drawn):
    content = drawn.content
    chosen = next(v for v in content.vertices if v.name == "b:2")
    into = sorted((e for e in content.edges if e.target == chosen.id), key=lambda e: -e.magnitude)
    out = [e for e in content.edges if e.source == chosen.id]
    assert page.locator(".panel").is_hidden()
    vertex(page, "b:2,").click()
    panel = page.locator(".panel")
    assert panel.locator(".name").inner_text() == "b:2"
    assert f"{chosen.score:.3g}, summed over its kernels" in panel.locator(".numbers").inner_text()
    assert f"{len(into)} in, {len(out)} out" in panel.locator(".numbers").inner_text()
    told = rows(page, "Inputs, by weight")
    assert len(told) == len(into) == 5
    for row, edge in zip(told, into, strict=True):
        sign = "−" if edge.total < 0 else "+"
        assert row.startswith(content.by_id[edge.source].name)
        assert f"Σw {sign}{float(f'{abs(edge.total):.3g}'):g}" in row
        assert f"Σ|w| {float(f'{edge.magnitude:.3g}'):g}" in row
    assert len(rows(page, "Outputs, by weight")) == len(out)


def test_kernels_and_signs_are_those_of_the_drawing(page):
    vertex(page, "b:2,").click()
    kernels = page.eval_on_selector_all(".picture .kernel image", "all => all.map(el => el.getAttribute('href'))")
    shown = page.eval_on_selector_all(".panel .thumbnail img", "all => all.map(el => el.src)")
    assert len(shown) == 10
    assert set(shown) <= set(kernels)
    strokes = page.eval_on_selector_all(
        ".picture .edge.lit path:not(.hit)", "all => all.map(el => getComputedStyle(el).stroke)"
    )
    bars = page.eval_on_selector_all(".panel .bar rect", "all => all.map(el => getComputedStyle(el).fill)")
    assert set(bars) <= set(strokes)


@pytest.mark.parametrize("way", ["Escape", "button", "again", "background"])
def test_it_closes(page, way):
    vertex(page, "b:2,").click()
    assert page.locator(".panel").is_visible()
    if way == "Escape":
        page.keyboard.press("Escape")
    elif way == "button":
        page.get_by_role("button", name="Close").click()
    elif way == "again":
        vertex(page, "b:2,").click()
    else:
        stage = page.locator(".stage").bounding_box()
        page.mouse.click(stage["x"] + 6, stage["y"] + 0.5 * stage["height"])
    assert page.locator(".panel").is_hidden()
    # the button uncovers the paths; all else returns to the whole circuit
    assert page.locator("svg.isolated").count() == (way == "button")


def test_the_keyboard_opens_reads_and_closes_it(page):
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".panel .name").inner_text() == "head:1"
    for _ in range(5):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "close"
    page.keyboard.press("Tab")
    name = page.locator(":focus b").inner_text()
    page.keyboard.press("Enter")
    assert page.locator(".panel .name").inner_text() == name
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").split(",")[0] == name
    page.keyboard.press("Escape")
    assert page.locator(".panel").is_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").split(",")[0] == name


def test_the_close_button_gives_the_focus_back(page):
    vertex(page, "b:2,").click()
    page.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("b:2,")


def test_a_line_is_shown_with_its_kernel_and_its_ends(page, drawn):
    content = drawn.content
    edge = next(e for e in content.edges if content.by_id[e.target].name == "b:2")
    page.locator(f'.edge[data-source="{edge.source}"][data-target="{edge.target}"] .hit').dispatch_event("click")
    panel = page.locator(".panel")
    assert panel.locator(".name").inner_text() == f"{content.by_id[edge.source].name} → b:2"
    assert ("excites" if edge.balance > 0 else "inhibits") in panel.locator(".numbers").inner_text()
    assert panel.locator(".large img").count() == 1
    panel.locator(".row").first.click()
    assert panel.locator(".name").inner_text() == content.by_id[edge.source].name


def test_it_does_not_lie_over_what_it_shows(page):
    vertex(page, "head:1").click()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    target, panel = vertex(page, "head:1").bounding_box(), page.locator(".panel").bounding_box()
    assert target["x"] + target["width"] <= panel["x"]


def test_the_picture_is_large_and_the_crops_stand_below(shapesnet, shapes, visit, tmp_path):
    target = Target("features.6", 7)
    scores = score(shapesnet, target, shapes[0], criterion="actgrad")
    circuit = Circuit(shapesnet, target, scores.select(density=0.08))
    seen = {(v.layer, v.channel) for v in shown(circuit).vertices if v.layer == "features.3"}
    drawn = diagram(circuit, images=shapes[1], pictures={unit: np.full((3, 20, 20), 0.5, np.float32) for unit in seen})
    assert drawn.crops.keys() == seen | {("features.6", 7)}
    crops = drawn.crops[min(seen)]
    assert len(crops) == 3
    assert all(crop.shape[0] == 3 for crop in crops)
    (tmp_path / "circuit.html").write_text(drawn.html())
    page = visit(tmp_path / "circuit.html")
    one = next(v for v in drawn.content.vertices if (v.layer, v.channel) == min(seen))
    page.locator(f'.vertex[data-id="{one.id}"]').dispatch_event("click")
    assert page.locator(".panel .large img").bounding_box()["width"] > 200
    assert page.locator(".panel .crops img").count() == 3
    first = next(v for v in drawn.content.vertices if v.name.startswith("features.0:"))
    page.locator(f'.vertex[data-id="{first.id}"]').dispatch_event("click")
    assert page.locator(".panel .crops img").count() == 0  # its kernel says it


def test_a_bundle_is_shown_too(shapesnet, visit, tmp_path):
    circuit = whole(shapesnet, Target("features.6", 7), (3, 64, 64))
    drawn = diagram(circuit, pictures="none", most=5)
    (tmp_path / "circuit.html").write_text(drawn.html())
    page = visit(tmp_path / "circuit.html")
    bundle = page.locator(".vertex.bundle").nth(1)
    bundle.click()
    assert page.locator(".panel .numbers").inner_text().count("filters") == 1
    assert page.locator(".panel .thumbnail").first.inner_text().startswith("×")
    assert page.locator(".panel .members img").count() == 9  # its filters read the image: kernels
    page.locator(".vertex.bundle").first.click()
    assert page.locator(".panel .large svg").count() == 1  # channels of the image have no pictures
