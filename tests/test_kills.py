"""Commands that are killed at any moment, or find the disk full, and run again: as if nothing had happened.

Nothing is left behind either.
"""

import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock
from xml.etree import ElementTree

import polars as pl
import pytest
import torch
from PIL import Image

import viscircuits as vc
from small import Small
from small import small as made
from viscircuits import store
from viscircuits.data.shapes import generate
from viscircuits.evaluate.sweep import Sweep
from viscircuits.runs.job import run_job
from viscircuits.runs.spec import Origin
from viscircuits.store import temporary
from viscircuits.study import measurements
from viscircuits.study.folder import Study

EXTRACT = ("extract", "shapesnet", "features.3:7", "logit:2", "-d", "0.5", "-d", "0.1", "--device", "cpu")
COMMANDS = {
    "extract": (*EXTRACT, "-c", "actgrad", "-c", "random", "-i", "PHOTOS", "-o", "STUDY"),
    "learned": (*EXTRACT[:3], "-c", "learned,steps=3,densities=0.5/0.2/0.1", "-d", "0.1", "--device", "cpu",
                "-i", "PHOTOS", "-o", "STUDY"),
    "top": ("top", "shapesnet", "features.3", "features.6", "-n", "3", "-i", "PHOTOS", "-o", "STUDY",
            "--device", "cpu"),
    "split": ("split", "shapesnet", "features.6:5", "--by", "classes", "-n", "6", "-c", "magnitude", "-d", "0.5",
              "--controls", "2", "--no-pictures", "-i", "PHOTOS", "-o", "STUDY", "--device", "cpu"),
    "compare": ("compare", "STUDY", "-c", "actgrad", "-d", "0.5", "-o", "STUDY"),
    "diagram": ("diagram", "STUDY", "--target", "features.3:7", "-c", "actgrad", "-d", "0.1", "--pictures", "crops",
                "--device", "cpu"),
    "report": ("report", "STUDY", "-d", "0.1", "--pictures", "crops", "--device", "cpu"),
}  # fmt: skip
NEW = ("extract", "learned", "top", "split")
"""Those that make their folder; the others get a study."""


