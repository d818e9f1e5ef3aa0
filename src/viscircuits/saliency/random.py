"""Random: the control that every criterion has to beat."""

import torch

from viscircuits.saliency.passes import Pass
from viscircuits.scores import Scores


def random(job: Pass, *, seed: int = 0) -> Scores:
    """Returns one uniform number in (0, 1] a relevant structure, from the seed alone (no image, no global state)."""
    generator = torch.Generator().manual_seed(seed)
    draws = {name: 1.0 - torch.rand(array.shape, generator=generator) for name, array in job.relevant.items()}
    return job.scores("random", draws, n_images=1)
