"""How alike pictures of one objective are to the network, so that they can be driven apart."""

import torch
from jaxtyping import Float
from torch import Tensor


def likeness(outputs: Float[Tensor, "k c ..."]) -> Float[Tensor, " k"]:
    """Returns the mean cosine of each picture's Gram matrix with those of the others, in [-1, 1].

    The Gram matrix ``A A^T`` of a layer's output (channels x positions) says which channels respond together, wherever
    they do: the texture of a picture, not its layout.

    Source: Olah et al. (2017), diversity.
    """
    maps = outputs.flatten(2) if outputs.ndim > 2 else outputs[:, :, None]
    grams = torch.nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1, eps=1e-12)
    return (grams * (grams.sum(0) - grams)).sum(1) / max(len(outputs) - 1, 1)
