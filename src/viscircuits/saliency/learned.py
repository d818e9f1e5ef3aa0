"""Learned: gates trained to keep the target's response while they are shut, one after the other, for good.

Source: our own; gates as in Louizos et al. 2018 (L0 regularisation) and Edge Pruning (Bhaskar et al. 2024), without
their noise: the sum of the gates is met exactly by a common threshold, so there is no penalty to tune.

One run makes one ranking, and so nested circuits for every density. It is trained at the *rungs* (`DENSITIES`); between
two rungs the order is that of the gates. What is above the first rung comes back in the order of the start. The choice
of a ranking over separate masks is deliberate: it costs little (where gates were free to open again, none did), it
makes circuits of different sizes comparable, and everything that reads `Scores` works.

Known weakness: 1 - r does not see how large a response is, so gates that let almost nothing through may look good until
they are made binary. In networks of few structures the loss "difference" can be the better one. A term for the size
beside 1 - r found more of planted circuits (0.1 of the squared difference of the standard deviations), and kept less of
SqueezeNet's channels.

What failed before, or was no better: straight-through top-k; swapping kernels by their first-order gain; a first spread
of the logits above 0.5, which ties the gates to the start; hardening fully at every halving; three times the steps;
twice the rate or half of it. Three times the pictures a step gain about as much as a longer memory of gradients, which
costs nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor

from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError
from viscircuits.model.fingerprint import fingerprint
from viscircuits.saliency.actgrad import actgrad
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.gates import Gates, best
from viscircuits.saliency.gates.ladder import Ladder
from viscircuits.saliency.gates.training import LOSSES, Training
from viscircuits.saliency.snip import snip
from viscircuits.scores import Scores, kept_count
from viscircuits.store import digest

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
"""The rungs, unless told otherwise."""

STEPS = 60
"""Steps for every halving of what is kept; at each rung two to four rounds of a third of that follow."""

STARTS = (snip, actgrad)
"""The criteria that may be the start: the one that is best on the held pictures, over all rungs."""
START_PICTURES = 100
"""Most pictures that the start is scored on."""
HELD_SHARE, HELD_LEAST, HELD_MOST = 0.2, 4, 64
"""Pictures that masks are measured on, and that are not trained on: a share, and at least and most so many."""


def learned(
    job: Pass,
    *,
    density: float | None = None,
    densities: Sequence[float] = DENSITIES,
    loss: str = "correlation",
    steps: int = STEPS,
    seed: int = 0,
    normalise: Literal["minmax"] | None = None,
    resume: str | Path | None = None,
) -> list[Scores]:
    """Returns, per target, one minus the rank over the number of structures: what is shut last scores highest.

    The start is the ranking of a single-shot criterion. At every rung the circuit is at least as good as the start's on
    the held pictures (a share of ``job.images`` that is not trained on).

    Args:
        job: the model, the targets, the pictures.
        density: the smallest density that is wanted, which saves the rungs below it and becomes one; all of
            ``densities`` where None.
        densities: the rungs, fractions in (0, 1).
        loss: "correlation" trains for 1 - r, "difference" for mean |circuit - full| over mean |full|.
        steps: for every halving of what is kept.
        seed: for the split of the pictures and their order.
        normalise: must be None: scaling each layer for itself would undo the ranking.
        resume: a folder in which every finished rung is kept; a later run with the same arguments goes on from there.
    """
    if normalise is not None:
        raise MaskError("learned ranks structures across layers, and 'minmax' would undo that; leave normalise out")
    if loss not in LOSSES:
        raise MaskError(f"unknown loss {loss!r}; expected one of {', '.join(LOSSES)}")
    wrong = next((d for d in densities if not 0 < d < 1), None)
    if wrong is not None:
        raise MaskError(f"density {wrong!r} is out of range; expected fractions in (0, 1), such as 0.1")
    if steps < 1:
        raise MaskError(f"steps {steps} is out of range; expected at least 1")
    wanted = [d for d in densities if density is None or d > density] + ([density] if density is not None else [])
    return [scores for one in job.each() for scores in _learned(one, wanted, loss, steps, seed, resume)]


def _learned(
    job: Pass, densities: Sequence[float], loss: str, steps: int, seed: int, resume: str | Path | None
) -> list[Scores]:
    (relevant,) = job.relevant
    gates = Gates(job.model, job.graph, relevant, job.granularity)
    # the whole network is no rung: nothing would be shut on the way to it
    counts = sorted({kept_count(d, gates.count) for d in densities} - {gates.count}, reverse=True)
    own, held = divided(job, seed)
    training = Training(own, held, gates, loss, steps, seed)
    start, worths = _start(training, counts, seed)
    file = None if resume is None else Path(resume) / _name(job, loss, steps, seed, counts)
    ranking = Ladder(training, counts, start, worths, file, job.progress).ranking()
    return job.scores("learned", {name: array[None] for name, array in gates.unflat(ranking).items()}, n_images=1)


def divided(job: Pass, seed: int) -> tuple[Pass, ImageSet]:
    """Returns the pass over the pictures to train on, and those to measure on; few pictures serve for both."""
    n = len(job.images)
    size = min(round(HELD_SHARE * n), HELD_MOST)
    if size < HELD_LEAST:
        return job, job.images
    held, own = job.images.split(size / n, seed)
    return replace(job, images=own), held


def _start(training: Training, counts: Sequence[int], seed: int) -> tuple[Tensor, list[float]]:
    """The scores of the best start, one number a gate, and how good its circuits are at every rung."""
    job = training.job
    images = job.images.take(min(START_PICTURES, len(job.images)), seed)
    starts: list[tuple[Tensor, list[float]]] = []
    for criterion in STARTS:
        (scores,) = criterion(replace(job, images=images))
        values = training.gates.flat(scores.sums).double()
        starts.append((values, [training.worth(best(values, k).to(training.device)) for k in counts]))
    return max(starts, key=lambda pair: sum(pair[1]))


def _name(job: Pass, loss: str, steps: int, seed: int, counts: Sequence[int]) -> str:
    """The name of a file for a training that is the same to the last option."""
    options = (str(job.targets[0]), job.granularity, loss, str(steps), str(seed), str(counts))
    return f"learned-{digest(fingerprint(job.model), job.images.hash, *options)[:16]}.safetensors"
