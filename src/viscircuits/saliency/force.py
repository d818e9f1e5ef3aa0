"""FORCE: SNIP measured in ever sparser networks, because a kernel matters differently where others are gone.

Source: circuit pruning, sections 3.3 and 8.3, equations 10 and 11 (de Jorge et al. 2020), with T = 10 rounds. The
schedule is that of `viscircuits.saliency.engine.rounds`, which any gradient criterion can take.
"""

from typing import Literal

from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.rounds import measured
from viscircuits.saliency.snip import sensitivity
from viscircuits.scores import Scores

ROUNDS = 10


def force(
    job: Pass, *, density: float, rounds: int = ROUNDS, normalise: Literal["minmax"] | None = None
) -> list[Scores]:
    """Returns, per target, the scores whose selection at ``density`` is mask T; they select at no other density.

    The score of round t is ``mean |w * df/dw'|`` with the gradient taken in the network under mask t - 1 (the full
    network for t = 1). ``w`` is the model's own weight, so this is the gradient with respect to the mask and removed
    kernels can come back. ``normalise="minmax"`` scales every round's scores within each layer before they select.

    Args:
        job: the model, the targets, the pictures.
        density: the fraction of the relevant structures that is wanted, in (0, 1].
        rounds: T.
        normalise: "minmax", or None.

    Differs: 1. T scoring passes and mask T is the result; the authors' code scores once more under mask T.
    """
    return measured(job, "force", sensitivity, rounds=rounds, density=density, normalise=normalise)
