"""Two ways to measure a gradient criterion elsewhere than in the full network: under ever smaller masks, and on a path.

Source: circuit pruning, sections 3.3 and 8.3, equations 10 and 11 (FORCE, de Jorge et al. 2020), for any criterion:

    k_t = exp(alpha log k + (1 - alpha) log m),   alpha = t / T

with ``m`` relevant structures and ``k`` wanted. Mask t holds the k_t best as measured under mask t - 1 (mask 0 is the
full network); removed structures are measured too, with the weights they would have, and can come back.

The path leads from nothing to the mask (or the full network): every kept structure is scaled by the same share, and
the scores are the mean over the middles of ``steps`` equal parts of [0, 1] (integrated gradients, Sundararajan et al.
2017).

Differs: 1. criteria take the magnitude at every point of the path, where integrated gradients take it of the integral.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from viscircuits.errors import MaskError
from viscircuits.mask import Mask
from viscircuits.model.graph import NetGraph
from viscircuits.saliency.engine.passes import Pass
from viscircuits.scores import Scores, kept_count

Measure = Callable[[Pass, str, Mask | None], list[Scores]]
"""``(pass, what to tell the progress, mask) -> scores``, measured in the masked network, or in the full one."""


def measured(
    job: Pass,
    criterion: str,
    measure: Measure,
    *,
    rounds: int = 1,
    steps: int = 1,
    density: float | None = None,
    normalise: Literal["minmax"] | None = None,
) -> list[Scores]:
    """Returns, per target, a criterion's scores after some rounds; the plain ones with one round and one step.

    Args:
        job: the model, the targets, the pictures.
        criterion: its name.
        measure: its definition.
        rounds: T; with more than one the scores select at ``density`` alone, and their selection is mask T.
        steps: points on the path; 1 measures at its end.
        density: what is wanted, in (0, 1].
        normalise: "minmax" scales every round's scores within each layer before they select.
    """
    for name, number in (("rounds", rounds), ("steps", steps)):
        if number < 1:
            raise MaskError(f"{name} {number} is out of range; expected at least 1")
    if rounds == steps == 1:
        return measure(job, criterion, None)
    if rounds == 1:
        return [_on_path(one, criterion, measure, steps, None) for one in job.each()]
    if density is None:
        raise MaskError(f"{criterion} in {rounds} rounds depends on the density: give density=, a fraction in (0, 1]")
    return [_rounds(one, criterion, measure, rounds, steps, density, normalise) for one in job.each()]


def _rounds(
    job: Pass, criterion: str, measure: Measure, rounds: int, steps: int, density: float, normalise: str | None
) -> Scores:
    mask: Mask | None = None  # the first round is measured in the full network
    scores: Scores | None = None
    relevant = sum(int(array.sum()) for array in job.relevant[0].values())
    for t, size in enumerate(schedule(kept_count(density, relevant), relevant, rounds), start=1):
        scores = _on_path(job, f"{criterion} {t}/{rounds}", measure, steps, mask)
        scores = scores.minmax() if normalise == "minmax" else scores
        mask = scores.select(count=size)
    assert scores is not None
    return replace(scores, criterion=criterion, density=density)


def _on_path(job: Pass, label: str, measure: Measure, steps: int, mask: Mask | None) -> Scores:
    """The mean over the path to a mask; measured at its end with one step."""
    if steps == 1:
        (scores,) = measure(job, label, mask)
        return scores
    (relevant,) = job.relevant
    end = mask or Mask(relevant, relevant, job.granularity, job.graph.input_shape)
    sums: dict[str, Tensor] = {}
    scores: Scores | None = None
    for step in range(steps):
        part = Dimmed(end.kept, end.relevant, end.granularity, end.input_shape, share=(step + 0.5) / steps)
        (scores,) = measure(job, label, part)
        sums = {name: sums.get(name, 0) + array / steps for name, array in scores.sums.items()}
    assert scores is not None
    return replace(scores, sums=sums)


def schedule(k: int, m: int, rounds: int) -> list[int]:
    """Returns how many structures each round keeps, equation 11: from just below ``m`` down to ``k``.

    Args:
        k: how many are wanted in the end, at least 1.
        m: how many there are.
        rounds: T, at least 1.
    """
    alphas = [t / rounds for t in range(1, rounds + 1)]
    sizes = [round(math.exp(a * math.log(k) + (1 - a) * math.log(m))) for a in alphas]
    return [*sizes[:-1], k]  # exp(log k) need not be k to the last digit


@dataclass(frozen=True, eq=False, repr=False)
class Dimmed(Mask):
    """A mask whose kept structures are scaled, all by the same share in (0, 1]."""

    share: float = 1.0

    def factors(self, graph: NetGraph) -> dict[str, Tensor]:
        """Returns weight name -> factors: the share where kept, 0 where removed, 1 where nothing is relevant."""
        everything = Mask(self.relevant, self.relevant, self.granularity, self.input_shape)
        nothing = (~everything).factors(graph)  # 1 where nothing is relevant
        return {
            name: torch.where(nothing[name].bool(), 1.0, kept * self.share)
            for name, kept in super().factors(graph).items()
        }
