"""ActGrad: activation times gradient, on the map of each kernel.

Source: circuit pruning, section 3.3, equation 5 (Molchanov et al. 2019 for filters), summed over images:

    S[o, i] = sum_n  1/HW  sum_hw  |a[o, i] * df/da[o, i]|,     a[o, i] = w[o, i] * x[i]

The gradient of a kernel's map is that of its filter's output, so ``S[o, i] = sum_n mean_hw |w[o, i] * x[i]| |g[o]|``.
"""

from viscircuits.saliency.maps import summed_maps
from viscircuits.saliency.passes import Pass
from viscircuits.scores import Scores


def actgrad(job: Pass) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over positions of ``|a * df/da|``.

    Granularity "weight": the map of one weight, ``|w| sum |x shifted| |g|``; "filter": the filter's own output, bias
    included. A linear layer averages over tokens. A layer that runs several times adds its calls' means.
    """
    return job.sum_over_images("actgrad", lambda call, g: summed_maps(call, g, job.granularity))
