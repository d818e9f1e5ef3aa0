"""Responses of several circuits in one pass over the images: pictures are read and prepared once for all of them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.readout import Frozen
from viscircuits.target import Target


def respond_all(
    circuits: Sequence[Circuit], images: ImageSet, *, frozen: Frozen | None = None, batch_size: int = 16
) -> list[Float[Tensor, "n p"]]:
    """Returns every circuit's responses, images x positions (or one number an image).

    A circuit without a path from the image gives the same response to every image, and is run on one of them.

    Args:
        circuits: circuits of one target.
        images: pictures of the masks' image size.
        frozen: what the full model fixes, when known; found by running the full model otherwise.
        batch_size: pictures at a time.
    """
    constant = [c.disconnected and isinstance(c.target, Target) and not c.readout.needs_freezing() for c in circuits]
    parts: list[list[Tensor]] = [[] for _ in circuits]
    for batch in images.batches(batch_size):
        for circuit, own, same in zip(circuits, parts, constant, strict=True):
            if not (same and own):
                own.append(circuit.respond_to(batch, frozen))
    joined = (torch.cat(own) for own in parts)
    return [r[:1].expand(len(images), -1) if same else r for r, same in zip(joined, constant, strict=True)]
