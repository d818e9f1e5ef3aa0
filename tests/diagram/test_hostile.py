"""Studies of strangers on pages: what they say is text, and nothing of it runs, in a real browser and in a notebook."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from torch import nn

import viscircuits
from cli.studies import small_study
from diagram.test_page import whole
from viscircuits import zoo
from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.page import write_page
from viscircuits.data.images import ImageSet
from viscircuits.diagram.extended import diagram
from viscircuits.report.report import report
from viscircuits.study.folder import Study
from viscircuits.study.names import slug
from viscircuits.study.section import Section
from viscircuits.target import Target

ROOT = Path(viscircuits.__file__).parent
ATTACK = (
    "<script>pwned=1</script><img src=x onerror=pwned=1><svg onload=pwned=1></svg></style><script>pwned=1</script>"
    "</title><script>pwned=1</script></script><script>pwned=1</script><a href=javascript&colon;pwned=1 id=bait>x</a>"
    "\" onmouseover=\"pwned=1\" x='' onfocus='pwned=1' autofocus tabindex=1 ><!-- \x1b]0;x\x07"
)
"""Markup for text, for attributes in either quotes, for raw text."""

SHORT = "<script>pwned=1</script><img src=x onerror=pwned=1>"
"""For what is drawn too."""

FILE = "\"><img src=x onerror=pwned=1><a title='.png"


def raw(page: str) -> list[str]:
    """Whatever of the attack is markup in a page."""
    attributes = r"<\w(?:[^>\"']|\"[^\"]*\"|'[^']*')*\son\w+="
    return re.findall(rf"<script>pwned|<img src=x|<svg onload|{attributes}", page)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A study with markup wherever its files take text."""
    folder = tmp_path_factory.mktemp("hostile") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["viscircuits", "extract"])
        made = small_study(folder, ("features.3:7",), ("magnitude",), (0.3,))
    header = json.loads((folder / "study.json").read_text())
    header |= dict.fromkeys(("viscircuits", "torch", "created", "command", "engine"), ATTACK)
    header["spec"] |= {"model": ATTACK, "weights": ATTACK, "criteria": [SHORT]}
    for name in ("scoring", "held_out"):
        header["spec"][name]["source"] = ATTACK
    for row in made.measurements().to_dicts():
        density = f"{row['density']:.12g}"
        mine, theirs = (f"{slug(row['target'], one, density)}.safetensors" for one in ("magnitude", SHORT))
        (folder / "circuits" / mine).rename(folder / "circuits" / theirs)
    texts = {name: pl.lit(SHORT) for name in ("criterion",)}
    pl.read_parquet(made.measurements_path).with_columns(**texts).write_parquet(made.measurements_path)
    (folder / "study.json").write_text(json.dumps(header))
    hostile_findings(folder / "findings")
    return Study.open(folder)


