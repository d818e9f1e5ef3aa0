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
