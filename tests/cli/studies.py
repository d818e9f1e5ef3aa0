"""A small study of the built-in network, as the command line makes it."""

from pathlib import Path

from viscircuits.cli.job import Source, run_job
from viscircuits.data.images import ImageSet
from viscircuits.data.shapes import generate
from viscircuits.evaluate.sweep import Sweep
from viscircuits.model import zoo
from viscircuits.study import Study
from viscircuits.target import parse_target

TARGETS = ("features.3:7", "features.6:7")
DENSITIES = (0.3, 0.08)


def small_study(folder: Path, targets: tuple[str, ...] = TARGETS) -> Study:
    model, prepare = zoo.load("shapesnet")
    drawn = generate(24, seed=5)
    images = ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
    halves = images.split(0.5, seed=0)
    job = Sweep(model, [*map(parse_target, targets)], *halves, ("actgrad", "random"), DENSITIES)
    made = "viscircuits.data.shapes.generate(24, seed=5)"
    return run_job(job, folder, Source("shapesnet", None, made, made))
