"""``viscircuits report`` on a real study: one page that stands alone and tells the study's own numbers."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from cli.studies import TARGETS, retold, small_study
from viscircuits.data.images import ImageSet
from viscircuits.data.shapes import generate
from viscircuits.evaluate.inside import inside, layers
from viscircuits.model.zoo import zoo
from viscircuits.study.chosen import chosen, circuit_of, measured


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small") / "study", command="viscircuits extract 'a <b> & c'")


@pytest.fixture
def page(study, command_line) -> str:
    status, out, _ = command_line("report", study.path, "--pictures", "crops")
    assert status == 0
    assert out.split()[0].endswith("report.html")
    assert len(out.split()) == 1 + 3 * len(TARGETS)
    return (study.path / "report.html").read_text()


def test_the_page(study, page, command_line):
    stands_alone(page)
    tells_its_numbers(study, page)
    assert command_line("report", study.path, "--pictures", "crops")[0] == 0  # with all pictures in the cache
    assert (study.path / "report.html").read_text() == page


def stands_alone(page: str) -> None:
    for name in ("http-equiv", '"http://www.w3.org/2000/svg"'):  # the second is a name too, and no address
        page = page.replace(name, "")
    assert "http" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert not re.search(r"/\*[A-Z]+\*/|@[A-Z]+@", page)
    assert page.count("<script>") == page.count("</script>") == 1
    ids = re.findall(r'<[^>]*\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)


def tells_its_numbers(study, page: str) -> None:
    for target in TARGETS:
        row = chosen(measured(study, target))
        assert f"<b>{row['kept']:,} of {row['relevant']:,} relevant kernels</b>" in page
        assert f"|r| = {row['pearson']:.3f}" in page
    for value in study.measurements()["pearson"]:
        assert f"{value:.3f}" in page or value == 0
    assert "within" not in page.split("The circuit</h3>")[0].split("</style>")[1]
    assert page.count('class="diagram"') == len(TARGETS)
    assert page.count("What excites it least") == page.count("What it looks for") == len(TARGETS)
    assert "a &lt;b&gt; &amp; c" in page
    assert study.header.spec.fingerprint in page
    assert page.count("Agreement inside</h3>") == len(TARGETS)
    for target in TARGETS:
        circuit = circuit_of(study, chosen(measured(study, target)), zoo.load("shapesnet").model)
        for row in layers(inside(circuit, held_out())).to_dicts():
            cells = (
                rf">{re.escape(row['layer'])}</th><td>{row['filters']}</td><td><span[^>]*>{row['within']:.2f}</span>"
            )
            assert re.search(cells, page), (target, row)


def held_out() -> ImageSet:
    """The pictures that the study was measured on."""
    drawn = generate(24, seed=5)
    images = ImageSet.from_tensors(zoo.load("shapesnet").prepare(drawn.images), drawn.labels.tolist())
    return images.split(0.5, seed=0)[1]


def test_every_diagram_of_the_page_answers_alone(study, page, visit):
    opened = visit(study.path / "report.html")
    first, second = (opened.locator(".diagram").nth(n) for n in (0, 1))
    # in units of the drawing: columns move apart, and the whole is made to fit
    size = "el => el.getBoundingClientRect().width / el.ownerSVGElement.getScreenCTM().a"
    before = [one.locator(".vertex").last.evaluate(size) for one in (first, second)]
    second.locator('[name="feature"]').fill("2")
    opened.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = [one.locator(".vertex").last.evaluate(size) for one in (first, second)]
    assert after[0] == pytest.approx(before[0], rel=0.02)
    assert after[1] > 1.5 * before[1]
    second.locator(".vertex").last.click()
    assert (first.locator("svg.isolated").count(), second.locator("svg.isolated").count()) == (0, 1)
    assert second.locator(".vertex.lit").count() > 1
    assert first.locator(".vertex.lit").count() == 0
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not opened.evaluate(wide)
    opened.emulate_media(media="print")
    assert not opened.evaluate(wide)


def test_contents_lead_to_every_chapter(study, page, visit):
    opened = visit(study.path / "report.html")
    links = opened.locator("nav a")
    assert links.all_text_contents() == [*TARGETS, "Again"]
    for link in links.all():
        link.click()
        place = opened.locator(link.get_attribute("href").replace(":", "\\:").replace(".", "\\.")).bounding_box()
        at_end = "innerHeight + scrollY >= document.documentElement.scrollHeight - 2"
        assert place["y"] < 100 or opened.evaluate(at_end)  # the last one cannot go farther up than the page ends
    assert opened.evaluate("scrollY") > 1000


@pytest.fixture(scope="module")
def wide(study, tmp_path_factory) -> Path:
    """The page of one target, whose table has thirteen densities and nine criteria."""
    folder = tmp_path_factory.mktemp("wide") / "study"

    def more(table: pl.DataFrame) -> pl.DataFrame:
        table = table.filter(target=TARGETS[0], criterion="actgrad")
        shown = table.filter(pl.col("density") == table["density"].max())
        others = [
            shown.with_columns(
                pl.lit(f"criterion {number}").alias("criterion"), pl.lit(0.9 - place / 20).alias("density")
            )
            for number in range(8)
            for place in range(13)
        ]
        return pl.concat([table, *others])

    return retold(study, folder, more).path


def test_a_report_of_one_target_has_contents_too(wide, command_line, visit):
    assert command_line("report", wide, "--pictures", "none", "-c", "actgrad", "-o", wide / "out")[0] == 0
    opened = visit(wide / "out" / "report.html")
    assert opened.locator("nav > details > ol > li > a").all_text_contents() == [TARGETS[0], "Again"]
    parts = opened.locator("nav li li a")
    assert parts.all_text_contents() == opened.locator("article > h3[id]").all_text_contents()
    assert parts.count() > 3
    parts.nth(2).click()
    assert abs(opened.locator("h3", has_text="The circuit").bounding_box()["y"]) < 60
    shows_its_whole_table(opened)
    for width in (390, 1280):
        opened.set_viewport_size({"width": width, "height": 844})
        assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = """[...document.querySelectorAll('table, .plot')].filter(e => {
            const box = e.parentElement.getBoundingClientRect(); return box.right > innerWidth || box.left < 0; })"""
        assert not opened.evaluate(outside)
    # letters of the curve on a phone, of ten points where it is drawn
    opened.set_viewport_size({"width": 390, "height": 844})
    assert opened.locator("img.plot").bounding_box()["height"] / 4.3 * 10 / 72 > 9
    stands_alone((wide / "out" / "report.html").read_text())


def shows_its_whole_table(opened) -> None:
    """On a wide screen, where it has room, none of it is hidden."""
    opened.set_viewport_size({"width": 1280, "height": 844})
    assert opened.evaluate("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.beside .wide'))")


def test_every_note_stands_under_its_heading(study, page, visit):
    opened = visit(study.path / "report.html")
    follows = "[...document.querySelectorAll('h3')].map(h => [h.textContent, h.nextElementSibling.className])"
    after = dict(opened.evaluate(follows))
    assert after["What excites it most"] == after["What excites it least"] == after["What it looks for"] == "note"


def test_a_demo_of_several_targets_has_a_chapter_for_each(command_line, tmp_path):
    asked = [part for target in TARGETS for part in ("--target", target)]
    assert command_line("demo", *asked, "--pictures", 20, "-o", tmp_path / "demo")[0] == 0
    assert command_line("report", tmp_path / "demo", "--pictures", "none")[0] == 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert re.findall(r'<article id="target-[^"]*"><h2>([^<]*)</h2>', page) == list(TARGETS)


def test_without_pictures_it_says_what_is_missing(study, command_line, tmp_path):
    (tmp_path / "study.json").write_text(
        (study.path / "study.json").read_text().replace("generate(24, seed=5)", "generate(24, seed=6)")
    )
    for name in ("circuits", "scores"):
        shutil.copytree(study.path / name, tmp_path / name)
    share = study.measurements().with_columns(pearson_within=pl.col("pearson") * 0.4)
    share.write_parquet(tmp_path / "measurements.parquet")
    status, out, _ = command_line("report", tmp_path, "--pictures", "none", "--keep", 0.5, "-o", tmp_path / "out")
    assert status == 0
    assert "some parts are left out" in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "are not at hand, so none are shown" in page
    assert "What excites it most" not in page
    assert f"\nviscircuits report {tmp_path} --keep 0.5 --pictures none</pre>" in page
    assert "What it looks for" not in page
    # r within positions is told where it is another number
    assert page.count("|r| = 1.000</span></b> (0.400 within positions)") == len(TARGETS)
    assert page.count('<th scope="col">within</th>') == len(TARGETS)
    assert page.count("<td>0.400</td>") == 4
