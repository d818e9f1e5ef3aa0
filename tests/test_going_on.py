"""A study that goes on: in the groups of an undisturbed run, what was lost made again, what changed noticed."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
import torch
from torch import Tensor, nn

import viscircuits as vc
from viscircuits import store
from viscircuits.errors import StudyError
from viscircuits.evaluate import measuring as module
from viscircuits.evaluate.question import PAPER_DENSITIES
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.model.fingerprint import fingerprint, graph_fingerprint
from viscircuits.model.trace import trace
from viscircuits.runs.job import run_job
from viscircuits.runs.spec import Origin
from viscircuits.store import temporary
from viscircuits.study import measurements
from viscircuits.study.folder import Study

DENSITIES = (0.9, 0.7, 0.5, 0.3, 0.1)


class Small(nn.Module):
    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)) * self.factor).mean((2, 3))


def network(factor: float = 1.0) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return Small(factor).eval()


@pytest.fixture(scope="module")
def small() -> Small:
    return network()


def job(model: nn.Module, **changes) -> Sweep:
    drawn = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    scoring, held_out = vc.ImageSet.from_tensors(drawn).split(0.5, seed=0)
    given = {
        "model": model, "targets": [vc.Target("second", channel) for channel in range(9)], "scoring": scoring,
        "held_out": held_out, "criteria": ("actgrad", "actgrad:worst"), "densities": DENSITIES,
    }  # fmt: skip
    return Sweep(**given | changes)


def numbers(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("seconds")


@pytest.fixture
def grouped(monkeypatch):
    """Makes every number depend, by a hair, on what it was computed together with, as rounding may."""
    responses, references, scored = module.respond_all, module.respond_full, module.score_all

    def respond_all(circuits, *arguments, **options):
        found = responses(circuits, *arguments, **options)
        return [values * (1 + 1e-4 * values.abs() * len(circuits) * (1 + i)) for i, values in enumerate(found)]

    def respond_full(model, readouts, *arguments, **options):
        found = references(model, readouts, *arguments, **options)
        hair = 1e-3 * len(readouts)
        return [type(one)(one.values + hair * one.values**2, one.frozen) for one in found]

    def score_all(model, targets, *arguments, **options):
        for scores in scored(model, targets, *arguments, **options):
            shift = {name: array + 1e-3 * len(targets) * array**2 for name, array in scores.sums.items()}
            yield type(scores)(**vars(scores) | {"sums": shift})

    for name, function in (("respond_all", respond_all), ("respond_full", respond_full), ("score_all", score_all)):
        monkeypatch.setattr(module, name, function)


@pytest.fixture(scope="module")
def prefixes():
    return random.Random(0).sample(range(1, 9 * 10), 4)


def test_a_resumed_table_is_that_of_an_undisturbed_sweep_to_the_bit(small, grouped, prefixes, tmp_path):
    whole = sweep(job(small))
    for n in prefixes:
        measurements.write(tmp_path / "t.parquet", whole.head(n))
        assert numbers(sweep(job(small), tmp_path / "t.parquet")).equals(numbers(whole)), n


@pytest.mark.parametrize("criterion", ["force,rounds=2", "snip,rounds=2"])
def test_so_is_one_of_a_criterion_that_is_scored_for_every_density(small, grouped, tmp_path, criterion):
    options = {"criteria": (criterion, f"{criterion}:worst"), "densities": (0.5, 0.2), "limits": {criterion: [0.5]},
               "scoring_limits": {criterion: 2}}  # fmt: skip
    whole = sweep(job(small, **options))
    for n in (1, 9, 17):
        measurements.write(tmp_path / "t.parquet", whole.head(n))
        assert numbers(sweep(job(small, **options), tmp_path / "t.parquet")).equals(numbers(whole)), n


@pytest.mark.slow
def test_a_real_network_goes_on_to_the_bit_from_41_prefixes(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.alexnet(weights=None).eval()
    halves = vc.ImageSet.from_tensors(torch.randn(8, 3, 64, 64)).split(0.5, seed=0)
    targets = [vc.Target("features.6", 3), vc.Target("features.6", 5)]
    asked = Sweep(model, targets, *halves, ("actgrad", "random"), PAPER_DENSITIES)
    whole = sweep(asked)
    for n in random.Random(0).sample(range(1, len(whole)), 41):
        measurements.write(tmp_path / "t.parquet", whole.head(n))
        assert numbers(sweep(asked, tmp_path / "t.parquet")).equals(numbers(whole)), n


# ---- what a study has lost, and what is another ----------------------------------------------------------------------


def study(model: nn.Module, folder: Path, **changes) -> Study:
    options = {"targets": [vc.Target("second", 1), vc.Target("second", 2)], "densities": (0.5, 0.2),
               "criteria": ("actgrad", "random")} | changes  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("viscircuits.runs.job.preservation_curve", Mock())
        return run_job(job(model, **options), folder, Origin("small", None, "here", "here"))


@pytest.fixture
def made(small, tmp_path) -> Study:
    return study(small, tmp_path / "s")


@pytest.mark.parametrize("folder", ["circuits", "scores"])
@pytest.mark.parametrize("what", ["missing", "damaged", "of another target"])
def test_what_was_lost_is_made_again_and_the_rows_stay(small, made, folder, what):
    files, rows = sorted((made.path / folder).iterdir()), made.measurements()
    before = [file.read_bytes() for file in files]
    for file, other in ((files[0], before[-1]), (files[-2], before[0])):
        match what:
            case "missing":
                file.unlink()
            case "damaged":
                file.write_bytes(file.read_bytes()[:-1] + b"~")
            case _:
                file.write_bytes(other)
    again = study(small, made.path)
    assert again.measurements().equals(rows)
    assert [file.read_bytes() for file in files] == before


def test_scores_and_circuits_of_another_study_are_made_again(small, made, tmp_path):
    rows, files = made.measurements(), sorted([*(made.path / "scores").iterdir(), *made.circuits()])
    before, other = [file.read_bytes() for file in files], study(small, tmp_path / "other", seed=1)
    for file in files:
        shutil.copy(other.path / file.relative_to(made.path), file)
    assert [file.read_bytes() for file in files] != before
    assert numbers(study(small, made.path).measurements()).equals(numbers(rows))
    assert [file.read_bytes() for file in files] == before


def test_scores_that_are_there_are_not_computed_again(small, made, monkeypatch):
    rows = made.measurements()
    measurements.write(made.measurements_path, rows.head(3), made.hash)
    monkeypatch.setattr(module, "score_all", lambda *a, **k: pytest.fail("scored again"))
    assert numbers(study(small, made.path).measurements()).equals(numbers(rows))


def test_rows_of_another_study_are_refused(small, made, tmp_path):
    other = study(small, tmp_path / "other", seed=1)
    shutil.copy(other.measurements_path, made.measurements_path)
    for use in (made.measurements, lambda: study(small, made.path)):
        with pytest.raises(
            StudyError, match=r"holds the rows of another study .*; put the study's own table there, or"
        ):
            use()


def test_a_table_without_the_hash_of_its_study_goes_on(small, made):
    rows = made.measurements()
    measurements.write(made.measurements_path, rows.head(5))  # as older versions wrote it
    assert numbers(study(small, made.path).measurements()).equals(numbers(rows))


def test_the_hash_of_a_study_is_that_of_what_is_asked(small, made):
    spec = made.header.spec
    moved = {"model": "elsewhere.py:small", "scoring": spec.scoring.model_copy(update={"source": "/elsewhere"})}
    assert spec.model_copy(update=moved).hash == spec.hash
    assert spec.model_copy(update={"seed": 1}).hash != spec.hash


def test_other_code_with_the_same_weights_is_refused(made):
    other = network(factor=2.0)
    assert fingerprint(other) == made.header.spec.fingerprint
    before = {file: file.read_bytes() for file in made.path.rglob("*") if file.is_file()}
    with pytest.raises(StudyError, match=r"the model in .* computes something else than when .*put its code back, or"):
        study(other, made.path)
    assert {file: file.read_bytes() for file in made.path.rglob("*") if file.is_file()} == before


def edited(made: Study, **fields: object) -> None:
    value = json.loads((made.path / "study.json").read_text()) | fields
    (made.path / "study.json").write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def test_of_another_torch_the_graph_is_another_with_a_warning(made):
    edited(made, torch="1.0")
    with pytest.warns(UserWarning, match=r"was traced otherwise with viscircuits .*, torch 1\.0"):
        study(network(factor=2.0), made.path)


def test_a_study_that_does_not_say_its_graph_goes_on(made):
    edited(made, graph=None)
    study(network(factor=2.0), made.path)


def test_a_graph_has_one_hash_whatever_its_nodes_and_functions_are_called(small):
    class Renamed(Small):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.first(x))
            return self.second(y * self.factor).mean((2, 3))

    renamed = Renamed().eval()
    one, same, other = (graph_fingerprint(m, trace(m, (3, 12, 12))) for m in (small, renamed, network(3.0)))
    assert one == same != other


def test_going_on_with_another_version_is_recorded_and_told(small, made):
    from viscircuits.report.report import _again

    edited(made, viscircuits="0.0.1")
    study(small, made.path)  # nothing was left to do
    assert Study.open(made.path).header.continued == ()
    measurements.write(made.measurements_path, made.measurements().head(3), made.hash)
    with pytest.warns(UserWarning, match=r"was begun with viscircuits 0\.0\.1, torch .*, and this is viscircuits"):
        again = study(small, made.path)
    now = f"viscircuits {vc.__version__}, torch {torch.__version__}"
    assert again.header.continued == (now,)
    assert f"; went on with {now}" in str(_again(again, []))


# ---- several at once -------------------------------------------------------------------------------------------------

ENTERS = """
import sys, time
from viscircuits.errors import StudyError
from viscircuits.study.folder import Study
from viscircuits.study.spec import Pictures, Spec
images = Pictures(source="here", count=3, hash="x")
spec = Spec(model="m", weights=None, fingerprint="f", input_shape=(3, 8, 8), targets=("a:1",), scoring=images,
            held_out=images, criteria=("random",), densities=(0.5,), seed=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
try:
    Study.create(sys.argv[1], spec)
    print("in", flush=True)
except StudyError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def two(quick_start):
    """Two processes with a question each, ready to enter a folder."""
    started = []

    def start(folder: Path, *seeds: int):
        for seed in seeds:
            command = [sys.executable, "-c", ENTERS, str(folder), str(seed)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, **pipes, env=quick_start))
        assert [one.stdout.readline() for one in started] == ["ready\n"] * len(seeds)
        return started

    yield start
    for one in started:
        one.communicate("\n")


