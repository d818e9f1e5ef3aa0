"""Random: the control that every criterion has to beat."""

import torch
from torch import Tensor

from viscircuits.saliency.engine.passes import Pass
from viscircuits.scores import Scores


def random(job: Pass, *, seed: int = 0) -> list[Scores]:
    """Returns, per target, one uniform number in (0, 1] a relevant structure, from the seed and no global state."""
    return [scores for one in job.each() for scores in one.scores("random", _draws(one, seed), n_images=1)]


def _draws(job: Pass, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    (relevant,) = job.relevant
    return {name: 1.0 - torch.rand((1, *array.shape), generator=generator) for name, array in relevant.items()}
