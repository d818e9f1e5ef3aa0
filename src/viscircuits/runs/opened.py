"""A study with what it was made on: its model and, where they can be found again, the pictures it measured on.

A study may be somebody else's. What its file names is data: it is looked up in lists (built in, torchvision, timm) or
read, never imported or called, and only what has the recorded hash is used. The rest the user names on the command
line.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import nn

from viscircuits.data.images import ImageSet, Prepare
from viscircuits.data.shapes import SIZE, generate
from viscircuits.errors import ImageError, ModelError, StudyError
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.zoo import zoo
from viscircuits.runs import networks
from viscircuits.runs.pictures import read_pictures
from viscircuits.store import temporary
from viscircuits.study.folder import Study
from viscircuits.study.spec import Spec

log = logging.getLogger(__name__)

Again = Callable[..., str]
"""The command that was typed, with more options."""

_MEMORY = 2 * 2**30
"""Bytes that pictures which are drawn again may take."""

_UNRECORDED = 100_000
"""Pictures that a folder may hold where a study of a few of them does not say how many there were, as older ones."""


@dataclass(frozen=True)
class Opened:
    """What is needed to look at a study's circuits; without pictures where they are not at hand."""

    study: Study
    model: nn.Module
    prepare: Prepare
    images: ImageSet | None


def open_study(path: Path, model: str | None, images: Path | None, device: str, again: Again | None = None) -> Opened:
    """Returns a study with its model, and pictures from a folder or file, else those that it measured on.

    What killed processes left in the study is removed.

    Args:
        path: the study's folder.
        model: what the user calls the model; see `load_model`.
        images: where to take pictures from; None for those that the study measured on.
        device: cpu, cuda, cuda:NUMBER or auto.
        again: see `load_model`.
    """
    study = Study.open(path)
    temporary.clear(path)
    spec = study.header.spec
    own, prepare = load_model(spec, model, again)
    pictures = held_out(spec, prepare) if images is None else read_pictures(images, prepare, white=spec.held_out.white)
    return Opened(study, networks.on_device(own, device), prepare, pictures)


def load_model(spec: Spec, model: str | None = None, again: Again | None = None) -> zoo.Loaded:
    """Returns a study's model, and what prepares its pictures at the study's size where that is not the usual one.

    Args:
        spec: of the study, which may be anybody's.
        model: what the user calls the model; needed where the study's own name is that of code (`zoo.is_foreign`).
        again: gives the command to type with more options, for the message.

    Raises:
        ModelError: the model must be named, cannot be loaded, or is not the one that the study was made on.
        StudyError: the pictures' shape is none.
    """
    shape, name = spec.input_shape, spec.model if model is None else model
    # before anything is loaded: what prepares pictures would be made for this size, and take as much memory
    if max(shape) > zoo.LARGEST:
        raise StudyError(
            f"expected an input shape in study.json of at most {zoo.LARGEST} x {zoo.LARGEST}, got {list(shape)}; the "
            "file is damaged"
        )
    if model is None and zoo.is_foreign(name):
        call = f"model={name!r}" if again is None else again("--model", name)
        raise ModelError(
            f"the study names {name!r} as its model, which is code, and no code is run on the word of a file; if you "
            f"know and trust it: {call}"
        )
    own, prepare = networks.load(name, spec.weights)
    if (loaded := fingerprint(own)) != spec.fingerprint:
        given = name + (f" with weights {spec.weights}" if spec.weights else "")
        raise ModelError(
            f"expected the model that the study was made on, of fingerprint {spec.fingerprint}; got {given!r}, of "
            f"fingerprint {loaded}; give that model with --model, and its weights where the study has them"
        )
    if zoo.prepared_shape(prepare) == shape:
        return zoo.Loaded(own, prepare)
    try:
        return zoo.Loaded(own, networks.load(name, spec.weights, input_size=shape[-1]).prepare)
    except ModelError:  # a callable that brings its own prepare, which leaves pictures as large as they are
        return zoo.Loaded(own, prepare)


def held_out(spec: Spec, prepare: Prepare) -> ImageSet | None:
    """Returns the pictures a study measured on, made anew from their source; None where that gives others."""
    n, total = spec.held_out.count, spec.scoring.count + spec.held_out.count
    if not 0 < n < total:
        return None
    try:
        everything = _source(spec, prepare)
        # a study does not say whether these pictures had a folder of their own or were set aside from those scored on;
        # both are tried, and the hash decides
        candidates = [everything] if len(everything) == n else []
        if spec.scoring.source == spec.held_out.source and total <= len(everything):
            used = everything.take(total, spec.seed) if total < len(everything) else everything
            candidates.append(used.split(1 - n / total, seed=spec.seed)[1])
        return next((images for images in candidates if images.hash == spec.held_out.hash), None)
    except (ImageError, OSError) as error:
        log.warning("the study's pictures are not used: %s", error)
        return None


def _source(spec: Spec, prepare: Prepare) -> ImageSet:
    """All pictures of the source, which must not be many more than the study says."""
    source, n = spec.held_out.source, spec.held_out.count
    # the text that `viscircuits demo` records; it is read, and what it names is never looked up
    if drawn := re.fullmatch(r"viscircuits\.data\.shapes\.generate\((\d{1,18}), seed=(\d{1,18})\)", source):
        most = min(spec.scoring.count + n, _MEMORY // (4 * max(prod(spec.input_shape), 3 * SIZE**2)))
        if int(drawn[1]) > most:
            raise ImageError(f"expected at most {most:,} drawn pictures, got {source!r}")
        return _drawn(int(drawn[1]), int(drawn[2]), prepare)
    most = n
    if source == spec.scoring.source:
        most = spec.held_out.found or max(spec.scoring.count + n, _UNRECORDED)
    return read_pictures(Path(source), prepare, white=spec.held_out.white, classes=spec.held_out.classes, up_to=most)


def _drawn(n: int, seed: int, prepare: Prepare) -> ImageSet:
    shapes = generate(n, seed=seed)
    try:
        prepared = prepare(shapes.images)  # pyright: ignore[reportArgumentType] (the built-in network's takes tensors)
    except Exception as error:  # that of another network
        raise ImageError(f"drawn pictures are for the built-in network ({type(error).__name__}: {error})") from error
    return ImageSet.from_tensors(prepared, shapes.labels.tolist())
