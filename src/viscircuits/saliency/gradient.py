"""Gradient: how sensitive the target is to each weight, however large the weight.

Source: VISCNN, section 2.1 (the "gradients" criterion), on weights: ``S[o, i] = sum_n 1/KK sum_k |df_n/dw[o, i, k]|``.
"""

from viscircuits.saliency.passes import Pass
from viscircuits.saliency.pool import pool
from viscircuits.scores import Scores


def gradient(job: Pass) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over its weights of ``|df/dw|``.

    Differs: 1. VISCNN averages gradients of activation maps; here, as in SNIP, they are those of the weights.
    """
    gradients = job.absolute_gradients("gradient")
    return job.scores("gradient", {name: pool(g, job.granularity) for name, g in gradients.items()})
