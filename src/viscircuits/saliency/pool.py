"""From one number a weight to one number a kernel or filter."""

from jaxtyping import Float
from torch import Tensor

from viscircuits.types import Granularity


def pool(weights: Float[Tensor, "out in ..."], granularity: Granularity) -> Float[Tensor, "out ..."]:
    """Returns the mean over each structure's weights: over a kernel's taps, or over a filter's kernels."""
    if granularity == "weight":
        return weights
    kernels = weights.flatten(2).mean(2) if weights.ndim > 2 else weights
    return kernels if granularity == "kernel" else kernels.mean(1)
