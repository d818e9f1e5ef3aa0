"""SNIP: how much the target changes, to first order, when a weight is taken out.

Source: circuit pruning, section 3.3, equations 6 and 9 (Lee et al. 2018), summed over images:

    S[o, i] = sum_n  1/KK  sum_k  |w[o, i, k] * df_n/dw[o, i, k]|
"""

from typing import Literal

from viscircuits.mask import Mask
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.pool import pool
from viscircuits.saliency.engine.rounds import measured
from viscircuits.scores import Scores


def snip(
    job: Pass,
    *,
    rounds: int = 1,
    steps: int = 1,
    density: float | None = None,
    normalise: Literal["minmax"] | None = None,
) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over its weights of ``|w * df/dw|``.

    Gradients are each image's own: those of a batch would cancel. A layer that runs several times adds its gradients
    before the absolute value. A filter is the mean over its kernels. Under a mask ``w`` is the model's own weight and
    the gradient that of the masked network.

    Args:
        job: the model, the targets, the pictures.
        rounds, steps, density, normalise: see `viscircuits.saliency.engine.rounds`; ten rounds are FORCE.
    """
    return measured(job, "snip", sensitivity, rounds=rounds, steps=steps, density=density, normalise=normalise)


def sensitivity(job: Pass, label: str, mask: Mask | None) -> list[Scores]:
    """Returns the scores measured in the masked network, or in the full one.

    Args:
        job: the model, the targets, the pictures.
        label: what to tell the progress.
        mask: the masked network's; the full network is measured where None.
    """
    # the model's own weight, also under a mask: with the masked one a removed kernel would score 0 and never come back
    gradients = job.absolute_gradients(label, mask)
    return job.scores("snip", {n: pool(job.weight(n).abs() * g, job.granularity) for n, g in gradients.items()})
