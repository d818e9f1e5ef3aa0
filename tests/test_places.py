"""Places where nothing may be written: what needs none of them works, and all else is one line."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import viscircuits as vc
from cli.studies import small_study
from spoken import complaints

SOURCE = Path(vc.__file__).parents[1]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for less rights")


def as_anybody() -> None:
    """Gives up the right of the superuser to write where nobody may (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    for right in (1, 2):
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP; fails for anybody else, who does not have it


def closed(folder: Path) -> None:
    """Takes everybody's right to write from a folder and all in it."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)


def opened(folder: Path) -> None:
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755)


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    """A home that cannot be written, with a copy of the package that was never run."""
    home = tmp_path / "home"
    shutil.copytree(SOURCE / "viscircuits", home / "src" / "viscircuits", ignore=shutil.ignore_patterns("__pycache__"))
    closed(home)
    yield home
    opened(home)


@pytest.fixture
def others(tmp_path) -> Iterator[Path]:
    """A study of somebody else's."""
    folder = tmp_path / "others"
    small_study(folder)
    closed(folder)
    yield folder
    opened(folder)


def ran(source: Path, home: Path, *arguments: object) -> tuple[int, str]:
    """Exit status and what a Python process says that may write as anybody may, without the empty lines of bars."""
    elsewhere = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    environment = {k: v for k, v in os.environ.items() if k not in elsewhere}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, preexec_fn=as_anybody, cwd=home,
        env={**environment, "HOME": str(home), "PYTHONPATH": str(source)},
    )  # fmt: skip
    return done.returncode, done.stderr.strip()


SCORES = """
import torch, viscircuits as vc
from viscircuits.data.shapes import generate
from viscircuits.saliency.engine.loops import compiled
model, prepare = vc.zoo.load("shapesnet")
images = vc.ImageSet.from_tensors(prepare(generate(4, seed=0).images))
compiled("lay", "float32")
assert vc.score(model, vc.Target("features.3", 7), images).sums["features.3"].any()
"""


@pytest.mark.slow
def test_scores_are_made_by_a_package_that_cannot_be_written(home):
    assert ran(home / "src", home, "-c", SCORES) == (0, "")


@pytest.mark.slow
def test_a_study_of_somebody_elses_is_drawn_elsewhere(others, home, tmp_path):
    command = ("-m", "viscircuits", "diagram", others, "--pictures", "optvis", "--target", "features.3:7",
               "-c", "actgrad", "-d", 0.08, "--device", "cpu")  # fmt: skip
    status, said = ran(SOURCE, home, *command, "-o", tmp_path / "mine")
    assert (status, complaints(said)) == (0, "")
    assert (tmp_path / "mine.svg").exists()
    status, said = ran(SOURCE, home, *command)
    assert status == 1
    assert complaints(said).startswith("error: cannot write ")
    assert "\n" not in complaints(said)


@pytest.mark.parametrize("command", ["top", pytest.param("probe", marks=pytest.mark.slow)])
def test_what_cannot_be_written_is_one_line(others, home, command):
    images = () if command == "probe" else ("-i", SOURCE)
    layer = "features.3:7" if command == "probe" else "features.3"
    status, said = ran(SOURCE, home, "-m", "viscircuits", command, "shapesnet", layer, *images, "-o", others)
    assert status == 1
    assert said.startswith("error: ")
    assert "\n" not in said
