"""Magnitude: the baseline that looks at no image.

Source: circuit pruning, section 3.3, equation 7: ``S[o, i] = 1/KK sum_k |w[o, i, k]|``, zero for what cannot reach f.
"""

from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.pool import pool
from viscircuits.scores import Scores


def magnitude(job: Pass) -> list[Scores]:
    """Returns, per target and relevant structure, the mean absolute weight; a filter is the mean over its kernels."""
    return job.scores("magnitude", {n: pool(job.weight(n).abs(), job.granularity) for n in job.layers}, n_images=1)