def entered(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_two_questions_that_enter_a_folder_at_once_one_wins(two, tmp_path):
    processes = two(tmp_path / "new", 1, 2)
    for process in processes:
        tell(process)
    said = sorted(map(entered, processes))
    assert said[1] == "in"
    assert "holds another study (it differs in seed" in said[0]
    assert [f.name for f in (tmp_path / "new").glob("[!.]*")] == ["study.json"]


def test_a_question_gives_way_to_another_only_when_its_process_is_gone(two, tmp_path):
    first, second = two(tmp_path / "new", 1, 2)
    tell(first)
    assert entered(first) == "in"
    tell(second)
    assert "holds another study" in entered(second)
    first.kill()
    first.wait()
    made = Study.open(tmp_path / "new")
    assert made.header.spec.seed == 1
    assert list(made.path.glob(".claim~*"))
    again = Study.create(made.path, made.header.spec.model_copy(update={"seed": 3}))
    assert again.header.spec.seed == 3
    again.release()
    assert [f.name for f in made.path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("linked", [True, False])
def test_a_new_file_is_made_once(tmp_path, monkeypatch, linked):
    if not linked:  # as on file systems without links
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError))
    store.write_json(tmp_path / "a.json", 1, new=True)
    with pytest.raises(FileExistsError):
        store.write_json(tmp_path / "a.json", 2, new=True)
    assert store.read_json(tmp_path / "a.json") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]


