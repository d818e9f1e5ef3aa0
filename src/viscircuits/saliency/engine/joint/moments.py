"""Second moments of what a layer gets, and of the target's gradients at what it puts out.

    C[(i, a), (j, b)] = mean of x[i, a] x[j, b],    H[f, f'] = mean over images of the sum over positions of g[f] g[f']

with ``x`` the patch at a position (`viscircuits.saliency.engine.joint.patches`) and ``g`` the gradient there of the
target's response, each of its positions with a random sign: so the square of the sum is, in the mean, the sum of the
squares. Both are measured at positions drawn by a seed, image by image: no batch size changes what is drawn.

Convention: a patch has a 1 appended, so that one matrix holds second moments, means and how many patches there are.
Sums over some of a call's positions stand for all of them, so that calls on maps of several sizes weigh what they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from zlib import crc32

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.data.stream import Batch
from viscircuits.mask import Mask
from viscircuits.model.calls import KernelCall
from viscircuits.readout import Frozen, Readout
from viscircuits.saliency.engine.joint.patches import at_places, draw, n_positions, patches
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.tape import Tape, no_formula

CHUNK = 2**25
"""Bytes of patches at a time; their products are what is kept."""

_INPUTS, _GRADIENTS = "inputs of ", "gradients of "


@dataclass(frozen=True)
class Moments:
    """Of one layer, for one target.

    Attributes:
        inputs: sums over patches of the products of two of their numbers, the appended 1 last; one matrix a group.
        gradients: the mean over images of the summed products of two filters' gradients.
    """

    inputs: Float[Tensor, "g d1 d1"]
    gradients: Float[Tensor, "out out"]

    def pooled(self, other: "Moments") -> "Moments":
        """Returns the moments of two networks together; the other's gradients are brought to the size of these.

        Where no gradient arrives in the other, these stand alone.
        """
        inputs, size = self.inputs + other.inputs, self.gradients.trace() / other.gradients.trace()
        if not bool(torch.isfinite(size)):
            return Moments(inputs, self.gradients)
        return Moments(inputs, (self.gradients + other.gradients * size) / 2)

    def covariance(self, mean_weight: float) -> Float[Tensor, "g d d"]:
        """Returns second moments about the mean, with that weight of the squared mean left in."""
        count = self.inputs[:, -1:, -1:]
        mean = self.inputs[:, :-1, -1:] / count
        return self.inputs[:, :-1, :-1] / count - (1 - mean_weight) * mean * mean.mT


def moments(
    job: Pass, label: str, mask: Mask | None, *, positions: int, seed: int, blocks: Mapping[str, int] | None = None
) -> dict[str, Moments]:
    """Returns layer -> moments of a pass's only target, in the masked network, or in the full one.

    Args:
        job: the model, one target, the pictures.
        label: what to tell the progress.
        mask: the masked network's; the full network is measured where None.
        positions: how many are drawn an image and layer.
        seed: for positions and signs.
        blocks: layer -> into how many blocks the inputs of each group go; they stay whole where None.
    """
    layers = job.layers
    blocks = blocks or dict.fromkeys(layers, 1)

    def tape(batch: Batch, copies: bool, sums: dict[str, Tensor]) -> Tape:
        return _MomentTape(layers, batch, copies, sums, positions, seed, blocks)

    sums = job.run(label, tape, mask, by_image=True)
    return {name: Moments(sums[_INPUTS + name], sums[_GRADIENTS + name] / len(job.images)) for name in layers}


class _MomentTape(Tape):
    """Sums of the products of a batch, at positions drawn for each image."""

    def __init__(
        self, layers: Sequence[str], batch: Batch, copies: bool, sums: dict[str, Tensor], positions: int, seed: int,
        blocks: Mapping[str, int],
    ) -> None:  # fmt: skip
        super().__init__(layers, 1, len(batch.images), copies, sums, no_formula)
        self.first, self.positions, self.seed, self.blocks = batch.start, positions, seed, blocks

    def start(
        self, readout: Readout, outputs: Mapping[str, Tensor], frozen: Frozen, batch: Batch
    ) -> Float[Tensor, " n"]:
        """Returns the response's values of each image, summed with random signs."""
        response = readout.response(outputs, frozen, batch.labels)
        signs = [self._signs(self.first + i, response.shape[1]) for i in range(len(response))]
        return (response * torch.from_numpy(np.stack(signs)).to(response)).sum(1)

    def _signs(self, image: int, width: int) -> np.ndarray:
        return np.random.default_rng([self.seed, image]).integers(0, 2, width) * 2 - 1

    def add(self, call: KernelCall, gradients: Sequence[Tensor]) -> None:
        """Adds the products at the positions drawn for a call's layer."""
        name, n = call.layer.name, self.n_images
        whole = n_positions(call, n)
        places = draw(whole, self.positions, self.first, n, (self.seed, crc32(name.encode()))).to(call.x.device)
        share = places.shape[1] / whole
        with torch.no_grad():
            for some in places.split(self._at_a_time(call), 1):
                seen = patches(call, some).flatten(0, 1).unflatten(-1, (self.blocks[name], -1)).flatten(1, 2)
                seen = seen.transpose(0, 1)  # (groups and blocks, patches, d)
                seen = _single(torch.cat([seen, seen.new_ones(*seen.shape[:2], 1)], 2))
                self._sum(_INPUTS + name, seen.mT @ seen / share)
            slopes = _single(at_places(call, gradients[0], places).flatten(0, 1))
            self._sum(_GRADIENTS + name, self._every_filter(call, slopes.mT @ slopes / share))

    def _at_a_time(self, call: KernelCall) -> int:
        """Positions of each image whose patches fit into a chunk."""
        layer = call.layer
        numbers = self.n_images * layer.groups * layer.shape[1] * prod(layer.kernel_size)
        return max(1, CHUNK // (numbers * max(4, call.x.element_size())))

    def _every_filter(self, call: KernelCall, products: Tensor) -> Tensor:
        if call.filters is None:
            return products
        whole = products.new_zeros(call.layer.out_channels, call.layer.out_channels)
        chosen = call.filters.to(whole.device)
        whole[chosen[:, None], chosen] = products
        return whole

    def _sum(self, name: str, products: Tensor) -> None:
        self.sums[name] = self.sums[name].add_(products) if name in self.sums else products


def _single(values: Tensor) -> Tensor:
    """In single precision at least: squares overflow half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
