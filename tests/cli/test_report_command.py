"""``viscircuits report`` on a real study: one page that stands alone and tells the study's own numbers."""

import re
import shutil

import polars as pl
import pytest

from cli.studies import TARGETS, small_study
from viscircuits.study.chosen import chosen, measured


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
    assert "http" not in page.replace("http-equiv", "")
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


def test_every_diagram_of_the_page_answers_alone(study, page, visit):
    opened = visit(study.path / "report.html")
    first, second = (opened.locator(".diagram").nth(n) for n in (0, 1))
    before = [one.locator(".vertex").last.bounding_box()["width"] for one in (first, second)]
    second.locator('[name="feature"]').fill("2")
    after = [one.locator(".vertex").last.bounding_box()["width"] for one in (first, second)]
    assert after == pytest.approx([before[0], 2 * before[1]], rel=0.02)
    second.locator(".vertex").last.click()
    assert (first.locator("svg.isolated").count(), second.locator("svg.isolated").count()) == (0, 1)
    assert second.locator(".vertex.lit").count() > 1
    assert first.locator(".vertex.lit").count() == 0
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not opened.evaluate(wide)
    opened.emulate_media(media="print")
    assert not opened.evaluate(wide)


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
