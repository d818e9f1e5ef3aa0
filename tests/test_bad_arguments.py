"""Values that no argument can take: each is refused in one line, by every command and every public function."""

import os
import random
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import bad_commands
import viscircuits as vc
from viscircuits.bounds import places, ranges
from viscircuits.errors import ArgumentError, ImageError, ViscircuitsError

sys.path.insert(0, str(Path(__file__).parent / "cli"))
SHARE = 0.05
"""Of all values, in the default run."""


@pytest.fixture
def unchecked_types():
    """Without the run-time type checks of the test suite, as users have it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    from studies import small_study

    return small_study(tmp_path_factory.mktemp("bad") / "study").path


def refused(command_line, places: bad_commands.Places, cases) -> list[str]:
    """What is wrong with how commands end."""
    wrong = []
    for case in cases:
        words = places.filled(case.arguments)
        try:
            status, _, err = bad_commands.within(bad_commands.SECONDS, lambda words=words: command_line(*words))
        except bad_commands.Hang:
            wrong.append(f"{case}: hangs")
            continue
        except BaseException as error:
            wrong.append(f"{case}: {type(error).__name__}: {error}")
            continue
        lines = [line for line in err.splitlines() if line.strip()]  # bars may stand before
        told = status == 2 or (
            status == 1 and [line.startswith("error: ") for line in lines].index(True) + 1 == len(lines)
        )
        if not told or "Traceback" in err:
            wrong.append(f"{case}: status {status}, {err[-300:]!r}")
    return wrong


def some_cases(share: float) -> list[bad_commands.Case]:
    chosen = random.Random(0)
    return [case for case in bad_commands.cases() if chosen.random() < share]


@pytest.mark.usefixtures("unchecked_types")
def test_a_twentieth_of_the_bad_values_of_options(command_line, tmp_path, study, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(command_line, bad_commands.Places(tmp_path, study), some_cases(SHARE)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_types")
def test_all_bad_values_of_options(command_line, tmp_path, study, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = some_cases(1)
    assert len(cases) > 500
    assert refused(command_line, bad_commands.Places(tmp_path, study), cases) == []


def called(folder: Path, share: float) -> list[str]:
    """What is wrong with how calls of functions end, in a process without the type checks of the test suite."""
    script = Path(__file__).parent / "bad_calls.py"
    paths = os.pathsep.join([str(Path(vc.__file__).parents[1]), str(script.parent)])
    done = subprocess.run(
        [sys.executable, script, folder, str(share), "0"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *wrong, count = done.stdout.splitlines()
    assert int(count) > 1000 * share
    return wrong


def test_a_twentieth_of_the_bad_values_of_arguments(tmp_path):
    assert called(tmp_path, SHARE) == []


@pytest.mark.slow
def test_all_bad_values_of_arguments(tmp_path):
    assert called(tmp_path, 1) == []


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_has_a_range(seed, shapes):
    with pytest.raises(ViscircuitsError, match=r"seed .* is out of range; expected a whole number from 0 to 9,223,"):
        shapes[0].take(2, seed)


@pytest.mark.parametrize("value", [1.5, float("nan"), True, "3", None])
def test_a_wrong_type_is_a_type_error_that_names_the_argument(value, shapes):
    with pytest.raises(TypeError, match=r"^seed: expected a whole number from 0 to 9,223.*, got ") as caught:
        shapes[0].take(2, value)
    assert isinstance(caught.value, ArgumentError)


@pytest.mark.usefixtures("unchecked_types")
def test_integers_and_numbers_of_numpy_and_torch_are_taken(shapes):
    import numpy as np

    expected = shapes[0].take(2, 3).names
    assert all(shapes[0].take(n, s).names == expected for n, s in [(np.int64(2), 3), (torch.tensor(2), 3)])
    assert ranges.holds(np.float32(0.5), ranges.DENSITY)
    assert not ranges.holds(np.float32("nan"), ranges.DENSITY)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r"expected a file for --classes, but .*pipe' is a pipe$"):
        places.regular(tmp_path / "pipe", "--classes", ImageError)


def test_each_measured_picture_that_was_scored_on_counts(shapesnet, shapes):
    _, held_out = shapes
    copies = held_out.subset([0, 0, 0, 1])
    job = vc.Sweep(shapesnet, [vc.Target("features.3", 7)], scoring=copies, held_out=copies, criteria=["magnitude"],
                   densities=[0.5])  # fmt: skip
    with pytest.warns(UserWarning, match="4 of the 4 pictures to measure on were also scored on"):
        list(job.measurements())
