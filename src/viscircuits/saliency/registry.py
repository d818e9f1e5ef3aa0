"""The criteria by name, and `score` and `score_all`, which run any of them."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Literal

import torch
from torch import nn

from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, closest
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.saliency.actgrad import actgrad
from viscircuits.saliency.activation import activation
from viscircuits.saliency.force import force
from viscircuits.saliency.gradient import gradient
from viscircuits.saliency.magnitude import magnitude
from viscircuits.saliency.passes import Pass
from viscircuits.saliency.plan import plan
from viscircuits.saliency.random import random
from viscircuits.saliency.snip import snip
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget
from viscircuits.types import GRANULARITIES, Granularity, Progress

CRITERIA: dict[str, Callable[..., list[Scores]]] = {
    "actgrad": actgrad,
    "snip": snip,
    "force": force,
    "magnitude": magnitude,
    "random": random,
    "activation": activation,
    "gradient": gradient,
}
"""Name -> ``(Pass, *, options) -> one Scores a target``. To add a criterion, write such a function and name it here."""


def needs_density(criterion: str) -> bool:
    """Whether the criterion scores for one density only, and so has to be told which."""
    return "density" in inspect.signature(lookup(criterion)).parameters


def lookup(criterion: str) -> Callable[..., list[Scores]]:
    """Returns a criterion by name; a `MaskError` lists the names when there is none."""
    if criterion not in CRITERIA:
        raise MaskError(
            f"unknown criterion {criterion!r}{closest(criterion, CRITERIA)}; there are {', '.join(CRITERIA)}"
        )
    return CRITERIA[criterion]


def score(
    model: nn.Module,
    target: AnyTarget,
    images: ImageSet,
    criterion: str = "actgrad",
    *,
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    density: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Returns how much every relevant structure matters to a target.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: what to explain.
        images: the pictures to score on.
        criterion: a name in `CRITERIA`.
        granularity: what one score stands for: "kernel", "filter" or "weight".
        normalise: "minmax" scales each layer to [0, 1] (paper 8.5); for force, in every round.
        density: the density to score for; only for criteria that depend on it (force).
        seed: for criteria that draw random numbers.
        batch_size: pictures at a time; changes no score beyond rounding; chosen to fit the memory limit where None.
        memory: the most bytes the working set may take, beside the model and pictures held in memory; 2 GiB where None.
        progress: called as the work goes on.

    Raises:
        TargetError, ImageError, MaskError, UnsupportedOperation: see each.
    """
    (scores,) = score_all(
        model, [target], images, criterion, granularity=granularity, normalise=normalise, density=density, seed=seed,
        batch_size=batch_size, memory=memory, progress=progress,
    )  # fmt: skip
    return scores


def score_all(
    model: nn.Module,
    targets: Sequence[AnyTarget],
    images: ImageSet,
    criterion: str = "actgrad",
    *,
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    density: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Scores]:
    """Yields the scores of every target, in order; some targets of one layer are scored together, which is faster.

    Memory does not grow with the number of targets: save what comes (`Scores.save`) and let it go. The arguments are
    those of `score`.
    """
    function = lookup(criterion)
    if granularity not in GRANULARITIES:
        raise MaskError(f"unknown granularity {granularity!r}; expected one of {', '.join(GRANULARITIES)}")
    if normalise not in (None, "minmax"):
        raise MaskError(f"unknown normalisation {normalise!r}; expected 'minmax' or None")
    wanted = needs_density(criterion)
    if wanted and density is None:
        raise MaskError(f"{criterion} depends on the density: give density=, a fraction in (0, 1]")
    if density is not None and not 0 < density <= 1:
        raise MaskError(f"density {density!r} is out of range; expected a fraction in (0, 1], such as 0.1")
    given = {"density": density, "seed": seed, "normalise": normalise}
    options = {k: v for k, v in given.items() if k in inspect.signature(function).parameters}
    readouts = [Readout(target, trace(model, images[0].shape)) for target in targets]
    while readouts:
        alike = list(takewhile(lambda readout: readout.layers == readouts[0].layers, readouts))
        size = plan(alike, memory=memory, batch_size=batch_size)
        together = [readout.target for readout in readouts[: size.targets]]
        del readouts[: size.targets]
        with torch.inference_mode(False):  # gradients are needed, whatever the caller does
            found = function(Pass(model, together, images, granularity, size.batch_size, progress), **options)
        for scores in found:
            yield scores.minmax() if normalise == "minmax" else scores
