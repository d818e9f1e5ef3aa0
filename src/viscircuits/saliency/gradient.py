"""Gradient: how sensitive the target is to each weight, however large the weight.

Source: VISCNN, section 2.1 (the "gradients" criterion), on weights: ``S[o, i] = sum_n 1/KK sum_k |df_n/dw[o, i, k]|``.
"""

from typing import Literal

from viscircuits.mask import Mask
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.pool import pool
from viscircuits.saliency.engine.rounds import measured
from viscircuits.scores import Scores


def gradient(
    job: Pass,
    *,
    rounds: int = 1,
    steps: int = 1,
    density: float | None = None,
    normalise: Literal["minmax"] | None = None,
) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over its weights of ``|df/dw|``.

    Args:
        job: the model, the targets, the pictures.
        rounds, steps, density, normalise: see `viscircuits.saliency.engine.rounds`.

    Differs: 1. VISCNN averages gradients of activation maps; here, as in SNIP, they are those of the weights.
    """
    return measured(job, "gradient", _sensitivity, rounds=rounds, steps=steps, density=density, normalise=normalise)


def _sensitivity(job: Pass, label: str, mask: Mask | None) -> list[Scores]:
    gradients = job.absolute_gradients(label, mask)
    return job.scores("gradient", {name: pool(g, job.granularity) for name, g in gradients.items()})
