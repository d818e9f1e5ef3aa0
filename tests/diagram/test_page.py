"""The interactive page in a real browser."""

import pytest
from torch import nn

from viscircuits.circuit.circuit import Circuit
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.target import Target


def whole(model: nn.Module, target: Target, shape) -> Circuit:
    graph = trace(model, shape)
    relevant = expand_relevant(graph, Readout(target, graph).relevant_kernels, "kernel")
    return Circuit(model, target, Mask(relevant, relevant, "kernel", shape))


def vertex(page, name: str):
    return page.locator(f'.vertex[aria-label^="{name}"]')


def test_hovering_tells_names_and_scores(page):
    assert page.locator(".tip").is_hidden()
    vertex(page, "b:2,").hover()
    assert page.locator(".tip").inner_text().startswith("b:2\nΣ|w| ")
    page.mouse.move(2, 890)
    assert page.locator(".tip").is_hidden()


def test_a_click_isolates_the_paths_and_a_click_returns(page):
    vertex(page, "b:2,").click()
    lit = page.eval_on_selector_all(".vertex.lit", "all => all.map(v => v.getAttribute('aria-label').split(',')[0])")
    joins = [name for name in lit if name.startswith(" +") or "+" in name]
    assert {name for name in lit if name[:2] == "b:"} == {"b:2"}
    assert {name for name in lit if name[:2] == "c:"} == {f"c:{i}" for i in range(5)}
    assert len(joins) == 5
    # into b:2: 15 kernels of a, 5 of its own; onwards 5 of c and 5 of head, and from a past b nothing
    assert page.locator(".edge.lit").count() == 15 + 5 + 5 + 5
    assert page.locator(".wire.lit").count() == 5
    assert page.locator(".status").inner_text().startswith("Paths through b:2: ")
    assert vertex(page, "b:2,").get_attribute("aria-pressed") == "true"
    vertex(page, "b:2,").click()
    assert page.locator(".lit").count() == 0
    assert page.locator("svg.isolated").count() == 0


def test_an_edge_can_be_isolated_and_escape_returns(page):
    page.locator(".edge .hit").first.dispatch_event("click")
    assert " → " in page.locator(".status").inner_text()
    assert 0 < page.locator(".edge.lit").count() < page.locator(".edge").count()
    page.keyboard.press("Escape")
    assert page.locator(".lit").count() == 0


def test_sliders_scale_filters_and_kernels(page):
    filters, kernels = vertex(page, "b:2,").locator("> :first-child"), page.locator(".kernel").first
    before = sizes(filters), sizes(kernels)
    page.locator('[name="feature"]').fill("2")
    page.locator('[name="kernel"]').fill("0.5")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert sizes(filters) == pytest.approx(2 * before[0], rel=0.02)
    assert sizes(kernels) == pytest.approx(0.5 * before[1], rel=0.02)


def sizes(mark) -> float:
    """The width of a mark in units of the drawing, whatever part of that is seen."""
    scale = "el => el.ownerSVGElement.getScreenCTM().a"
    return mark.bounding_box()["width"] / mark.evaluate(scale)


def focused(page) -> str:
    name = "document.activeElement.name || document.activeElement.id"
    return page.evaluate(f"document.activeElement.getAttribute('aria-label') ?? ({name})")


def test_the_keyboard_is_enough(page):
    stops = []
    for _ in range(9):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    assert stops[:3] == ["feature", "kernel", "help"]
    assert stops[3].startswith("head:1 (target)")
    assert stops[4:] == ["Zoom in", "Zoom out", "Fit the whole drawing", "legend", "theme"]
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowLeft")
    assert " → head:1" in focused(page)
    page.keyboard.press("ArrowDown")
    assert " → head:1" in focused(page)
    page.keyboard.press("ArrowLeft")
    assert "+" in focused(page)
    page.keyboard.press("Enter")
    assert page.locator("svg.isolated").count() == 1
    page.keyboard.press("Enter")
    assert page.locator("svg.isolated").count() == 0
    assert page.locator(".tip").is_visible()


def test_light_and_dark(page):
    shade = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(shade) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(shade)
    assert dark != "rgb(255, 255, 255)"
    page.locator("#theme").click()  # light, whatever the system says
    assert page.evaluate(shade) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    assert page.evaluate(shade) == dark


@pytest.mark.parametrize("width", [1280, 700])
def test_the_buttons_are_apart(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    keys, theme = (page.locator(name).bounding_box() for name in ('[name="help"]', "#theme"))
    beside = keys["x"] + keys["width"] + 4 <= theme["x"]
    assert beside or keys["y"] >= theme["y"] + theme["height"]
