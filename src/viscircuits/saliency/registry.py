"""The criteria by name, and `score` and `score_all`, which run any of them."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from viscircuits.bounds import RULES, checked, within
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import MaskError, TargetError, closest
from viscircuits.model.guard.clean import clean
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.saliency.actgrad import actgrad
from viscircuits.saliency.activation import activation
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.plan import Plan, plan
from viscircuits.saliency.force import force
from viscircuits.saliency.gradient import gradient
from viscircuits.saliency.learned import learned
from viscircuits.saliency.magnitude import magnitude
from viscircuits.saliency.random import random
from viscircuits.saliency.snip import snip
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget, as_target
from viscircuits.types import GRANULARITIES, Granularity, Progress

CRITERIA: dict[str, Callable[..., list[Scores]]] = {
    "actgrad": actgrad,
    "snip": snip,
    "force": force,
    "magnitude": magnitude,
    "random": random,
    "activation": activation,
    "gradient": gradient,
    "learned": learned,
}
"""Name -> ``(Pass, *, options) -> one Scores a target``. To add a criterion, write such a function and name it here."""


_GIVEN = ("density", "seed", "normalise")
"""Options that `score` has a place for."""


def needs_density(criterion: str) -> bool:
    """Whether the criterion scores for one density only, and so has to be told which."""
    options = inspect.signature(lookup(criterion)).parameters
    if "density" not in options:
        return False
    return options["density"].default is inspect.Parameter.empty or (
        "rounds" in options and options["rounds"].default > 1
    )


def lookup(criterion: str) -> Callable[..., list[Scores]]:
    """Returns a criterion by its text: a name, or a name with options of its own, as in ``"snip,rounds=5"``.

    Raises:
        MaskError: no such criterion or option; the text lists those there are.
    """
    name, *texts = criterion.split(",")
    if name not in CRITERIA:
        raise MaskError(f"unknown criterion {name!r}{closest(name, CRITERIA)}; there are {', '.join(CRITERIA)}")
    function = CRITERIA[name]
    options = [_option(text, name, function) for text in texts]
    if len(dict(options)) < len(options):
        raise MaskError(f"an option stands twice in {criterion!r}; give each once")
    return partial(function, **dict(options)) if texts else function


def _option(text: str, criterion: str, function: Callable[..., list[Scores]]) -> tuple[str, object]:
    """One option of a criterion's text, as its parameter's type has it."""
    key, _, value = (part.strip() for part in text.partition("="))
    own = {n: p for n, p in inspect.signature(function).parameters.items() if n not in ("job", *_GIVEN)}
    if key not in own:
        raise MaskError(
            f"{criterion} has no option {key!r}{closest(key, own)}; it has {', '.join(own) or 'none'}, written "
            f"'{criterion},option=value'"
        )
    kind = type(own[key].default)
    try:
        read = int(value) if kind is int else tuple(map(float, value.split("/"))) if kind is tuple else value
    except ValueError:
        wanted = "a whole number" if kind is int else "numbers, as in 0.1/0.05"
        raise MaskError(f"option {key} of {criterion}: expected {wanted}, got {value!r}") from None
    if kind is int:  # now, and not after pictures were read
        within(key, read, replace(RULES[key], raised=MaskError))
    return key, read


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

    Memory does not grow with the number of targets: save what comes (`Scores.save`) and let it go. The arguments are
    those of `score`, and ``resume``, a folder in which a criterion that takes long (learned) keeps how far it has come
    and goes on from there, unless its text names another.
    """
    targets, images = [as_target(target) for target in targets], as_images(images)
    if not targets:
        raise TargetError("no target is given; expected a list of at least one")
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
    given = {"density": density, "seed": seed, "normalise": normalise, "resume": resume}
    chosen = function.keywords if isinstance(function, partial) else {}
    options = {k: v for k, v in given.items() if k in inspect.signature(function).parameters and k not in chosen}
    readouts = [Readout(target, trace(model, images[0].shape)) for target in targets]
    for some, size in in_passes(readouts, memory=memory, batch_size=batch_size):
        together = [readout.target for readout in some]
        found = function(Pass(model, together, images, granularity, size.batch_size, progress), **options)
        for scores in found:
            scores = replace(scores, criterion=criterion)
            yield scores.minmax() if normalise == "minmax" else scores


def in_passes(
    readouts: Sequence[Readout], *, memory: int | None = None, batch_size: int | None = None
) -> Iterator[tuple[Sequence[Readout], Plan]]:
    """Yields those of some targets that are scored together, in order, with the plan of their pass.

    Each group alone falls into one pass with the same plan.
    """
    while readouts:
        layers = readouts[0].layers
        alike = list(takewhile(lambda readout, layers=layers: readout.layers == layers, readouts))
        size = plan(alike, memory=memory, batch_size=batch_size)
        yield readouts[: size.targets], size
        readouts = readouts[size.targets :]
