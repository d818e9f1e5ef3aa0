"""Activation: how strong the map of each kernel is, whatever the target makes of it.

Source: VISCNN, section 2.1 (the "activations" criterion), on kernels:

    S[o, i] = sum_n  1/HW  sum_hw  |a[o, i]|,     a[o, i] = w[o, i] * x[i]
"""

from viscircuits.saliency.engine.maps import summed_maps
from viscircuits.saliency.engine.passes import Pass
from viscircuits.scores import Scores


def activation(job: Pass) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over positions of ``|a|``, without gradients.

    Differs: 1. VISCNN rectifies a filter's map before averaging; here it is the absolute value, as for kernels.
    """
    return job.sum_over_images(
        "activation", lambda call, ones: summed_maps(call, ones, job.granularity), gradients=False
    )
