"""A stranger's study is data: it starts no code, leads to no endless reading, and types nothing into the terminal."""

import json
import os
import re
import shlex
import shutil
import socket
import sys
import types
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch
from PIL import Image

from cli.studies import small_study
from spoken import complaints, hint
from viscircuits.cli import console
from viscircuits.data.shapes import generate
from viscircuits.errors import ImageError, ModelError
from viscircuits.model.zoo import zoo
from viscircuits.runs.opened import held_out, load_model
from viscircuits.study import measurements
from viscircuits.study.folder import Study

pytestmark = pytest.mark.timeout(60)  # what hangs fails

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
def make():
    from viscircuits.model.zoo.builtin import ShapesTransform, load_shapesnet
    return load_shapesnet(), ShapesTransform()
"""
MINE = """
from viscircuits.model.zoo.builtin import ShapesNet, ShapesTransform
class Whole(ShapesTransform):
    pass
def make():
    return ShapesNet(), ShapesTransform(size=48)
"""
COMMANDS = (("report", "--pictures", "none"), ("diagram", "--pictures", "none"), ("compare", "-d", 0.3))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("small") / "study")


@pytest.fixture
def stranger(study, tmp_path, monkeypatch):
    """Makes a copy of the study whose file says something else; the current folder is beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)

    def made(**spec: object) -> Path:
        folder = tmp_path / "stranger's"
        shutil.copytree(study.path, folder)
        header = json.loads((folder / "study.json").read_text())
        header["spec"] |= spec
        (folder / "study.json").write_text(json.dumps(header))
        return folder

    return made


