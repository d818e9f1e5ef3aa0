"""Shared fixtures: one seed, one thread, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of weights and pictures; the test is skipped where it is absent."""
    folder = Path(__file__).parents[1] / os.environ.get("VISCIRCUITS_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set VISCIRCUITS_DATA")
    return folder.resolve()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write the golden texts anew instead of comparing")


@pytest.fixture(scope="session")
def shapesnet() -> torch.nn.Module:
    """The built-in network; shared, so take a copy before changing it."""
    from viscircuits.model import zoo

    return zoo.load("shapesnet").model


@pytest.fixture(scope="session")
def shapes():
    """24 pictures with labels as the built-in network takes them, split in two halves."""
    from viscircuits.data.images import ImageSet
    from viscircuits.data.shapes import generate
    from viscircuits.model import zoo

    drawn = generate(24, seed=5)
    prepared = zoo.load("shapesnet").prepare(drawn.images)
    return ImageSet.from_tensors(prepared, drawn.labels.tolist()).split(0.5, seed=0)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Runs the command line in this process; returns (exit status, standard output, standard error)."""
    import sys
    import warnings

    from viscircuits.cli.main import run

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # so that it is put back

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["viscircuits", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run()
        call.error = stop.value.__context__
        return (int(stop.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def quick_start() -> dict[str, str]:
    """An environment in which processes start fast: compiled Python is kept, one thread, a terminal of fixed width."""
    import tempfile

    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    cache = Path(tempfile.gettempdir()) / "viscircuits-pycache"
    return kept | {"PYTHONPYCACHEPREFIX": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