class Runs:
    """Commands in processes of their own, and what they wrote when nobody stopped them."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("killing.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        )  # fmt: skip
        assert self.server.stdout.readline() == "ready\n"
        self.undisturbed: dict[str, tuple[Path, float]] = {}
        (folder / "photos").mkdir()
        for i, image in enumerate(generate(12, seed=3).images):
            (folder / "photos" / "ab"[i % 2]).mkdir(exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "photos" / "ab"[i % 2] / f"{i:02}.png")

    def __call__(
        self, name: str, study: Path, after: float | None = None, room: int | None = None
    ) -> tuple[int, float]:
        places = {"PHOTOS": str(self.folder / "photos"), "STUDY": str(study)}
        arguments = [places.get(word, word) for word in COMMANDS[name]]
        asked = {"arguments": arguments, "after": after, "room": room, "log": str(self.log)}
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        return tuple(json.loads(self.server.stdout.readline()))

    def start(self, name: str, study: Path) -> None:
        """Makes the folder as it is before a command."""
        if name not in NEW:
            shutil.copytree(self.whole("extract")[0], study)

    def whole(self, name: str) -> tuple[Path, float]:
        """Returns what an undisturbed command wrote, and how long it took."""
        if name not in self.undisturbed:
            study = self.folder / f"undisturbed-{name}"
            shutil.rmtree(study, ignore_errors=True)
            self.start(name, study)
            status, seconds = self(name, study)
            assert status == 0, self.log.read_text()
            self.undisturbed[name] = study, seconds
        return self.undisturbed[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quick_start):
    made = Runs(tmp_path_factory.mktemp("kills"), quick_start)
    yield made
    made.server.communicate()


def files(study: Path, *, hidden: bool = False) -> list[Path]:
    """The files of a folder, but not those that a killed process left."""
    found = sorted(f.relative_to(study) for f in study.rglob("*") if f.is_file())
    return [file for file in found if hidden or not any(part.startswith(".") for part in file.parts)]


def check_whole(file: Path) -> None:
    """Reads a file as its readers do."""
    match file.suffix:
        case ".json":
            store.read_json(file)
        case ".parquet":
            (measurements.read if file.name == "measurements.parquet" else pl.read_parquet)(file)
        case ".safetensors":
            store.read_tensors(file)
        case ".png" | ".jpg":
            with Image.open(file) as image:
                image.load()
        case ".svg":
            ElementTree.parse(file)
        case ".html":
            assert file.read_text().rstrip().endswith("</html>")
        case other:
            pytest.fail(f"unknown ending {other!r} of {file}")


def content(file: Path) -> object:
    """What a file holds that does not depend on when it was made, and where."""
    if file.name == "measurements.parquet":
        return measurements.read(file).frame.drop("seconds").sort(measurements.KEY).rows()
    if file.suffix == ".parquet":
        return repr(pl.read_parquet(file).rows())  # nan equals nan in words
    return file.read_bytes() if file.suffix in (".safetensors", ".png", ".jpg", ".svg") else None


def killed(runs: Runs, name: str, share: float, study: Path) -> None:
    """Kills a command after a share of its time and runs it again."""
    whole, seconds = runs.whole(name)
    runs.start(name, study)
    runs(name, study, after=share * seconds)
    goes_on(runs, name, study, whole)


def goes_on(runs: Runs, name: str, study: Path, whole: Path) -> None:
    """Runs a command that was stopped again."""
    for file in files(study):
        check_whole(study / file)
    status, _ = runs(name, study)
    assert status == 0, runs.log.read_text()
    assert files(study, hidden=True) == files(whole)
    for file in files(study):
        check_whole(study / file)
        assert content(study / file) == content(whole / file), file


def without_room(runs: Runs, name: str, room: int, study: Path) -> None:
    """Runs a command on a disk that takes no file larger than so many bytes, and then with room."""
    whole, _ = runs.whole(name)
    runs.start(name, study)
    status, _ = runs(name, study, room=room)
    if status:
        assert status == 1, runs.log.read_text()
        told = [line for line in runs.log.read_text().splitlines() if line.startswith("error: ")]
        assert len(told) == 1, runs.log.read_text()
        assert told[0].startswith("error: cannot write "), told
        assert told[0].endswith("; make room there, or choose another place"), told
    assert status or room > min((whole / file).stat().st_size for file in files(whole))
    goes_on(runs, name, study, whole)


def test_a_full_disk_is_one_line_and_nothing_is_lost(runs, tmp_path):
    without_room(runs, "extract", 1000, tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("room", [400, 1000, 5000, 20_000, 100_000])
def test_a_full_disk_is_one_line_and_nothing_is_lost_for_any_command(runs, tmp_path, name, room):
    without_room(runs, name, room, tmp_path / "s")


def moments(n: int) -> list[tuple[str, float]]:
    """Commands and shares of their time."""
    draw = random.Random(n)
    names = ("extract", "learned", "top", "compare", "extract", "learned", "split", "diagram", "extract", "report")
    return [(names[i % len(names)], draw.random()) for i in range(n)]


@pytest.mark.parametrize(("name", "share"), moments(2))
def test_a_killed_command_goes_on_as_if_nothing_had_been(runs, tmp_path, name, share):
    killed(runs, name, share, tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), moments(200))
def test_a_killed_command_goes_on_as_if_nothing_had_been_at_any_moment(runs, tmp_path, name, share):
    killed(runs, name, share, tmp_path / "s")


# ---- the same in this process, at the moments at which files change -------------------------------------------------

CALLS = ("open", "fsync", "chmod", "replace", "link")
"""What writing a file asks of the system, in `viscircuits.store.files`."""


class Killed(BaseException):
    pass


class Dying:
    """The functions of `os`, of which one call never comes back, and the process leaves everything as it is."""

    def __init__(self, at: int | None = None) -> None:
        self.seen, self.at, self.dead, self.last = 0, at, False, ""

    def __getattr__(self, name: str):
        return self.calling(getattr(os, name)) if name in CALLS else getattr(os, name)

    def calling(self, function):
        def call(*arguments, **options):
            self.seen += 1
            if self.seen == self.at:
                self.dead, self.last = True, function.__name__
                raise Killed
            return function(*arguments, **options)

        return call


class Full(Dying):
    """The functions of `os` on a disk that is full from one call on."""

    def calling(self, function):
        def call(*arguments, **options):
            self.seen += 1
            if self.seen >= self.at:
                self.dead = True
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call


@pytest.fixture(scope="module")
def small() -> Small:
    return made()


@pytest.fixture(scope="module")
def ended() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def job(model: Small) -> Sweep:
    drawn = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    criteria = ("magnitude", "learned,steps=2,densities=0.5/0.2")
    targets = [vc.Target("second", 1), vc.Target("second", 2)]
    return Sweep(model, targets, *vc.ImageSet.from_tensors(drawn).split(0.5, seed=0), criteria, (0.5, 0.2))


def study(model: Small, folder: Path) -> Study:
    """Makes a study that writes its table with every row, and no curve."""
    seconds = itertools.count(0, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viscircuits.evaluate.sweep.time.monotonic", lambda: next(seconds))
        patch.setattr("viscircuits.runs.job.preservation_curve", Mock())
        return run_job(job(model), folder, Origin("small", None, "here", "here"))


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory) -> tuple[Path, int]:
    """A study, and how often its making asked the system for something."""
    folder, counted = tmp_path_factory.mktemp("whole") / "s", Dying()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viscircuits.store.files.os", counted)
        study(small, folder)
    return folder, counted.seen


@pytest.mark.parametrize("share", [i / 18 for i in range(18)])
def test_a_study_that_died_while_it_wrote_goes_on(small, undisturbed, ended, tmp_path, monkeypatch, share):
    whole, n = undisturbed
    dying = Dying(1 + int(share * n))
    own = temporary._own(os.getpid())
    with monkeypatch.context() as patch:
        patch.setattr("viscircuits.store.files.os", dying)
        patch.setattr(temporary, "_own", lambda process: own._replace(process=ended))
        unlink, release = Path.unlink, temporary.release
        patch.setattr(Path, "unlink", lambda *a, **k: None if dying.dead else unlink(*a, **k))
        patch.setattr(temporary, "release", lambda *a: None if dying.dead else release(*a))
        with pytest.raises(Killed):
            study(small, tmp_path / "s")
    assert dying.last == "open" or any("~" in file.name for file in files(tmp_path / "s", hidden=True))
    for file in files(tmp_path / "s"):
        check_whole(tmp_path / "s" / file)
    study(small, tmp_path / "s")
    assert files(tmp_path / "s", hidden=True) == files(whole)
    for file in files(whole):
        assert content(tmp_path / "s" / file) == content(whole / file), file


@pytest.mark.parametrize("share", [i / 9 for i in range(9)])
def test_a_study_that_found_the_disk_full_goes_on(small, undisturbed, tmp_path, monkeypatch, share):
    whole, n = undisturbed
    full = Full(1 + int(share * n))
    with monkeypatch.context() as patch:
        patch.setattr("viscircuits.store.files.os", full)
        with pytest.raises(vc.StudyError, match=r"^cannot write .* \(No space left on device\); "):
            study(small, tmp_path / "s")
    assert full.dead
    assert not any("~" in file.name for file in files(tmp_path / "s", hidden=True))
    study(small, tmp_path / "s")
    assert files(tmp_path / "s", hidden=True) == files(whole)
    for file in files(whole):
        assert content(tmp_path / "s" / file) == content(whole / file), file
