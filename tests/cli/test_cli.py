"""The command line as a user meets it: mostly whole processes, with their output, files and exit codes."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from bisect import bisect
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import safetensors.torch
import torch
from PIL import Image

import viscircuits as vc
from spoken import complaints
from viscircuits.cli.circuits.extract import held
from viscircuits.data.shapes import generate
from viscircuits.evaluate.sweep import Sweep
from viscircuits.study.folder import Study

GOLDEN = Path(__file__).parent / "golden"
CODE = "from viscircuits.cli.main import run; run()"
SMALL = ("-c", "actgrad", "-d", "0.5", "-d", "0.05")


@pytest.fixture(scope="module")
def run(quick_start):
    def call(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", CODE, *map(str, arguments)]
        return subprocess.run(command, env=quick_start, capture_output=True, text=True)

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(generate(12, seed=3).images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02}.png")
    return folder


def test_help_is_fast_and_imports_nothing_heavy(quick_start):
    code = (
        "import sys; from viscircuits.cli.main import run\n"
        "try: run()\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    for command in ("--help", "extract"):
        for _ in range(2):  # the first one after an installation compiles
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-c", code, command, "--help"], env=quick_start, capture_output=True, text=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert "Usage: " in done.stdout
            assert not {"torch", "numpy", "polars", "matplotlib"} & set(done.stderr.split())
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5  # processor time


def test_importing_the_package_imports_nothing_heavy(quick_start):
    code = "import sys, viscircuits; assert viscircuits.__version__; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], env=quick_start, capture_output=True, text=True, check=True
    ).stdout
    assert not {"torch", "numpy", "polars", "matplotlib", "pydantic", "typer"} & set(modules.split())


def test_installed_command_and_version():
    done = subprocess.run([Path(sys.executable).with_name("viscircuits"), "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"viscircuits {vc.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--version"], 0, vc.__version__),
        (["extract", "--help"], 0, "--held-out"),
        ([], 2, "Usage: "),
        (["extrct"], 2, "No such command 'extrct'"),
        (["extract", "shapesnet", "features.10:5"], 2, "Missing option '--images'"),
        (["extract", "shapesnet", "loss", "-i", "x", "-d", "many"], 2, "Invalid value for '--density'"),
        (["extract", "shapesnet", "loss", "-i", "x", "-g", "channel"], 2, "'channel' is not one of 'kernel', 'filter'"),
        (["inspect", "nowhere"], 1, "error: 'nowhere' is not a study folder"),
        (["targets", "resnet81"], 1, "error: no model 'resnet81'; closest: 'resnet18'"),
        (
            ["targets", "shapesnet", "feature.3"],
            1,
            "error: layer 'feature.3' is not in the model; closest: 'features.3'",
        ),
    ],
)
def test_exit_codes(command_line, monkeypatch, arguments, status, text):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = command_line(*arguments)
    assert code == status
    assert text in re.sub(r"\s+", " ", out + err)
    assert "Traceback" not in err


def test_targets(command_line, pytestconfig, shapesnet):
    status, out, err = command_line("targets", "shapesnet")
    assert (status, complaints(err)) == (0, "")
    golden = GOLDEN / "targets-shapesnet.txt"
    if pytestconfig.getoption("--overwrite"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(out)
    assert out == golden.read_text(), "run pytest --overwrite if this is meant"
    # and what it means: every line names a target that exists, with its channels and kernels
    graph = vc.trace(shapesnet, (3, 64, 64))
    lines = out.splitlines()[2:-1]
    assert [line.split()[0] for line in lines] == ["logit" if name == "" else name for name in graph.outputs]
    for line in lines:
        layer = line.split()[0]
        vc.Readout(vc.parse_target(f"{layer}:{int(line.split()[2]) - 1}"), graph)
        if layer in graph.layers:
            kernels = shapesnet.get_submodule(layer).weight.shape[:2].numel()
            assert int(line.split()[-1].replace(",", "")) == kernels
    vc.Readout(vc.parse_target(out.split()[-1]), graph)


def test_relevant_kernels_of_a_layer(command_line):
    status, out, _ = command_line("targets", "shapesnet", "features.6")
    assert status == 0
    counts = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:]}
    assert counts["features.0"] == ["72", "72"]
    assert counts["features.6"] == ["48", "3,072"]
    assert counts["all"] == ["1,272", "4,296"]


def test_demo_and_inspect(run, command_line, tmp_path, monkeypatch):
    done = run("demo", "--pictures", "40", "--out", tmp_path / "demo")
    assert (done.returncode, complaints(done.stderr)) == (0, "")
    study = Study.open(tmp_path / "demo")
    frame = study.measurements()
    assert frame.height == 4 * 13 == len(study.circuits())
    assert len(list((tmp_path / "demo" / "scores").iterdir())) == 4
    best = frame.filter(pl.col("density") == 0.1, pl.col("criterion") == "actgrad")["pearson"][0]
    assert best > 0.9
    assert f"{best:.3f}" in done.stdout
    assert "0* no path leads from the image to the target" in done.stdout
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = command_line("inspect", tmp_path / "demo")
    assert status == 0
    assert study.header.spec.fingerprint in out
    assert "generate(40, seed=2)" in out
    assert re.search(r"circuits/\s+52", out)
    table = [line for line in done.stdout.splitlines() if re.match(r"\s+0\.", line)]
    assert all(line in out for line in table)


def write_model(folder: Path) -> None:
    """A module of the user's own, and a weight file for it: the built-in network."""
    (folder / "mine.py").write_text(
        "from viscircuits.model.zoo.builtin import ShapesNet, ShapesTransform\n"
        "def make():\n    return ShapesNet(), ShapesTransform()\n"
    )
    safetensors.torch.save_file(vc.zoo.load("shapesnet").model.state_dict(), folder / "w.safetensors")


