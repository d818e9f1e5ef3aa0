"""``attach`` for hosts of their own: several diagrams on one page, ES modules, a policy without inline styles."""

import functools
import http.server
import json
import re
import threading
from importlib import resources

import pytest

from diagram.test_page import vertex
from diagram.test_page_zoom import window
from viscircuits.canvas.markup import joined
from viscircuits.canvas.page import inlined, template, write_page


@pytest.fixture
def both(drawn, visit, tmp_path):
    (tmp_path / "two.html").write_text(write_page("two", joined([drawn.part(), drawn.part()])))
    return visit(tmp_path / "two.html")


def test_two_diagrams_do_not_disturb_one_another(both):
    first, second = (both.locator(".diagram").nth(n) for n in (0, 1))
    view = "el => el.querySelector('.picture > svg').getAttribute('viewBox')"
    before = first.evaluate(view)
    vertex(second, "b:2,").click()
    assert (first.locator(".lit").count(), first.locator(".panel").is_visible()) == (0, False)
    assert second.locator(".panel").is_visible()
    both.keyboard.press("+")
    window_of(both)
    assert first.evaluate(view) == before
    assert second.evaluate(view) != before
    vertex(first, "c:1,").click()
    assert second.locator(".panel .name").inner_text() == "b:2"
    both.keyboard.press("Escape")
    assert first.locator(".panel").is_hidden()
    assert second.locator(".panel").is_visible()
    vertex(first, "c:1,").hover()
    assert first.locator(".tip").is_visible()
    assert second.locator(".tip").is_hidden()


def window_of(page) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_a_wheel_is_the_pages_until_a_diagram_was_clicked(both):
    first = both.locator(".diagram").first
    stage = first.locator(".stage").bounding_box()
    view = "el => el.querySelector('.picture > svg').getAttribute('viewBox')"
    before = first.evaluate(view)
    both.mouse.move(stage["x"] + 200, stage["y"] + 100)
    both.mouse.wheel(0, 120)
    for _ in range(50):
        window_of(both)
        if both.evaluate("scrollY"):
            break
    assert both.evaluate("scrollY") > 0
    assert first.evaluate(view) == before
    both.evaluate("scrollTo(0, 0)")
    both.mouse.click(stage["x"] + 6, stage["y"] + stage["height"] - 60)
    both.mouse.wheel(0, -120)
    window_of(both)
    assert first.evaluate(view) != before
    assert both.evaluate("scrollY") == 0


def test_markup_has_no_styles_and_no_names_twice(drawn):
    page = write_page("two", joined([drawn.part(), drawn.part()]))
    body = page.split("</style>")[1].split("<script>")[0]
    assert not re.search(r"<[^>]*\sstyle=", body)
    assert not re.search(r'\sid="(?!theme")', body)
    assert body.count('id="theme"') == 1


def test_elements_that_the_script_makes_have_no_names_twice(both):
    vertex(both.locator(".diagram").nth(1), "b:2,").click()
    ids = both.evaluate("[...document.querySelectorAll('[id]')].map(el => el.id)")
    assert ids == ["theme"]
    assert not both.evaluate("[...document.querySelectorAll('[style]')].some(el => el.closest('svg g'))")


def test_modules_are_inlined_once_each():
    script = inlined("page")
    names = [file.name[:-3] for file in resources.files("viscircuits.canvas").joinpath("script").iterdir()]
    assert sorted(re.findall(r"^const module_(\w+) = ", script, re.MULTILINE)) == sorted(names)
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)


@pytest.fixture
def host(drawn, tmp_path):
    """A page of somebody else: modules and style sheets from a server, no inline style, no inline script."""
    folder = resources.files("viscircuits.canvas")
    for file in folder.joinpath("script").iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "page.css").write_text(template("page.css"))
    html = str(drawn.part())
    (tmp_path / "host.js").write_text(
        'import { attach } from "./attach.js";\n'
        'const root = document.querySelector(".diagram");\n'
        "window.said = [];\n"
        'const data = JSON.parse(root.querySelector(".data").textContent);\n'
        "window.handle = attach(root, data, { onSelect: (id) => said.push(id) });\n"
    )
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:"
    (tmp_path / "index.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>host</title>'
        f'<link rel="stylesheet" href="page.css"></head><body><main>{html}</main>'
        f'<script type="module" src="host.js"></script></body></html>'
    )

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


def test_a_host_imports_the_modules_under_a_strict_policy(host, browser, drawn):
    page, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(host)
    page.wait_for_selector(".vertex[role]")
    b2 = next(v for v in drawn.content.vertices if v.name == "b:2")
    vertex(page, "b:2,").click()
    page.locator('[name="feature"]').fill("2")
    page.evaluate("handle.release()")
    page.evaluate(f"handle.select({json.dumps(b2.id)})")
    assert page.locator(".panel .name").inner_text() == "b:2"
    edge = next(e for e in drawn.content.edges if e.target == b2.id)
    page.evaluate(f"handle.select('{edge.source}>{edge.target}')")
    assert page.evaluate("said") == [b2.id, None, b2.id, f"{edge.source}>{edge.target}"]
    page.evaluate("handle.release(); handle.fit(); handle.detach()")
    before = window(page)
    vertex(page, "b:2,").click()
    page.keyboard.press("+")
    assert page.locator("svg.isolated").count() == 0
    assert window(page) == before
    page.close()
    assert wrong == []
