"""SNIP: how much the target changes, to first order, when a weight is taken out.

Source: circuit pruning, section 3.3, equations 6 and 9 (Lee et al. 2018), summed over images:

    S[o, i] = sum_n  1/KK  sum_k  |w[o, i, k] * df_n/dw[o, i, k]|
"""

from viscircuits.saliency.passes import Pass
from viscircuits.saliency.pool import pool
from viscircuits.scores import Scores


def snip(job: Pass) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over its weights of ``|w * df/dw|``.

    Gradients are each image's own: those of a batch would cancel. A layer that runs several times adds its gradients
    before the absolute value. A filter is the mean over its kernels.
    """
    gradients = job.absolute_gradients("snip")
    return job.scores("snip", {n: pool(job.weight(n).abs() * g, job.granularity) for n, g in gradients.items()})
