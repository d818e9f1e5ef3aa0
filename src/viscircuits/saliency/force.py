"""FORCE: SNIP measured in ever sparser networks, because a kernel matters differently where others are gone.

Source: circuit pruning, sections 3.3 and 8.3, equations 10 and 11 (de Jorge et al. 2020):

    k_t = exp(alpha log k + (1 - alpha) log m),   alpha = t / T,   T = 10

with ``m`` relevant structures and ``k`` wanted. Mask t holds the k_t best by SNIP measured under mask t - 1.
"""

import math
from dataclasses import replace
from typing import Literal

from viscircuits.mask import Mask
from viscircuits.saliency.passes import Pass
from viscircuits.saliency.pool import pool
from viscircuits.scores import Scores, kept_count

ROUNDS = 10


def force(
    job: Pass, *, density: float, rounds: int = ROUNDS, normalise: Literal["minmax"] | None = None
) -> list[Scores]:
    """Returns, per target, the scores whose selection at ``density`` is mask T; they select at no other density.

    The score of round t is ``mean |w * df/dw'|`` with the gradient taken in the network under mask t - 1 (the full
    network for t = 1). ``w`` is the model's own weight, so this is the gradient with respect to the mask and removed
    kernels can come back. ``normalise="minmax"`` scales every round's scores within each layer before they select.

    Differs: 1. T scoring passes and mask T is the result; the authors' code scores once more under mask T.
    """
    return [_force(one, density, rounds, normalise) for one in job.each()]


def _force(job: Pass, density: float, rounds: int, normalise: Literal["minmax"] | None) -> Scores:
    mask: Mask | None = None
    scores: Scores | None = None
    relevant = sum(int(array.sum()) for array in job.relevant[0].values())
    for t, size in enumerate(schedule(kept_count(density, relevant), relevant, rounds), start=1):
        gradients = job.absolute_gradients(f"force {t}/{rounds}", mask)
        sums = {name: pool(job.weight(name).abs() * g, job.granularity) for name, g in gradients.items()}
        (scores,) = job.scores("force", sums)
        scores = scores.minmax() if normalise == "minmax" else scores
        mask = scores.select(count=size)
    assert scores is not None
    return replace(scores, density=density)


def schedule(k: int, m: int, rounds: int) -> list[int]:
    """Returns how many structures each round keeps, equation 11: from just below ``m`` down to ``k``."""
    alphas = [t / rounds for t in range(1, rounds + 1)]
    sizes = [round(math.exp(a * math.log(k) + (1 - a) * math.log(m))) for a in alphas]
    return [*sizes[:-1], k]
