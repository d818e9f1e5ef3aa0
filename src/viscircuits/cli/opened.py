"""A study with what it was made on: its model and, where they can be found again, the pictures it measured on."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from viscircuits.cli.job import on_device
from viscircuits.cli.pictures import read_pictures
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.data.shapes import generate
from viscircuits.errors import ImageError, ModelError
from viscircuits.model import zoo
from viscircuits.study import Spec, Study


@dataclass(frozen=True)
class Opened:
    """What is needed to look at a study's circuits; without pictures where they are not at hand."""

    study: Study
    model: nn.Module
    prepare: Prepare
    images: ImageSet | None

    @property
    def cache(self) -> Path:
        """Where rendered pictures are kept."""
        return self.study.file("pictures", "cache")


def open_study(path: Path, images: Path | None, device: str, threads: int | None) -> Opened:
    """Returns a study with its model, and pictures from a folder or file, else those that it measured on."""
    study = Study.open(path)
    spec = study.header.spec
    model, prepare = load_model(spec)
    pictures = held_out(spec, prepare) if images is None else read_pictures(images, prepare, white=spec.held_out.white)
    return Opened(study, on_device(model, device, threads), prepare, pictures)


def load_model(spec: Spec) -> zoo.Loaded:
    """The model and what prepares its pictures, at the study's image size where that is not the usual one."""
    usual = zoo.load(spec.model, spec.weights)
    if zoo.prepared_shape(usual.prepare) == spec.input_shape:
        return usual
    try:
        return zoo.load(spec.model, spec.weights, input_size=spec.input_shape[-1])
    except ModelError:  # a callable that brings its own prepare, which leaves pictures as large as they are
        return usual


def held_out(spec: Spec, prepare: Prepare) -> ImageSet | None:
    """Returns the pictures a study measured on, made anew from their source; None where that gives others."""
    everything = _source(spec, prepare)
    if everything is None:
        return None
    n, total = spec.held_out.count, spec.scoring.count + spec.held_out.count
    candidates = [everything] if len(everything) == n else []
    if spec.scoring.source == spec.held_out.source and total <= len(everything):
        used = everything.take(total, spec.seed) if total < len(everything) else everything
        candidates.append(used.split(1 - n / total, seed=spec.seed)[1])
    return next((images for images in candidates if images.hash == spec.held_out.hash), None)


def _source(spec: Spec, prepare: Prepare) -> ImageSet | None:
    source = spec.held_out.source
    if drawn := re.fullmatch(r"viscircuits\.data\.shapes\.generate\((\d+), seed=(\d+)\)", source):
        shapes = generate(int(drawn[1]), seed=int(drawn[2]))
        return ImageSet.from_tensors(prepare(shapes.images), shapes.labels.tolist())  # pyright: ignore
    try:
        return read_pictures(Path(source), prepare, white=spec.held_out.white, classes=spec.held_out.classes)
    except ImageError:
        return None
