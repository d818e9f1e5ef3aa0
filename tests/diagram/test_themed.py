"""Figures on pages: dark in dark pages, photographs as they are, light on paper; older sheets as they are."""

import base64
import io
import json
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from diagram.test_curve import rows
from diagram.test_style import heat_map
from viscircuits.canvas.palette import PALETTES
from viscircuits.evaluate.table import table
from viscircuits.plots.curve import preservation_curve
from viscircuits.plots.plate import Plate, Strip
from viscircuits.plots.sheets import contact_sheet
from viscircuits.plots.themed import _channels, _contrast, darkened
from viscircuits.report.findings import write_findings
from viscircuits.study.section import Section

PAPER = {theme: tuple(bytes.fromhex(PALETTES[theme].paper[1:])) for theme in ("light", "dark")}
PHOTOGRAPH = (200, 60, 40)


def photographs(count: int) -> list[np.ndarray]:
    """Pictures of one colour with noise, which PNG does not make small."""
    noise = np.random.default_rng(0).normal(scale=0.06, size=(count, 3, 64, 64))
    return [*(np.reshape(PHOTOGRAPH, (3, 1, 1)) / 255 + noise).clip(0, 1)]


def sheet(channels: int = 2) -> Plate:
    strips = [Strip(f"a:{channel}", "3 to 2", photographs(6)) for channel in range(channels)]
    return contact_sheet(strips, "a: what excites them most", "note")


def page(study: Path, pictures: dict[str, str], tables=()) -> Path:
    """The page of a study with one section, whose pictures lie in its folder."""
    folder = study / "findings" / "a"
    Section("title", "lead", pictures=pictures, tables=tables).save(folder)
    (folder / "findings.json").write_text(json.dumps({"created": "2026", "command": "viscircuits top"}))
    return write_findings(study)


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "findings" / "a"
    path.mkdir(parents=True)
    return path


def drawn(element) -> Image.Image:
    return Image.open(io.BytesIO(element.screenshot(animations="disabled"))).convert("RGB")


def photograph(image: Image.Image) -> np.ndarray:
    """The mean colour of the first photograph of a sheet, whatever its scale."""
    width, height = image.size
    x, y = 0.7 / 11.16 * width, 1.55 / 2.2 * height
    return np.asarray(image.crop((int(x) - 15, int(y) - 15, int(x) + 15, int(y) + 15)), float).mean((0, 1))


