"""Zoom and pan of a diagram's page, in a real browser."""

import pytest

from diagram.test_page import vertex

HALF = 0.6
"""Pixels that rounding may move a point."""


def centre(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def window(page) -> list[float]:
    """The part of the drawing that is seen, once the frame that is due was painted."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return [float(n) for n in page.locator(".picture > svg").get_attribute("viewBox").split()]


def wheel(page, at: tuple[float, float], by: float) -> list[float]:
    page.mouse.move(*at)
    page.mouse.wheel(0, by)
    return window(page)


def test_the_whole_drawing_is_seen_at_first(page):
    stage = page.locator(".stage").bounding_box()
    for box in page.locator(".picture .vertex").all():
        x, y = centre(box)
        assert stage["x"] < x < stage["x"] + stage["width"]
        assert stage["y"] < y < stage["y"] + stage["height"]
    _, _, width, height = window(page)
    assert width / height == pytest.approx(stage["width"] / stage["height"], rel=0.01)


def test_the_wheel_zooms_and_keeps_the_point_under_the_pointer(page):
    before, at = window(page), centre(vertex(page, "b:2,"))
    size = vertex(page, "b:2,").bounding_box()["width"]
    closer = wheel(page, at, -300)
    assert closer[2] < 0.8 * before[2]
    assert centre(vertex(page, "b:2,")) == pytest.approx(at, abs=HALF)
    larger = vertex(page, "b:2,").bounding_box()["width"]
    assert larger == pytest.approx(size * before[2] / closer[2], rel=0.05)  # it has a ring now
    back = wheel(page, at, 300)
    assert back == pytest.approx(before, abs=HALF)


def test_it_ends_somewhere(page):
    at = centre(vertex(page, "b:2,"))
    for _ in range(12):
        near = wheel(page, at, -400)
    assert wheel(page, at, -400) == pytest.approx(near)
    for _ in range(24):
        far = wheel(page, at, 400)
    assert wheel(page, at, 400) == pytest.approx(far)
    assert near[2] < 250
    assert far[2] < 4000


def test_dragging_moves_and_is_no_click(page):
    x, y = centre(vertex(page, "b:2,"))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y + 10)
    page.mouse.move(x - 120, y + 50)
    page.mouse.up()
    window(page)
    assert centre(vertex(page, "b:2,")) == pytest.approx((x - 120, y + 50), abs=HALF)
    assert page.locator("svg.isolated").count() == 0
    page.mouse.click(x - 120, y + 50)  # and the next click is one
    assert page.locator("svg.isolated").count() == 1


def test_a_hand_that_shakes_still_clicks(page):
    x, y = centre(vertex(page, "b:2,"))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 2, y + 1)
    page.mouse.up()
    assert page.locator("svg.isolated").count() == 1


def test_the_drawing_is_never_lost(page):
    x, y = centre(vertex(page, "b:2,"))
    for _ in range(6):
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 400, y - 200, steps=2)
        page.mouse.up()
    stage = page.locator(".stage").bounding_box()
    window(page)
    x, y = centre(vertex(page, "head:1"))
    assert stage["x"] < x < stage["x"] + stage["width"]


def test_buttons_and_keys_zoom_move_and_fit(page):
    whole_drawing = window(page)
    page.get_by_role("button", name="Zoom in").click()
    closer = window(page)
    assert closer[2] < whole_drawing[2]
    page.get_by_role("button", name="Zoom out").click()
    assert window(page) == pytest.approx(whole_drawing, abs=HALF)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Fit the whole drawing").click()
    assert window(page) == pytest.approx(whole_drawing, abs=HALF)
    page.keyboard.press("+")
    page.keyboard.press("Shift+ArrowRight")
    moved = window(page)
    assert moved[2] == pytest.approx(closer[2], rel=1e-3)
    assert moved[0] > closer[0]
    page.keyboard.press("-")
    assert window(page)[2] == pytest.approx(whole_drawing[2], rel=1e-3)
    page.keyboard.press("0")
    assert window(page) == pytest.approx(whole_drawing, abs=HALF)


def test_arrows_move_the_drawing_where_no_vertex_has_the_focus(page):
    page.keyboard.press("+")
    before = window(page)
    page.keyboard.press("ArrowDown")
    assert window(page)[1] > before[1]
    page.keyboard.press("0")
    for _ in range(4):
        page.keyboard.press("Tab")
    before = window(page)
    page.keyboard.press("ArrowLeft")
    assert window(page) == before
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").split(",")[0].endswith("→ head:1")


def test_what_the_keyboard_reaches_is_seen(page):
    page.keyboard.press("+")
    for _ in range(6):
        page.keyboard.press("+")
    for _ in range(4):
        page.keyboard.press("Tab")
    window(page)
    stage = page.locator(".stage").bounding_box()
    for _ in range(3):
        x, _ = centre(page.locator(":focus"))
        assert stage["x"] < x < stage["x"] + stage["width"]
        page.keyboard.press("ArrowLeft")
        window(page)


FINGERS = """
([first, second]) => {
  const svg = document.querySelector(".picture > svg");
  const send = (type, [pointerId, clientX, clientY]) =>
    svg.dispatchEvent(new PointerEvent(type, { pointerId, clientX, clientY, pointerType: "touch", bubbles: true }));
  svg.setPointerCapture = () => {};  // there is no finger
  for (const finger of first) send("pointerdown", finger);
  for (const finger of second) send("pointermove", finger);
  for (const finger of second) send("pointerup", finger);
}
"""


def test_two_fingers_zoom_about_their_middle(page):
    x, y = centre(vertex(page, "b:2,"))
    before = window(page)
    page.evaluate(FINGERS, [[[7, x - 50, y], [8, x + 50, y]], [[7, x - 100, y], [8, x + 100, y]]])
    after = window(page)
    assert after[2] == pytest.approx(before[2] / 2, rel=0.01)
    assert centre(vertex(page, "b:2,")) == pytest.approx((x, y), abs=HALF)


def test_a_whole_drawing_stays_whole_when_the_window_changes(page):
    page.set_viewport_size({"width": 900, "height": 600})
    window(page)
    stage = page.locator(".stage").bounding_box()
    x, _ = centre(vertex(page, "head:1"))
    assert x < stage["x"] + stage["width"]
    page.keyboard.press("+")
    closer = window(page)
    page.set_viewport_size({"width": 1000, "height": 600})
    now = window(page)
    assert now[:2] == pytest.approx(closer[:2], abs=HALF)
    assert now[2] / closer[2] == pytest.approx(1000 / 900, rel=0.01)


def test_samples_of_widths_grow_with_the_lines(page):
    if page.locator(".legend").is_hidden():
        page.get_by_role("button", name="Legend").click()
    sample = page.locator(".legend .key path").first
    drawn = "el => el.getAttribute('stroke-width') * el.getScreenCTM().a"
    seen, width = window(page)[2], sample.evaluate(drawn)
    page.get_by_role("button", name="Zoom in").click()
    closer = window(page)[2]
    assert sample.evaluate(drawn) / width == pytest.approx(seen / closer, rel=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_downwards_only(drawn, visit, tmp_path, scheme):
    file = tmp_path / "circuit.html"
    file.write_text(drawn.html())
    phone = visit(file, color_scheme=scheme, has_touch=True)
    phone.set_viewport_size({"width": 390, "height": 800})
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not phone.evaluate(wide)
    vertex(phone, "b:2,").tap()
    assert not phone.evaluate(wide)
    panel, stage = phone.locator(".panel").bounding_box(), phone.locator(".stage").bounding_box()
    assert panel["width"] == stage["width"]
    assert panel["y"] > stage["y"] + 0.3 * stage["height"]
    window(phone)
    assert centre(vertex(phone, "b:2,"))[1] < panel["y"]
    assert phone.locator(".tip").is_hidden()


def test_the_whole_drawing_stands_above_the_panel_of_a_narrow_page(page):
    page.set_viewport_size({"width": 390, "height": 800})
    window(page)
    for _ in range(4):  # to the target, at the very edge
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    window(page)
    panel = page.locator(".panel").bounding_box()
    for box in (mark.bounding_box() for mark in page.locator(".picture .vertex").all()):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= panel["y"]
