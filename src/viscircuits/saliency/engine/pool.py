"""From one number a weight to one number a kernel or filter."""

from jaxtyping import Float
from torch import Tensor

from viscircuits.types import Granularity


def pool(weights: Float[Tensor, "t out in ..."], granularity: Granularity) -> Float[Tensor, "t out ..."]:
    """Returns the mean over each structure's weights: over a kernel's taps, or over a filter's kernels."""
    if granularity == "weight":
        return weights
    kernels = weights.flatten(3).mean(3) if weights.ndim > 3 else weights
    return kernels if granularity == "kernel" else kernels.mean(2)