@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("button", ["auto", "light", "dark"])
def test_a_sheet_is_as_dark_as_its_page_and_its_photographs_stay(folder, tmp_path, visit, system, button):
    shown = sheet(2).publish(folder / "a.jpg")
    opened = visit(page(tmp_path, {"sheet": shown.name}), color_scheme=system)
    for _ in range(["auto", "light", "dark"].index(button)):
        opened.click("#theme")
    image = drawn(opened.locator("img.plate"))
    theme = system if button == "auto" else button
    assert np.abs(np.subtract(image.getpixel((image.width // 2, 6)), PAPER[theme])).max() <= 2
    assert np.abs(photograph(image) - PHOTOGRAPH).max() < 12
    opened.emulate_media(media="print", color_scheme="dark")
    assert drawn(opened.locator("img.plate")).getpixel((60, 6)) == (255, 255, 255)


def test_maps_of_numbers_and_curves_are_dark_in_dark_pages(folder, tmp_path, visit):
    names = [
        preservation_curve(table(rows())).publish(folder / "curve").name,
        heat_map(1).publish(folder / "heat").name,
    ]
    opened = visit(page(tmp_path, dict(zip("ab", names, strict=True))), color_scheme="dark")
    for place in range(2):
        image = np.asarray(drawn(opened.locator("img.plate").nth(place)), float).mean(2)
        assert np.median(image) < 40
        assert (image > 235).mean() < 0.01  # no ground that was forgotten, such as the middle of a map's colours
        assert image.max() > 150  # its letters


def test_sheets_of_older_studies_are_shown_as_they_are(folder, tmp_path, visit):
    sheet().save(folder / "a.jpg")
    opened = visit(page(tmp_path, {"sheet": "a.jpg"}), color_scheme="dark")
    assert drawn(opened.locator("img.plate")).getpixel((60, 6)) == (255, 255, 255)


def test_sheets_for_both_themes_take_little_more_than_one(folder, tmp_path):
    plate = sheet(12)
    small = plate.save(folder / "small.jpg").name
    before = page(tmp_path, {"sheet": small}).stat().st_size
    after = page(tmp_path, {"sheet": plate.publish(folder / "a.jpg").name}).stat().st_size
    assert (folder / "a.jpg").read_bytes() == (folder / small).read_bytes()
    assert after < 1.5 * before


def test_pages_with_sheets_name_no_address(folder, tmp_path):
    text = page(tmp_path, {"sheet": sheet().publish(folder / "a.jpg").name}).read_text()
    (address,) = re.findall(r'<img class="plate" src="([^"]*)"', text)
    assert "http" not in address
    assert unquote(address).count("http://www.w3.org/2000/svg") == 1


def test_photographs_are_jpeg_and_maps_of_numbers_are_not(tmp_path):
    document = sheet().themed()
    kinds = re.findall(r'href="data:image/(\w+);base64,([^"]*)"', document)
    assert [kind for kind, _ in kinds] == ["jpeg"] * 12
    with Image.open(io.BytesIO(base64.b64decode(kinds[0][1]))) as image:
        assert np.abs(np.asarray(image, float).mean((0, 1)) - PHOTOGRAPH).max() < 8


def test_what_is_saved_or_shown_elsewhere_has_no_rules_for_our_pages(tmp_path):
    curve = preservation_curve(table(rows()))
    assert "prefers-color-scheme" in curve.themed()
    assert "prefers-color-scheme" not in curve._repr_svg_()
    assert "prefers-color-scheme" not in curve.save(tmp_path / "curve")[1].read_text()
    assert preservation_curve(table(rows())).themed() == preservation_curve(table(rows())).themed()


@pytest.mark.parametrize("colour", ["#332288", "#0072b2", "#d55e00", "#e69f00", "#00734f", "#1b1f24", "#5c6570"])
def test_letters_can_be_read_on_dark_paper(colour):
    assert _contrast(_channels(darkened(colour)), _channels(PALETTES["dark"].paper)) >= 4.5


def test_white_is_the_papers_colour():
    assert darkened("#ffffff") == PALETTES["dark"].paper


@pytest.mark.parametrize("width", [390, 1280])
def test_wide_sheets_and_tables_scroll_in_boxes_of_their_own(folder, tmp_path, visit, width):
    shown = sheet(12).publish(folder / "a.jpg")
    heads = [f"a long column {i}" for i in range(30)]
    wide = [("Layers", heads, [["features.0.with.a.name." * 5, *["1,234"] * 29]])]
    opened = visit(page(tmp_path, {"sheet": shown.name}, wide))
    opened.set_viewport_size({"width": width, "height": 844})
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    scrolls = "(name) => { const e = document.querySelector(name); return e.scrollWidth > e.clientWidth; }"
    assert opened.evaluate(scrolls, ".wide")
    # shrunk to a phone's screen its letters could not be read
    assert opened.evaluate(scrolls, ".sheet") == (width == 390)
    letters = opened.locator("img.plate").bounding_box()["height"] / sheet(12).height
    assert letters * 8 / 72 > 8  # pixels of its smallest letters, of 8 points
    # and all of it is on paper
    opened.emulate_media(media="print")
    assert opened.evaluate("getComputedStyle(document.querySelector('.sheet')).overflowX") == "visible"


def test_a_page_of_one_section_has_contents_that_lead_there(folder, tmp_path, visit):
    shown = sheet(12).publish(folder / "a.jpg")
    opened = visit(page(tmp_path, {"sheet": shown.name}, [("t", ["x"], [["y"]] * 60)]))
    links = opened.locator("nav a")
    assert links.all_text_contents() == ["title"]
    links.first.click()
    assert abs(opened.locator("h2").bounding_box()["y"]) < 60
    assert opened.evaluate("scrollY") > 0