def hostile_findings(folder: Path) -> None:
    """One section of data, two of HTML, one of them in a folder whose name is markup."""
    for name in ("lies", "old", FILE):
        (folder / name).mkdir(parents=True)
        said = {"command": f"viscircuits top '{ATTACK.translate({39: None})}'", "created": ATTACK}
        (folder / name / "findings.json").write_text(json.dumps(said))
        (folder / name / "section.html").write_text(f"<article>{ATTACK}</article>")
    Image.new("RGB", (4, 4), "red").save(folder / "lies" / "a.png")
    said = Section(ATTACK, ATTACK, ATTACK, {ATTACK: "a.png"}, [(ATTACK, [ATTACK], [[ATTACK]])], {ATTACK: ATTACK})
    said.save(folder / "lies")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    """Pictures whose names are markup."""
    folder = tmp_path_factory.mktemp("pictures")
    files = [folder / f"{i}{FILE}" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    return ImageSet.from_files(files, zoo.load("shapesnet").prepare)


@pytest.fixture(scope="module")
def written(study, images, shapesnet):
    return report(study, shapesnet, images=images, source=ATTACK, pictures="crops")


def test_markup_of_a_study_is_text_on_its_page(written):
    assert raw(written.html) == []
    assert written.html.count("&lt;script&gt;pwned=1&lt;/script&gt;") > 50
    assert written.html.count("<script>") == written.html.count("</script>") == 1
    assert written.html.count("left-out") == 2
    assert "\x1b" not in written.html
    for drawn in written.diagrams.values():
        assert raw(drawn.html()) == []
        assert raw(drawn.svg()) == []


def test_nothing_of_a_study_runs(written, tmp_path, visit):
    """Its page and its diagram's, hovered and clicked; our own script works there."""
    folder = written.save(tmp_path)[0].parent
    for file in (folder / "report.html", *folder.glob("diagrams/*.html")):
        page = visit(file)
        check_works(page)
        assert page.locator("#bait, [onmouseover], [onerror], [onload]").count() == 0


def check_works(frame) -> None:
    """Our script runs (names are told, paths isolated, themes changed), and nobody else's did."""
    vertex = frame.locator(".vertex").last
    vertex.hover()
    assert frame.locator(".tip:visible").inner_text()
    vertex.click()
    assert frame.locator("svg.isolated").count() == 1
    frame.locator("#theme").click()
    assert frame.locator("#theme").inner_text() == "Theme: light"
    assert frame.evaluate("typeof pwned") == "undefined"


def test_a_page_in_a_notebook_runs_without_the_notebooks_rights(written, tmp_path, visit):
    for name, shown in {"report": written, "diagram": next(iter(written.diagrams.values()))}.items():
        file = tmp_path / f"{name}.html"
        file.write_text(f'<!doctype html><meta charset="utf-8"><title>notebook</title>{shown._repr_html_()}')
        frame = visit(file).frames[1]
        frame.wait_for_selector(".diagram svg")
        check_works(frame)
        assert frame.evaluate("origin") == "null"
        reach = "(() => { try { return parent.document.title } catch (error) { return error.name } })()"
        assert frame.evaluate(reach) == "SecurityError"


def test_what_slips_into_a_page_does_not_run(browser, tmp_path):
    """The page's policy alone: markup put in by hand, as a slip of ours would."""
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    form = "<form action=https://example.org><button id=send>go</button></form>"
    (tmp_path / "page.html").write_text(write_page("page", Html(f"<p>{ATTACK}--></p>{form}")))
    page.goto((tmp_path / "page.html").as_uri())
    for name in ("#bait", "#send"):
        page.locator(name).dispatch_event("click")
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate("document.getElementById('theme').textContent") == "Theme: light"
    assert page.evaluate("typeof pwned") == "undefined"
    refused = [text for text in said if "Content Security Policy" in text]
    assert len(refused) > 6
    page.close()


class Named(nn.Module):
    """A network with a module whose name is markup."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module(SHORT, nn.Conv2d(3, 4, 3))
        self.add_module("head", nn.Conv2d(4, 2, 3))

    def forward(self, x):
        return self.head(self.get_submodule(SHORT)(x).relu())


def test_markup_in_names_of_layers_is_text():
    drawn = diagram(whole(Named().eval(), Target("head", 1), (3, 12, 12)), pictures="none", title=ATTACK, about=ATTACK)
    for text in (drawn.html(), drawn.svg()):
        assert raw(text) == []
        assert "&lt;script&gt;pwned" in text


def test_text_is_escaped_wherever_it_is_put_in():
    bold = element("b", "<i>", title='"<')
    assert bold == '<b title="&quot;&lt;">&lt;i&gt;</b>'
    assert joined([bold, "&"], "<") == f"{bold}&lt;&amp;"
    for text in (f"{bold}", bold + "", "".join([bold]), bold.replace("i", "j"), bold[:]):
        assert element("p", text).startswith("<p>&lt;b"), "what methods of str make of markup is text"


def test_markup_is_made_in_three_files_alone():
    makers = {file.name for file in ROOT.rglob("*.py") if re.search(r"\bHtml\(", file.read_text())}
    assert makers == {"markup.py", "svg.py", "page.py"}