def test_memory_bounds_the_work_and_changes_no_result(command_line, photos, tmp_path):
    arguments = ("extract", "shapesnet", "features.10:5", "-i", photos, *SMALL)
    frames = []
    for number, memory in enumerate(("60MB", "4g")):
        status, _, err = command_line(*arguments, "--memory", memory, "-o", tmp_path / str(number))
        assert (status, complaints(err)) == (0, "")
        study = Study.open(tmp_path / str(number))
        assert study.header.engine == "numba"
        frames.append(study.measurements())
    assert frames[0]["pearson"].to_list() == pytest.approx(frames[1]["pearson"].to_list(), abs=1e-6)
    status, _, err = command_line(*arguments, "--memory", "20MB", "-o", tmp_path / "2")
    assert status == 1
    assert "for one picture at a time, and the memory limit is 21 MB" in err
    status, _, err = command_line(*arguments, "--memory", "lots", "-o", tmp_path / "3")
    assert status != 0
    assert "'lots' is not an amount of memory" in " ".join(err.split())


def test_pictures_are_held_where_memory_takes_the_same_passes(photos, shapesnet):
    prepare = vc.zoo.load("shapesnet").prepare
    scoring, held_out = vc.ImageSet.from_folder(photos, prepare).split(0.5, seed=0)
    size = 4 * len(scoring) * scoring[0].numel()
    targets = [vc.Target("features.10", channel=c) for c in range(3)]
    job = Sweep(shapesnet, targets, scoring, held_out, memory=2**31)
    enough = bisect(range(2**31), 0, key=lambda m: job.plans(m) == job.plans(2**31))
    assert job.plans(enough - 1) != job.plans(enough)

    def in_memory(memory: int) -> list[bool]:
        made = held(replace(job, memory=memory))
        sources = [type(images._source).__name__ for images in (made.scoring, made.held_out)]
        assert torch.equal(made.held_out[0], held_out[0])
        return [name == "Held" for name in sources]

    assert in_memory(enough) == [False, False]
    assert in_memory(enough + size) == [True, False]
    assert in_memory(enough + 2 * size) == [True, True]
    assert in_memory(2**22) == [False, False]  # where not one picture fits, the sweep will say so


