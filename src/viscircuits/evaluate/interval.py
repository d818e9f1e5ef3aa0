"""Intervals of |r| over images: how far the number depends on which pictures were measured.

Not here: r itself (`viscircuits.activations.agreement`), and how r differs between scorings
(`viscircuits.evaluate.stability`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.errors import ImageError


@dataclass(frozen=True)
class Interval:
    """A range of |r| in [0, 1] that holds a share ``level`` of the resampled values."""

    low: float
    high: float
    level: float


@checked
def bootstrap(
    full: Float[Tensor, "n p"],
    circuit: Float[Tensor, "n p"],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Returns the percentile bootstrap interval of |r| over images.

    As many images as there are, drawn with replacement, whole maps at a time, as positions of one image are not
    independent; |r| of each such set (0 where a response is constant); the quantiles ``(1 - level) / 2`` and
    ``(1 + level) / 2`` of these. The same seed draws the same images, for circuits that are compared.

    Args:
        full: the full model's responses.
        circuit: the circuit's, to the same images.
        level: the share of resampled values inside, in (0, 1).
        resamples: how often images are drawn.
        seed: of the draws.
    """
    if full.shape != circuit.shape or not len(full):
        raise ImageError(f"expected responses of one shape, got full {list(full.shape)}, circuit {list(circuit.shape)}")
    # how often each image was drawn is all that the sums need, so a thousand resamples are one product of matrices
    draws = torch.randint(len(full), (resamples, len(full)), generator=torch.Generator().manual_seed(seed))
    counts = torch.zeros(resamples, len(full), dtype=torch.float64)
    counts.scatter_add_(1, draws, torch.ones_like(counts))
    a, b = (values.double() - values.double().mean() for values in (full, circuit))  # large offsets cost digits
    sums = torch.stack([a, b, a * a, b * b, a * b]).sum(2) / full[0].numel()
    mean_a, mean_b, aa, bb, ab = (counts @ sums.T / len(full)).T
    spread = (aa - mean_a**2).clamp(min=0).sqrt() * (bb - mean_b**2).clamp(min=0).sqrt()
    r = torch.where(spread > 1e-12 * (aa * bb).sqrt(), (ab - mean_a * mean_b) / spread, 0).nan_to_num(0).abs()
    low, high = torch.quantile(r, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return Interval(min(low, 1.0), min(high, 1.0), level)
