"""Names and links in the folders of others: nothing is read or written outside of them."""

import os
import re
from pathlib import Path

import pytest
import torch

import viscircuits as vc
from viscircuits import store
from viscircuits.diagram.extended import Diagram
from viscircuits.errors import StudyError
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.model.fingerprint import fingerprint
from viscircuits.optvis.cache import Cache
from viscircuits.optvis.rendering import Picture
from viscircuits.report.report import Report
from viscircuits.study.chosen import scores_of
from viscircuits.study.findings import Findings
from viscircuits.study.folder import Study
from viscircuits.study.names import slug
from viscircuits.study.spec import Pictures, Spec

ASKED = {"model": "shapesnet", "fingerprint": "0"}


@pytest.fixture
def study(tmp_path, shapesnet, shapes):
    """A study with circuits, scores and measurements of two targets, in a folder beside that of somebody else."""
    return made(tmp_path / "study", shapesnet, shapes, "magnitude")


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


def made(folder: Path, model, shapes, criterion: str) -> Study:
    targets = [vc.Target(layer, 7) for layer in ("features.3", "features.6")]
    scoring, held_out = (Pictures.of(images, "here") for images in shapes)
    spec = Spec(
        model="shapesnet", weights=None, fingerprint=fingerprint(model), input_shape=(3, 64, 64),
        targets=tuple(map(str, targets)), scoring=scoring, held_out=held_out, criteria=(criterion,), densities=(0.1,),
    )  # fmt: skip
    study = Study.create(folder, spec)
    for target in targets:
        scores = vc.score(model, target, shapes[0], "magnitude")
        study.add_scores(scores)
        study.add_circuit(vc.Circuit(model, target, scores.select(density=0.1)), criterion, 0.1)
    sweep(Sweep(model, targets, *shapes, ["magnitude"], [0.1]), study.measurements_path)
    return study


def moved(study: Study, name: str, outside: Path) -> Path:
    """Moves a part of the study outside and leaves a link; returns where it is now."""
    own, there = study.path / name, outside / name.replace("/", "-")
    own.parent.mkdir(exist_ok=True)
    if own.exists():
        own.rename(there)
    elif "." in name:
        there.write_text("theirs")
    else:
        there.mkdir()
    own.symlink_to(there)
    return there


def content(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("study.json", lambda s, model: Study.open(s.path)),
        ("study.json", lambda s, model: Study.create(s.path, s.header.spec)),
        ("measurements.parquet", lambda s, model: s.measurements()),
        ("circuits", lambda s, model: s.circuit(model, "features.3:7", "magnitude", 0.1)),
        ("circuits", lambda s, model: s.add_circuit(find(model), "magnitude", 0.3)),
        ("circuits/features.3-7__magnitude__0.1.safetensors", lambda s, model: s.circuit(
            model, "features.3:7", "magnitude", 0.1)),
        ("circuits/features.3-7__magnitude__0.3.safetensors", lambda s, model: s.add_circuit(
            find(model), "magnitude", 0.3)),
        ("scores", lambda s, model: scores_of(s, s.measurements().to_dicts()[0])),
        ("scores", lambda s, model: s.add_scores(vc.Scores.load(next(s.file("scores").iterdir())))),
        ("findings", lambda s, model: Findings.create(s.path, "a", "top", ASKED | {"fingerprint": fingerprint(model)})),
        ("findings/a", lambda s, model: Findings.create(
            s.path, "a", "top", ASKED | {"fingerprint": fingerprint(model)})),
        ("pictures", lambda s, model: s.file("pictures", "cache")),
        ("pictures/cache", lambda s, model: s.file("pictures", "cache")),
        ("diagrams", lambda s, model: Report("", {"name": Diagram.__new__(Diagram)}).save(s.path)),
        ("preservation.png", lambda s, model: s.file("preservation.png")),
    ],
)  # fmt: skip
def test_a_link_that_leads_out_is_not_followed(study, outside, shapesnet, name, use):
    moved(study, name, outside)
    before = content(outside)
    with pytest.raises(StudyError, match=r"leads out of .*study'; delete this link, or copy what it leads to"):
        use(study, shapesnet)
    assert content(outside) == before


def find(model):
    image = vc.ImageSet.from_tensors(torch.zeros(1, 3, 64, 64))
    return vc.find(model, vc.Target("features.3", 7), image, criterion="random", density=0.3)


