"""The criteria by name, and `score` and `score_all`, which run any of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import MaskError, TargetError, closest
from viscircuits.model.guard.clean import clean
from viscircuits.model.trace import trace
from viscircuits.readout import bound
from viscircuits.saliency.actgrad import actgrad
from viscircuits.saliency.activation import activation
from viscircuits.saliency.criterion import Criterion
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.plan import MEMORY, in_passes
from viscircuits.saliency.force import force
from viscircuits.saliency.gradient import gradient
from viscircuits.saliency.learned import learned
from viscircuits.saliency.magnitude import magnitude
from viscircuits.saliency.random import random
from viscircuits.saliency.reconstruct import reconstruct
from viscircuits.saliency.snip import snip
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget, as_target
from viscircuits.types import GRANULARITIES, Granularity, Progress

_ROUNDS = {"rounds": int, "steps": int}
"""Options of every criterion that `viscircuits.saliency.engine.rounds` measures."""

CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (
        Criterion("actgrad", actgrad, _ROUNDS, ("density", "normalise")),
        Criterion("snip", snip, _ROUNDS, ("density", "normalise")),
        Criterion("force", force, {"rounds": int}, ("density", "normalise"), needs_density=True),
        Criterion("magnitude", magnitude),
        Criterion("random", random, passed=("seed",)),
        Criterion("activation", activation),
        Criterion("gradient", gradient, _ROUNDS, ("density", "normalise")),
        Criterion(
            "learned", learned, {"densities": tuple, "loss": str, "steps": int, "resume": str},
            ("density", "seed", "normalise", "resume"), ranks=True, learned=True,
        ),
        Criterion(
            "reconstruct", reconstruct, {"rounds": int, "positions": int, "mean": float, "block": int},
            ("density", "seed", "normalise"), ranks=True,
        ),
    )
}  # fmt: skip
"""Name -> criterion. To add one, write a function ``(Pass, *, options) -> one Scores a target`` and state it here."""


def needs_density(criterion: str) -> bool:
    """Returns whether a criterion, by its text, scores for one density only, and so has to be told which."""
    return lookup(criterion).needs_density


def lookup(criterion: str) -> Criterion:
    """Returns a criterion by its text: a name, or a name with options of its own, as in ``"snip,rounds=5"``.

    Raises:
        MaskError: no such criterion or option; the text lists those there are.
    """
    name, *texts = criterion.split(",")
    if name not in CRITERIA:
        raise MaskError(f"unknown criterion {name!r}{closest(name, CRITERIA)}; there are {', '.join(CRITERIA)}")
    return CRITERIA[name].with_options(texts) if texts else CRITERIA[name]


@checked
def score(
    model: nn.Module,
    target: AnyTarget | str,
    images: ImageSet | Tensor,
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
        target: what to explain, or its text.
        images: the pictures to score on; a tensor ``[n, c, h, w]`` of prepared ones too.
        criterion: a name in `CRITERIA`, perhaps with options of its own: ``"snip,rounds=10"``, ``"actgrad,steps=5"``.
        granularity: what one score stands for: "kernel", "filter" or "weight".
        normalise: "minmax" scales each layer to [0, 1] (paper 8.5); where there are rounds, in every round.
        density: the density to score for; criteria in rounds (force) need it, learned stops there.
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


@checked
@clean
def score_all(
    model: nn.Module,
    targets: Sequence[AnyTarget | str],
    images: ImageSet | Tensor,
    criterion: str = "actgrad",
    *,
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    density: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> Iterator[Scores]:
    """Yields the scores of every target, in order; some targets of one layer are scored together, which is faster.

    Memory does not grow with the number of targets: save what comes (`Scores.save`) and let it go.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        targets: what to explain, or their texts; at least one.
        images: the pictures to score on; a tensor ``[n, c, h, w]`` of prepared ones too.
        criterion, granularity, normalise, density, seed, batch_size, memory: as for `score`.
        resume: a folder in which a criterion that takes long (learned) keeps how far it has come and goes on from
            there, unless its text names another.
        progress: called as the work goes on.

    Raises:
        TargetError, ImageError, MaskError, UnsupportedOperation: as for `score`.
    """
    targets, images = [as_target(target) for target in targets], as_images(images)
    if not targets:
        raise TargetError("no target is given; expected a list of at least one")
    method = lookup(criterion)
    if granularity not in GRANULARITIES:
        raise MaskError(f"unknown granularity {granularity!r}; expected one of {', '.join(GRANULARITIES)}")
    if normalise not in (None, "minmax"):
        raise MaskError(f"unknown normalisation {normalise!r}; expected 'minmax' or None")
    if method.needs_density and density is None:
        raise MaskError(f"{criterion} depends on the density: give density=, a fraction in (0, 1]")
    if density is not None and not 0 < density <= 1:
        raise MaskError(f"density {density!r} is out of range; expected a fraction in (0, 1], such as 0.1")
    options = method.arguments({"density": density, "seed": seed, "normalise": normalise, "resume": resume})
    graph = trace(model, images[0].shape)
    limit = MEMORY if memory is None else memory
    # in_passes alone holds the readouts, and lets go of those that are done: each keeps a number a kernel
    for readouts, size in in_passes([bound(t, graph) for t in targets], memory=limit, batch_size=batch_size):
        together = [readout.target for readout in readouts]
        job = Pass(model, together, images, granularity, size.batch_size, progress, limit)
        for scores in method(job, **options):
            # the function knows its name, but not the options in the text that it was asked for by
            scores = replace(scores, criterion=criterion)
            yield scores.minmax() if normalise == "minmax" else scores