def test_extract_with_a_model_of_ones_own(command_line, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path)
    status, out, err = command_line(
        "extract", "mine:make", "features.10:5", "logit:3", "-w", "w.safetensors", "-i", photos, *SMALL, "-c", "force"
    )
    assert (status, complaints(err)) == (0, "")
    study = Study.open(tmp_path / "studies" / "mine-make__features.10-5__logit-3")
    frame = study.measurements()
    assert frame.height == 2 * 2 * 2 == len(study.circuits())
    names = sorted(f.name for f in (study.path / "scores").iterdir())
    assert names == sorted(
        f"{t}__{c}.safetensors" for t in ("features.10-5", "logit-3") for c in ("actgrad", "force__0.5", "force__0.05")
    )
    spec = study.header.spec
    assert (spec.weights, spec.scoring.count, spec.held_out.count) == ("w.safetensors", 6, 6)
    assert "median" in out
    model = vc.zoo.load("shapesnet").model
    images = vc.ImageSet.from_folder(photos, vc.zoo.load("shapesnet").prepare).split(0.5, seed=0)[1]
    for row in frame.iter_rows(named=True):
        circuit = study.circuit(model, row["target"], row["criterion"], row["density"])
        assert vc.preservation(circuit, images).pearson == pytest.approx(row["pearson"], abs=1e-6)
    # the same pictures by another path, the same weights under another name: the same study, nothing is done again
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes())
    os.symlink(photos, tmp_path / "elsewhere")
    before = study.measurements_path.stat().st_mtime_ns
    status, _, err = command_line(
        "extract",
        "mine:make",
        "features.10:5",
        "logit:3",
        "-w",
        "copy.safetensors",
        "-i",
        "elsewhere",
        *SMALL,
        "-c",
        "force",
    )
    assert (status, complaints(err)) == (0, "")
    assert study.measurements_path.stat().st_mtime_ns == before


def test_held_out_folder_that_overlaps_warns_in_one_line(command_line, photos, tmp_path):
    with pytest.warns(UserWarning, match=r"12 of the 12 pictures to measure on were also scored on") as caught:
        status, _, _ = command_line(
            "extract", "shapesnet", "features.10:5", "-i", photos, "--held-out", photos, *SMALL, "-o", tmp_path / "s"
        )
    assert status == 0
    import warnings

    assert warnings.formatwarning(caught[0].message, UserWarning, "sweep.py", 1).startswith("warning: 12 of the 12")


def test_names_that_look_like_markup(command_line, photos, tmp_path):
    out = tmp_path / "[bold]*[/]"
    assert command_line("extract", "shapesnet", "features.10:5", "-i", photos, *SMALL, "-o", out)[0] == 0
    status, text, _ = command_line("inspect", out)
    assert status == 0
    assert "[bold]*[/]" in text.replace("\n", "")


def test_interrupted_by_ctrl_c_and_resumed(command_line, quick_start, photos, tmp_path):
    out = tmp_path / "out"
    densities = [x for i in range(200) for x in ("-d", f"{1 - i / 201:.4f}")]
    job = ["extract", "shapesnet", "features.10:5", "-i", str(photos), "-c", "random", "-o", str(out), *densities]
    with subprocess.Popen([sys.executable, "-c", CODE, *job], env=quick_start, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (out / "measurements.parquet").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        printed, complaint = process.communicate()
    assert process.returncode == 130
    assert printed == ""
    assert complaint.strip() == "interrupted; what was finished is saved, and the same command goes on from there"
    study = Study.open(out)
    before = study.measurements()
    assert 0 < before.height < 200
    assert not [f for f in out.rglob(".*") if f.is_file()]  # nothing half-written is left
    stopped = {f: f.stat().st_mtime_ns for f in study.circuits()}
    assert len(stopped) >= before.height
    status, printed, _ = command_line("inspect", out)
    assert status == 0
    assert "not finished, run its command again" in printed
    assert command_line(*job)[0] == 0
    after = study.measurements()
    assert after.height == 200 == len(study.circuits())
    assert after.head(before.height).equals(before)  # seconds and all: not measured again
    assert sum(f.stat().st_mtime_ns != at for f, at in stopped.items()) <= 1


def test_study_json_is_what_was_asked(command_line, photos, tmp_path):
    command_line(
        "extract",
        "shapesnet",
        "features.10:5",
        "-i",
        photos,
        *SMALL,
        "--minmax",
        "-g",
        "filter",
        "--seed",
        4,
        "-o",
        tmp_path / "s",
    )
    written = json.loads((tmp_path / "s" / "study.json").read_text())
    spec = written["spec"]
    assert written["command"].startswith("viscircuits extract shapesnet features.10:5 -i ")
    assert (spec["granularity"], spec["normalise"], spec["seed"], spec["densities"]) == (
        "filter",
        "minmax",
        4,
        [0.5, 0.05],
    )
    assert spec["scoring"]["hash"] != spec["held_out"]["hash"]
    assert torch.__version__ == written["torch"]