@pytest.mark.parametrize("name", ["circuits", "scores", "measurements.parquet", "pictures/cache", "report.html"])
def test_what_a_link_has_elsewhere_is_not_listed(study, outside, name):
    moved(study, name, outside)
    assert not [file for file, _ in study.files() if file.startswith(name)]
    assert len(study.circuits()) == (0 if name == "circuits" else 2)


def test_a_page_takes_the_place_of_a_link(study, outside):
    there = moved(study, "report.html", outside)
    Report("a page", {}).save(study.path)
    assert there.read_text() == "theirs"
    assert (study.path / "report.html").read_text() == "a page"


def test_a_file_of_findings_that_is_a_link(study, outside, shapesnet):
    asked = ASKED | {"fingerprint": fingerprint(shapesnet)}
    findings = Findings.create(study.path, "a", "top", asked)
    moved(study, "findings/a/top", outside)
    with pytest.raises(StudyError, match="leads out of"):
        findings.file("top", "features.3.safetensors")
    moved(study, "findings/a/top.parquet", outside)
    with pytest.raises(StudyError, match="leads out of"):
        findings.table("top", [{"a": 1}])


def test_a_rendered_picture_outside_is_not_read(tmp_path, outside):
    cache = Cache(tmp_path / "cache")
    cache.write(Picture(torch.rand(3, 4, 4), "a", 1.0, 0), "one")
    (file,) = (tmp_path / "cache").iterdir()
    file.rename(outside / "picture")
    file.symlink_to(outside / "picture")
    with pytest.raises(StudyError, match="leads out of"):
        cache.read("one")


def test_links_within_a_study_and_to_a_study_are_followed(study, tmp_path, shapesnet):
    (study.path / "circuits").rename(study.path / "masks")
    (study.path / "circuits").symlink_to("masks")
    (tmp_path / "link").symlink_to(study.path)
    linked = Study.open(tmp_path / "link")
    assert linked.circuit(shapesnet, "features.3:7", "magnitude", 0.1).mask.n_kept > 0
    assert len(linked.circuits()) == 2
    assert linked.measurements().height == 2
    linked.add_circuit(find(shapesnet), "random", 0.3)
    assert len(Study.open(study.path).circuits()) == 3


@pytest.mark.parametrize("parts", [("..",), ("a", "..", "..", "b"), ("/etc/passwd",), ("a\0b",)])
def test_parts_that_lead_out(tmp_path, parts):
    with pytest.raises(StudyError, match="leads out of"):
        store.inside(tmp_path, *parts)


def test_links_that_go_round_end(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StudyError):
        store.read_json(store.inside(tmp_path, "a"))


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "...", ".hidden", "../../x", "a/../b", "/", "con", "NUL", "aux.conv", "com1.x", "a.", "a\0b"],
)
def test_no_name_is_a_folder_hidden_empty_or_a_device(tmp_path, text):
    name = slug(text)
    assert re.fullmatch(r"[\w,+-][\w.,+-]*[\w,+-]", name, re.ASCII)
    assert not re.match(r"(con|nul|aux|com1)(\.|$)", name, re.IGNORECASE)
    assert store.inside(tmp_path, name).parent == tmp_path
    assert slug(text, "x") != slug("other" + text, "x")


def test_names_stay_what_they_were():
    assert slug("compare", "snip:worst", "keep-0.9") == "compare__snip-worst__keep-0.9"
    assert slug("features.6:55@7,3", "actgrad", "0.05") == "features.6-55-at-7,3__actgrad__0.05"
    assert slug("console:1", "a") == "console-1__a"


def test_compare_writes_within_its_folder_whatever_a_criterion_is_called(
    tmp_path, shapesnet, shapes, outside, command_line
):
    evil = made(tmp_path / "study", shapesnet, shapes, "../../../outside/evil")
    evil.measurements_path.unlink()
    before = content(outside)
    status, _, error = command_line("compare", evil.path, "--out", tmp_path / "out", "-c", evil.header.spec.criteria[0])
    assert status == 0, error
    assert content(outside) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out", "outside", "study"]
    (folder,) = (tmp_path / "out" / "findings").iterdir()
    assert folder.name.startswith("compare__.._.._.._outside_evil-")
    assert (folder / "overlaps.safetensors").is_file()


def test_files_have_the_permissions_of_new_ones_and_the_mask_is_left_alone(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(os, "umask", lambda mask: pytest.fail("the mask is the whole process's"))
            store.write_json(tmp_path / "a.json", 1)
            store.write_tensors(tmp_path / "b", {"a": torch.ones(2)}, {})
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.json", "b")] == [0o640, 0o640]
    finally:
        os.umask(before)
