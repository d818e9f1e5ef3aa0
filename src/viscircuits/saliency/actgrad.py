"""ActGrad: activation times gradient, on the map of each kernel.

Source: circuit pruning, section 3.3, equation 5 (Molchanov et al. 2019 for filters), summed over images:

    S[o, i] = sum_n  1/HW  sum_hw  |a[o, i] * df/da[o, i]|,     a[o, i] = w[o, i] * x[i]

The gradient of a kernel's map is that of its filter's output, so ``S[o, i] = sum_n mean_hw |w[o, i] * x[i]| |g[o]|``.
"""

from dataclasses import replace
from typing import Literal

from viscircuits.mask import Mask
from viscircuits.model.calls import KernelCall
from viscircuits.model.guard.replica import own_parameter
from viscircuits.saliency.engine.maps import summed_maps
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.rounds import measured
from viscircuits.scores import Scores


def actgrad(
    job: Pass,
    *,
    rounds: int = 1,
    steps: int = 1,
    density: float | None = None,
    normalise: Literal["minmax"] | None = None,
) -> list[Scores]:
    """Returns, per target and structure, the sum over images of the mean over positions of ``|a * df/da|``.

    Granularity "weight": the map of one weight, ``|w| sum |x shifted| |g|``; "filter": the filter's own output, bias
    included. A linear layer averages over tokens. A layer that runs several times adds its calls' means. Under a mask
    ``x`` and ``g`` are those of the masked network and ``w`` is the model's own weight.

    Args:
        job: the model, the targets, the pictures.
        rounds, steps, density, normalise: see `viscircuits.saliency.engine.rounds`.
    """
    return measured(job, "actgrad", _maps, rounds=rounds, steps=steps, density=density, normalise=normalise)


def _maps(job: Pass, label: str, mask: Mask | None) -> list[Scores]:
    def own(call: KernelCall) -> KernelCall:
        return call if mask is None else _unmasked(call, job)

    passed = job.sum_over_images(label, lambda call, g: summed_maps(own(call), g, job.granularity), mask=mask)
    # the label counts rounds, for the progress; the scores are of the criterion
    return [replace(scores, criterion="actgrad") for scores in passed]


def _unmasked(call: KernelCall, job: Pass) -> KernelCall:
    """The call with the model's own weight, on the input that the masked network gave it."""
    weight = own_parameter(job.model, call.layer.weight)
    weight = weight if call.filters is None else call.layer.rows(weight, call.filters)
    if job.granularity != "filter":  # only there the output itself is read, and has to be that of the own weight
        return replace(call, weight=weight)
    missing = call.function(call.x, weight - call.weight, None, **call.options)
    return replace(call, weight=weight, output=call.output + missing)