# ---- temporary files -------------------------------------------------------------------------------------------------


def test_only_what_a_process_left_that_is_gone_is_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = temporary._own(os.getpid())
    name = ".a.json~{}~{}~{}~0123abcd.json".format
    gone = {
        name(own.host, ended.pid, own.started),
        name(own.host, own.process, own.started + 1),  # its number was given again
    }
    stay = {
        name(own.host, *own[1:]), name("another-host", ended.pid, own.started), ".a.json.0123.json", "a.json",
        f"x{name(own.host, ended.pid, 1)}", temporary.beside(tmp_path / "b.json").name,
    }  # fmt: skip
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for file in gone | stay:
        (tmp_path / "deep" / "er" / file).touch()
    before = time.time() - 10**9
    for file in (tmp_path / "deep" / "er").iterdir():
        os.utime(file, (before, before))  # no clock decides
    temporary.clear(tmp_path)
    assert {file.name for file in (tmp_path / "deep" / "er").iterdir()} == stay


def test_a_process_that_ended_is_gone_before_its_parent_looks():
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    started = temporary._state(ended.pid)
    if started is None:
        pytest.skip("the system does not tell")
    ended.stdout.read()
    owner = temporary._own(os.getpid())._replace(process=ended.pid, started=started[1])
    for _ in range(500):
        if owner.is_gone:
            break
        time.sleep(0.01)
    assert owner.is_gone
    ended.communicate()


def test_temporary_names_hold_host_and_process_and_are_short(tmp_path):
    import platform

    path = temporary.beside(tmp_path / ("é" * 120 + ".parquet"))
    assert f"~{platform.node()[:20]}" in path.name
    assert f"~{os.getpid()}~" in path.name
    assert path.suffix == ".parquet"
    assert len(path.name.encode()) <= 255
