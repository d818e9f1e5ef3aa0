"""``viscircuits diagram`` on a real study: which circuit, what it writes, how it goes on, what it refuses."""

import shutil
import sys
import time

import pytest

from cli.studies import small_study
from viscircuits.cli.opened import held_out
from viscircuits.diagram.chosen import chosen, measured, scores_of
from viscircuits.model import zoo
from viscircuits.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["viscircuits", "made"])
        return small_study(tmp_path_factory.mktemp("small") / "study")


def test_it_draws_the_smallest_circuit_that_keeps_enough(study, command_line):
    rows = measured(study)
    keep = sorted(row["pearson"] for row in rows)[0]
    status, out, _ = command_line("diagram", study.path, "--keep", keep, "--pictures", "none")
    assert status == 0
    density = min(row["density"] for row in rows if row["pearson"] >= keep)
    names = [f"features.3-7__actgrad__{density:g}.{ending}" for ending in ("svg", "png", "html")]
    assert [line.rpartition("/")[2] for line in out.split()] == names
    svg = (study.path / "diagrams" / names[0]).read_text()
    row = next(row for row in rows if row["density"] == density)
    assert f"{row['kept']:,} of {row['relevant']:,} relevant kernels kept" in svg
    within = f"{row['pearson_within']:.3f} within positions"
    assert f"|r| = {row['pearson']:.3f}, {within}, on 12 images" in svg  # on the very pictures


def test_ranks_make_no_widths(study):
    """What a learned circuit keeps has nearly the same rank; the scores of another criterion tell it apart."""
    row = measured(study)[0]
    assert row["criterion"] == "actgrad"
    opened = Study.open(study.path)
    own = scores_of(opened, row)
    other = scores_of(opened, row | {"criterion": "learned,steps=5"})
    assert own is not None
    assert other is not None
    assert own.criterion == other.criterion == "actgrad"
    control = scores_of(opened, row | {"criterion": "random"})
    assert control is not None
    assert control.criterion == "random"


def test_again_is_the_same_and_takes_its_pictures_from_the_cache(study, command_line, tmp_path):
    asked = ("diagram", study.path, "-t", "features.6:7", "-d", 0.08, "--theme", "dark", "-o")
    assert command_line(*asked, tmp_path / "one")[0] == 0
    kept = sorted((study.path / "pictures" / "cache").iterdir())
    assert kept
    before, stamps = time.monotonic(), [file.stat().st_mtime_ns for file in kept]
    assert command_line(*asked, tmp_path / "two")[0] == 0
    assert time.monotonic() - before < 20
    assert [file.stat().st_mtime_ns for file in sorted((study.path / "pictures" / "cache").iterdir())] == stamps
    for ending in (".svg", ".png", ".html"):
        assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()
    shutil.rmtree(study.path / "pictures" / "cache")
    assert command_line(*asked, tmp_path / "anew")[0] == 0
    text = (tmp_path / "one.svg").read_text()
    assert (tmp_path / "anew.svg").read_text() == text
    assert text.count("data:image/jpeg") >= 4
    assert "#15181c" in text


def test_crops_need_no_rendering(study, command_line, tmp_path):
    asked = ("diagram", study.path, "-t", "features.6:7", "-d", 0.08, "--pictures", "crops", "-o", tmp_path / "crops")
    assert command_line(*asked)[0] == 0
    assert (tmp_path / "crops.svg").read_text().count("data:image/jpeg") >= 4


def test_the_study_without_its_pictures(study, command_line, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(study.path, copy)
    header = copy / "study.json"
    header.write_text(header.read_text().replace("generate(24, seed=5)", "generate(24, seed=6)"))
    status, out, _ = command_line("diagram", copy, "--pictures", "none")
    assert status == 0
    assert "without inset" in out
    status, _, err = command_line("diagram", copy, "--pictures", "crops")
    assert (status, "crops are cut out of images" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("-t", "features.3:8"), "the study has no target 'features.3:8'; it has 'features.3:7', 'features.6:7'"),
        (("-c", "snip"), "the study has no criterion 'snip'; it has 'actgrad', 'random'"),
        (("-d", "0.2"), "the study has no density 0.2; it has 0.3, 0.08"),
    ],
)
def test_what_is_not_there_is_named(study, command_line, arguments, text):
    status, _, err = command_line("diagram", study.path, *arguments)
    assert (status, err.strip()) == (1, f"error: {text}")


def test_none_keeps_enough_then_the_best():
    rows = [{"density": 0.5, "pearson": 0.6}, {"density": 0.2, "pearson": 0.7}, {"density": 0.1, "pearson": 0.1}]
    assert chosen(rows)["density"] == 0.2
    assert chosen(rows, keep=0.6)["density"] == 0.2
    assert chosen(rows, keep=0.05)["density"] == 0.1
    assert chosen(rows, density=0.5)["density"] == 0.5


def test_held_out_pictures_are_made_again_or_refused(study):
    spec = study.header.spec
    found = held_out(spec, zoo.load("shapesnet").prepare)
    assert found is not None
    assert (found.hash, len(found)) == (spec.held_out.hash, 12)
    other = spec.model_copy(update={"held_out": spec.held_out.model_copy(update={"hash": "0" * 16})})
    assert held_out(other, zoo.load("shapesnet").prepare) is None
