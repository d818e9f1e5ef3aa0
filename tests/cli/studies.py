"""A small study of the built-in network, as the command line makes it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl

from viscircuits.data.images import ImageSet
from viscircuits.data.shapes import generate
from viscircuits.evaluate.sweep import Sweep
from viscircuits.model.zoo import zoo
from viscircuits.runs.job import run_job
from viscircuits.runs.spec import Origin
from viscircuits.study.folder import Study
from viscircuits.target import parse_target

TARGETS = ("features.3:7", "features.6:7")
DENSITIES = (0.3, 0.08)


def small_study(
    folder: Path,
    targets: tuple[str, ...] = TARGETS,
    criteria: tuple[str, ...] = ("actgrad", "random"),
    densities: tuple[float, ...] = DENSITIES,
    *,
    command: str = "viscircuits made",
) -> Study:
    model, prepare = zoo.load("shapesnet")
    drawn = generate(24, seed=5)
    images = ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
    halves = images.split(0.5, seed=0)
    job = Sweep(model, [*map(parse_target, targets)], *halves, criteria, densities)
    made = "viscircuits.data.shapes.generate(24, seed=5)"
    return run_job(job, folder, Origin("shapesnet", None, made, made), command)


def retold(study: Study, folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Study:
    """The same study with another table of measurements."""
    shutil.copytree(study.path, folder)
    again = Study.open(folder)
    change(pl.read_parquet(study.measurements_path)).write_parquet(again.measurements_path)
    return again
