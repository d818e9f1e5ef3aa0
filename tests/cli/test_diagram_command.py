"""``viscircuits diagram`` on a real study: which circuit, what it writes, how it goes on, what it refuses."""

import base64
import html
import re
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from cli.studies import small_study
from viscircuits.data.shapes import generate
from viscircuits.model.zoo import zoo
from viscircuits.runs.opened import held_out
from viscircuits.study.chosen import chosen, circuit_of, measured, scores_of
from viscircuits.study.folder import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
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


def test_it_says_network_criterion_density_pictures(study, command_line, tmp_path):
    made = "viscircuits.data.shapes.generate(24, seed=5)"
    for asked, said in (
        ((), f"shapesnet, actgrad, density 8 %, measured on 12 pictures of {made}"),
        (("-c", "random", "-d", 0.3), f"shapesnet, random, density 30 %, measured on 12 pictures of {made}"),
        (
            ("--images", photos(tmp_path)),
            f"shapesnet, actgrad, density 8 %, measured on 3 pictures of {photos(tmp_path)}",
        ),
    ):
        assert command_line("diagram", study.path, *asked, "--pictures", "none", "-o", tmp_path / "d")[0] == 0
        assert html.unescape((tmp_path / "d.svg").read_text()).count(f">{said}</text>") == 1


def photos(folder: Path) -> Path:
    """Three pictures that the study does not know."""
    (folder / "photos").mkdir(exist_ok=True)
    for i, image in enumerate(generate(3, seed=9).images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "photos" / f"{i}.png")
    return folder / "photos"


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A study of four criteria, two of them controls, the best of which is not the first."""
    criteria = ("magnitude", "random", "snip", "snip:worst")
    return small_study(tmp_path_factory.mktemp("several") / "study", ("features.10:5",), criteria, (0.2, 0.1))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ((), "snip__0.1"),
        (("-d", "0.2"), "snip__0.2"),
        (("-c", "magnitude"), "magnitude__0.2"),
        (("-c", "random", "-d", "0.1"), "random__0.1"),
        (("-c", "snip:worst", "-d", "0.2"), "snip-worst__0.2"),
        (("--keep", "1"), "snip__0.2"),
    ],
)
def test_all_criteria_are_searched_but_no_controls(several, command_line, tmp_path, asked, name):
    status, out, _ = command_line("diagram", several.path, *asked, "--pictures", "none")
    assert status == 0
    files = [line.rpartition("/")[2] for line in out.split()]
    assert files == [f"features.10-5__{name}.{ending}" for ending in ("svg", "png", "html")]
    criterion, _, density = name.partition("__")
    said = f"shapesnet, {criterion.replace('-worst', ', worst first')}, density {100 * float(density):g} %, measured on"
    assert said in (several.path / "diagrams" / files[0]).read_text()


def test_the_circuit_of_a_control_is_its_own(several):
    rows = [chosen(measured(several, criterion=name), 0.2) for name in ("snip", "snip:worst")]
    best, worst = (circuit_of(several, row, zoo.load("shapesnet").model) for row in rows)
    assert best.mask.n_kept == worst.mask.n_kept
    assert (best.mask & worst.mask).n_kept < best.mask.n_kept
    assert [row["kept"] for row in rows] == [best.mask.n_kept] * 2


def test_a_report_tells_of_the_criterion_it_shows(several, command_line, tmp_path):
    """The headline, the diagram, what is left of every layer: all of one circuit."""
    assert command_line("report", several.path, "--pictures", "none", "-o", tmp_path)[0] == 0
    page = (tmp_path / "report.html").read_text()
    words = html.unescape(re.sub(r"<[^>]*>", "", page))
    row = chosen(measured(several))
    assert row["criterion"] == "snip"
    assert "No circuit" not in words
    assert f"(10 %), chosen by snip, keep it with |r| = {row['pearson']:.3f}" in words
    assert "shapesnet, snip, density 10 %, measured on 12 pictures of viscircuits.data.shapes.generate(24" in words
    assert "Effective kernels of snip's circuits" in words
    assert "Effective, of snip" in words
    circuit = circuit_of(several, row, zoo.load("shapesnet").model)
    last = f"{int(circuit.effective.kept['features.10'].sum())}"
    line = re.search(r'<th scope="row">features\.10</th>(.*?)</tr>', page)
    assert line is not None
    assert re.findall(r'class="bar"[^>]*>([^<]*)<', line[1])[-1] == last
    assert (
        command_line("report", several.path, "-c", "magnitude", "--pictures", "none", "--keep", 1, "-o", tmp_path)[0]
        == 0
    )
    words = re.sub(r"<[^>]*>", "", (tmp_path / "report.html").read_text())
    assert "No circuit of the study by magnitude keeps |r| ≥ 1. The best:" in words
    assert "snip, density" not in words


def test_pages_say_not_scored_on(several, command_line, tmp_path):
    assert command_line("report", several.path, "--pictures", "none", "-o", tmp_path)[0] == 0
    page = html.unescape((tmp_path / "report.html").read_text())
    curve = base64.b64decode(re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)[0]).decode()
    assert "that were not scored on" in curve
    assert "on 12 pictures that were not scored on" in page
    assert page.count("Pictures that were not scored on, by the ") == 2
    assert not re.search(r"unseen|held[- ]out", page + curve, flags=re.IGNORECASE)
    asked = ("--images", photos(tmp_path), "--pictures", "none", "-o", tmp_path)  # whether these were, nobody knows
    assert command_line("report", several.path, *asked)[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("Pictures, by the ") == 2
    assert f"measured on 3 pictures of {photos(tmp_path)}" in page


@pytest.mark.parametrize("command", ["diagram", "report"])
def test_the_help_says_which_circuit_is_shown(command_line, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "400")
    said = " ".join(command_line(command, "--help")[1].split())
    assert (
        "Of the circuits with |r| >= KEEP show the one of the smallest density, then the one with the larger |r|, "
        in said
    )
    assert "then the criterion asked first; where there is none, the one with the largest |r|" in said
    assert (
        "Search the circuits of this one alone, or of a control: random, NAME:worst. default: of all but controls"
        in said
    )
    assert "Show the circuit with the largest |r| of this density." in said


def test_ranks_make_no_widths(study):
    """What such a circuit keeps has nearly the same rank; the scores of another criterion tell it apart."""
    row = measured(study)[0]
    assert row["criterion"] == "actgrad"
    opened = Study.open(study.path)
    own = scores_of(opened, row)
    assert own is not None
    assert own.criterion == "actgrad"
    for ranks in ("learned,steps=5", "reconstruct", "reconstruct,rounds=3"):
        other = scores_of(opened, row | {"criterion": ranks})
        assert other is not None
        assert other.criterion == "actgrad"
    control = scores_of(opened, row | {"criterion": "random"})
    assert control is not None
    assert control.criterion == "random"


@pytest.mark.slow
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


def test_the_panel_shows_the_full_model_beside_the_circuit(study, command_line, tmp_path):
    asked = ("diagram", study.path, "-t", "features.6:7", "-d", 0.08, "--pictures", "crops", "-o")
    assert command_line(*asked, tmp_path / "circuit")[0] == 0
    assert command_line(*asked, tmp_path / "model", "--panel", "model")[0] == 0
    circuit, model = ((tmp_path / f"{name}.html").read_text().count('"original":') for name in ("circuit", "model"))
    assert circuit == 1  # the target's alone
    assert model > 3
    assert (tmp_path / "circuit.svg").read_text() == (tmp_path / "model.svg").read_text()


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