def refused(answer: tuple[int, str, str]) -> str:
    """The one line of a command that came to nothing."""
    status, out, err = answer
    assert (status, out) == (1, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("asked", COMMANDS, ids=lambda asked: asked[0])
def test_no_file_starts_code(stranger, command_line, monkeypatch, tmp_path, asked):
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.setattr(os, "abort", (tmp_path / "aborted").touch)
    folder = stranger(model="evil:make")
    before = set(sys.modules)
    for name in ("evil:make", "os:abort", "evil:", ":", "os:path.abspath"):
        rewrite(folder, model=name)
        line = refused(command_line(asked[0], folder, *asked[1:]))
        assert f"the study names {name!r} as its model, which is code" in line
    assert not {"evil", ""} & (set(sys.modules) - before)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.py", "stranger's"]


def rewrite(folder: Path, **spec: object) -> None:
    header = json.loads((folder / "study.json").read_text())
    header["spec"] |= spec
    (folder / "study.json").write_text(json.dumps(header))


@pytest.mark.parametrize("asked", COMMANDS, ids=lambda asked: asked[0])
def test_the_refusal_is_the_command_that_works(stranger, command_line, tmp_path, asked):
    (tmp_path / "evil.py").write_text(EVIL)
    folder = stranger(model="evil:make")
    line = refused(command_line(asked[0], folder, *asked[1:], "-o", tmp_path / "o  ut"))
    words = shlex.split(line.partition("trust it: ")[2])
    assert words == ["viscircuits", *map(str, (asked[0], folder, *asked[1:], "-o", tmp_path / "o  ut")),
                     "--model", "evil:make"]  # fmt: skip
    if asked[0] != "report":  # which takes long; another test asks for one
        assert command_line(*words[1:])[0] == 0
        assert (tmp_path / "ran").exists()


def test_names_that_download_are_not_loaded_on_the_word_of_a_file(stranger, command_line, monkeypatch):
    made = []

    def create_model(name, pretrained):
        made.append(name)
        return zoo.load("shapesnet").model

    data = types.SimpleNamespace(
        resolve_model_data_config=lambda model: {}, create_transform=lambda is_training: zoo.load("shapesnet").prepare
    )
    listed = {False: ["tiny"], True: ["tiny.in1k"]}
    timm = types.SimpleNamespace(create_model=create_model, list_models=lambda pretrained=False: listed[pretrained],
                                 data=data)  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", timm)
    folder = stranger(model="timm:tiny")
    for name in ("hf-hub:stranger/net", "hf_hub:stranger/net", "local-dir:.", "https://a.b/c", "tiny:x", "", "tinny"):
        rewrite(folder, model=f"timm:{name}")
        assert "the study names 'timm:" in refused(command_line("diagram", folder, "--pictures", "none"))
    assert made == []
    for name in ("tiny", "tiny.in1k"):
        rewrite(folder, model=f"timm:{name}")
        assert command_line("diagram", folder, "--pictures", "none")[0] == 0
    assert set(made) == {"tiny", "tiny.in1k"}
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "'timm:tiny.in1k' needs the package timm" in refused(command_line("diagram", folder))


def test_what_the_user_names_must_be_the_model_of_the_study(stranger, command_line, tmp_path):
    (tmp_path / "mine_other.py").write_text("from viscircuits.model.zoo.builtin import ShapesNet\nmake = ShapesNet\n")
    folder = stranger(model="evil:make")
    for asked in COMMANDS:
        line = refused(command_line(asked[0], folder, *asked[1:], "--model", "mine_other:make", "-o", tmp_path / "out"))
        assert re.search(r"of fingerprint \w{16}; got 'mine_other:make', of fingerprint \w{16}; give", line)
    assert not (tmp_path / "out").exists()
    assert command_line("compare", folder, "-d", 0.3, "--model", "shapesnet")[0] == 0


def test_weights_must_be_those_of_the_study(stranger, command_line, tmp_path):
    state = {name: tensor + 1 for name, tensor in zoo.load("shapesnet").model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    folder = stranger(weights="w.safetensors")
    for asked in COMMANDS:
        assert "got 'shapesnet with weights w.safetensors'" in refused(command_line(asked[0], folder, *asked[1:]))


def test_weights_are_regular_files(stranger, command_line, tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "empty.pt").touch()
    sparse = {name: tensor.to_sparse() for name, tensor in zoo.load("shapesnet").model.state_dict().items()}
    torch.save(sparse, tmp_path / "sparse.pt")
    folder = stranger()
    for weights in ("pipe.safetensors", "/dev/zero", "/dev/stdin", "/proc/kmsg", "empty.pt", "sparse.pt", ".", "a\0b"):
        rewrite(folder, weights=weights)
        assert "fi" in refused(command_line("diagram", folder, "--pictures", "none"))


@pytest.fixture
def unused(caplog):
    """The one line that says why a study's pictures are not used."""

    def call(folder: Path) -> str:
        caplog.clear()
        assert held_out(Study.open(folder).header.spec, zoo.load("shapesnet").prepare) is None
        (line,) = [text for text in caplog.messages if text.startswith("the study's pictures are not used: ")]
        return line

    return call


def from_source(source: object, **more: object) -> dict[str, object]:
    made = {"source": str(source), "count": 12, "hash": "0" * 16} | more
    return {"scoring": made, "held_out": made}


def test_a_search_for_pictures_ends(stranger, unused, tmp_path):
    folder = stranger()
    for name in "abc":
        (tmp_path / "loop" / name).mkdir(parents=True)
        (tmp_path / "loop" / name / "a.png").symlink_to("a.png")
        (tmp_path / "loop" / name / "all").symlink_to("..")
    for source in ("/", "/dev", "/dev/zero", "/nowhere"):
        rewrite(folder, **from_source(source))
        assert f"'{source}'" in unused(folder)
    for source in (tmp_path / "loop", "/proc"):  # whose links lead to the pictures of this very project
        rewrite(folder, **from_source(source))
        assert held_out(Study.open(folder).header.spec, zoo.load("shapesnet").prepare) is None


def test_a_circuit_is_drawn_without_pictures_that_are_everywhere(stranger, command_line, caplog):
    study = Study.open(stranger(**from_source("/")))
    measurements.write(study.measurements_path, pl.read_parquet(study.measurements_path), study.hash)
    status, out, err = command_line("diagram", study.path, "--pictures", "none")
    assert (status, complaints(err)) == (0, "")
    assert "without inset: the study's pictures are not at hand; give --images" in out
    assert "the study's pictures are not used: expected " in caplog.text


def test_a_search_ends_where_more_is_met_than_was_recorded(stranger, unused, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(30):
        Image.new("RGB", (8, 8)).save(photos / f"{number}.png")
    folder = stranger()
    rewrite(folder, **from_source(photos, found=29))
    assert "expected at most 29 pictures in " in unused(folder)
    rewrite(folder, scoring=from_source("elsewhere")["scoring"])  # all of a source of their own
    assert "expected at most 12 pictures in " in unused(folder)


def test_drawn_pictures_are_no_more_than_were_recorded(stranger, unused):
    folder = stranger()
    for n, count in ((25, 12), (10**9, 12), (10**9, 10**9), (10**12, 10**12), ("9" * 5000, 12), (0, 12)):
        rewrite(folder, **from_source(f"viscircuits.data.shapes.generate({n}, seed=5)", count=count))
        assert "the study's pictures are not used: " in unused(folder)
    with pytest.raises(
        ImageError, match=r"n 1000000000000000 is out of range; expected a whole number from 1 to 1,000,000"
    ):
        generate(10**15, seed=0)


def test_pictures_are_regular_files(stranger, unused, tmp_path):
    folder = stranger()
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number in range(24):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cat" / f"{number}.png")
    odd = tmp_path / "photos" / "cat" / "3.png"
    rewrite(folder, **from_source(tmp_path / "photos"))
    odd.unlink()
    os.mkfifo(odd)
    assert "3.png: a pipe, a device or a folder; expected a regular file" in unused(folder)
    odd.unlink()
    odd.symlink_to("/dev/zero")
    assert "3.png: a pipe, a device or a folder; expected a regular file" in unused(folder)
    odd.unlink()
    with odd.open("wb") as file:
        file.truncate(2**33)
    assert "3.png: 8.0 GB; expected a picture of at most 4 GB" in unused(folder)
    odd.unlink()
    odd.symlink_to("nowhere.png")
    assert "3.png: No such file or directory" in unused(folder)
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket.png")  # relative, as its path must be short
        for source in ("pipe.png", "socket.png"):
            rewrite(folder, **from_source(source))
            assert source in unused(folder)


@pytest.mark.parametrize(
    "shape", [(), (3, 64), (3, 10**9, 10**9), (3, 1, 10**7), (10**9, 1, 1), (3, 0, 64), (3, -1, -1)]
)
def test_absurd_shapes_are_refused(stranger, command_line, shape):
    folder = stranger(input_shape=shape)
    for asked in COMMANDS:
        line = refused(command_line(asked[0], folder, *asked[1:]))
        assert "study.json" in line
        assert "of at most" in line


@pytest.mark.parametrize("counts", [(0, 0), (0, 12), (12, 0), (-12, 24), (24, -12)])
def test_absurd_counts_leave_the_pictures_out(study, counts):
    spec = study.header.spec
    scoring, measured = (
        one.model_copy(update={"count": n}) for one, n in zip((spec.scoring, spec.held_out), counts, strict=True)
    )
    assert (
        held_out(spec.model_copy(update={"scoring": scoring, "held_out": measured}), zoo.load("shapesnet").prepare)
        is None
    )


def photos_of(folder: Path, n: int) -> Path:
    folder.mkdir()
    for number, image in enumerate(generate(n, seed=3).images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:02}.png")
    return folder


def test_a_model_of_ones_own_from_extract_to_report(command_line, tmp_path, monkeypatch):
    """The commands that are printed work, at the size of a prepare of one's own, on some of the pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_own.py").write_text(MINE)
    safetensors.torch.save_file(zoo.load("shapesnet").model.state_dict(), tmp_path / "w.safetensors")
    photos = photos_of(tmp_path / "photos", 14)
    status, _, err = command_line(
        "extract", "mine_own:make", "features.6:7", "features.6:9", "-w", "w.safetensors", "-i", photos, "--limit", 12,
        "-c", "snip", "-d", 0.05, "-o", tmp_path / "a study",
    )  # fmt: skip
    assert (status, complaints(err)) == (0, "")
    words = shlex.split(hint(err))
    assert words == ["viscircuits", "report", str(tmp_path / "a study"), "--model", "mine_own:make"]
    status, _, err = command_line(*words[1:], "--pictures", "none")
    assert (status, complaints(err)) == (0, "")
    page = (tmp_path / "a study" / "report.html").read_text()
    assert f"\nviscircuits report '{tmp_path}/a study' --model mine_own:make --pictures none</pre>" in page
    spec = Study.open(tmp_path / "a study").header.spec
    assert (spec.input_shape, spec.scoring.found, spec.held_out.found) == ((3, 48, 48), 14, 14)
    for asked in (("diagram", "--pictures", "crops"), ("compare", "-d", 0.05)):  # crops are cut from the very pictures
        assert command_line(asked[0], tmp_path / "a study", *asked[1:], "--model", "mine_own:make")[0] == 0
    prepare = load_model(spec, "mine_own:make").prepare
    older = spec.model_copy(update={name: getattr(spec, name).model_copy(update={"found": None})
                                    for name in ("scoring", "held_out")})  # fmt: skip
    assert not spec.differs(older)
    for one in (spec, older):  # before it was recorded how many there were
        images = held_out(one, prepare)
        assert images is not None
        assert images.hash == spec.held_out.hash
    with pytest.raises(ModelError, match="the study names 'mine_own:make' as its model"):
        load_model(spec)


def test_a_source_of_very_many_pictures_and_drawn_ones_of_one_pixel(stranger, command_line):
    folder = stranger()
    file = folder / "study.json"
    value = json.loads(file.read_text())
    for images in ("scoring", "held_out"):
        value["spec"][images] |= {"source": str(folder), "found": 1_281_167}
    file.write_text(json.dumps(value))
    status, _, err = command_line("report", folder, "--pictures", "none")
    assert (status, "out of range" in err) == (0, False)
    spec = Study.open(folder).header.spec
    many = {"count": 60_000, "source": "viscircuits.data.shapes.generate(120000, seed=0)"}
    small = spec.model_copy(update={
        "input_shape": (1, 1, 1), "scoring": spec.scoring.model_copy(update=many),
        "held_out": spec.held_out.model_copy(update=many),
    })  # fmt: skip
    assert held_out(small, zoo.load("shapesnet").prepare) is None  # and nothing is drawn: that would take 1.5 GB


HIDDEN = "\x1b]0;title\x07\x1b[31m\x9b31m\x7f\x08\r\n\t\u202e\u2066\u2028[bold red]x[/][link=a]y[/link]"


@pytest.mark.filterwarnings("ignore:Glyph")  # that fonts lack
def test_names_type_nothing_into_the_terminal(stranger, command_line, monkeypatch):
    monkeypatch.setattr(console.out, "_width", 400)
    folder = stranger(criteria=[f"actgrad{HIDDEN}", f"random{HIDDEN}"])
    header = json.loads((folder / "study.json").read_text())
    header["command"] = HIDDEN
    header["spec"]["targets"] = [f"features.3:7{HIDDEN}", "features.6:7"]
    header["spec"]["scoring"]["source"] = header["spec"]["held_out"]["source"] = f"/nowhere/{HIDDEN}"
    (folder / "study.json").write_text(json.dumps(header))
    table = pl.read_parquet(folder / "measurements.parquet")
    table.with_columns(criterion=pl.col("criterion") + HIDDEN).write_parquet(folder / "measurements.parquet")
    for asked in (("inspect",), ("report", "--pictures", "none"), ("diagram", "-t", HIDDEN), ("compare", "-d", 0.3)):
        _, out, err = command_line(asked[0], folder, *asked[1:])
        assert not re.search(
            r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", out + err
        )
        assert asked[0] == "report" or "[bold red]x[/][link=a]y[/link]" in out + err
        if asked[0] == "inspect":
            assert r"\x1b]0;title\x07\x1b[31m\x9b31m\x7f\x08\r\n\t\u202e\u2066\u2028" in out
    rewrite(folder, model=f"a:{HIDDEN}")
    assert r"\x1b[31m\x9b31m\x7f\x08\r\n\t\u202e" in refused(command_line("report", folder))


def test_all_that_is_printed_goes_through_one_place(capsys, monkeypatch):
    """Bars, warnings, logs, tables, and plain text among styled."""
    import logging
    import warnings

    from rich.text import Text

    from viscircuits.cli.main import _LogLine, _warning

    console.out.print(Text.assemble(("a\x1b[1m", "bold"), "[b]b[/]"), HIDDEN, style="dim")
    console.print_table(HIDDEN, [(HIDDEN, True)], [(HIDDEN,)])
    monkeypatch.setattr(console.Lines, "EVERY", 0.0)
    with console.progress_bars() as report:
        report(HIDDEN, 1, 2)
    said = _warning(UserWarning(f"two\n lines {HIDDEN}"))
    record = logging.LogRecord("a", logging.WARNING, "", 0, "read %s", (HIDDEN,), None)
    logged = _LogLine().format(record)
    assert said.startswith("warning: two lines \\x1b]0;")
    assert said.endswith("\n")
    out, err = capsys.readouterr()
    for text in (out, err, said, logged):
        assert text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e\ud800-\udfff]", text)
    assert out.startswith(r"a\x1b[1m[b]b[/]")
    assert warnings.formatwarning is not _warning  # `run` alone sets it
