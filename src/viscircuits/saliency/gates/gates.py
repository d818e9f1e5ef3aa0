"""Gates: numbers in [0, 1] that scale a network's structures, whose sum is exact and which can be trained.

Gates stand in one flat vector over the relevant structures, layer by layer, in the order in which `Scores` rank. A gate
multiplies the weights of its structure, so its gradient is ``<dL/dw, w>``, summed over the structure's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from viscircuits.mask import Mask, by_layer, stored_factor
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import like, own_parameter
from viscircuits.types import Granularity

_TRIES, _EXACT = 60, 1e-9
"""Most steps of the search for a threshold (Newton's, or halving where that leaves the interval), and how far off the
sum may be, over the number of gates."""


@dataclass(frozen=True, eq=False)
class Gates:
    """Where each gate of a flat vector acts.

    Args:
        model: the user's module; its weights take part as constants.
        graph: the model's graph.
        relevant: layer -> True where a structure has a gate.
        granularity: what one gate scales.
    """

    model: nn.Module
    graph: NetGraph
    relevant: Mapping[str, Bool[Tensor, "..."]]
    granularity: Granularity

    @cached_property
    def sizes(self) -> list[int]:
        """Gates per layer."""
        return [int(array.sum()) for array in self.relevant.values()]

    @property
    def count(self) -> int:
        """Gates in all."""
        return sum(self.sizes)

    def weights(self, gates: Float[Tensor, " m"]) -> dict[str, Tensor]:
        """Returns the scaled weights by parameter name, with a path for gradients to the gates."""
        scaled = {}
        for (name, relevant), part in zip(self.relevant.items(), gates.split(self.sizes), strict=True):
            layer = self.graph.layers[name]
            weight = own_parameter(self.model, layer.weight)
            # 1, and no gate, for what is not relevant: it cannot change the target
            factor = part.new_ones(relevant.shape).masked_scatter(self._places[name], part)
            scaled[layer.weight] = weight * stored_factor(layer, factor, self.granularity).to(weight.dtype)
        return scaled

    @cached_property
    def _places(self) -> dict[str, Tensor]:
        device = like(self.model).device
        return {name: relevant.to(device) for name, relevant in self.relevant.items()}

    def flat(self, arrays: Mapping[str, Shaped[Tensor, "..."]]) -> Shaped[Tensor, " m"]:
        """Returns one number a gate, out of one a structure."""
        return torch.cat([arrays[name][relevant] for name, relevant in self.relevant.items()])

    def unflat(self, values: Float[Tensor, " m"]) -> dict[str, Float[Tensor, "..."]]:
        """Returns layer -> one number a structure, zero where none is relevant."""
        return by_layer(values, self.relevant)

    def mask(self, kept: Bool[Tensor, " m"]) -> Mask:
        """Returns the mask that keeps these."""
        arrays = {name: array.bool() for name, array in self.unflat(kept.float()).items()}
        return Mask(arrays, self.relevant, self.granularity, self.graph.input_shape)


def soft_top(logits: Float[Tensor, " m"], k: float, temperature: float) -> Float[Tensor, " m"]:
    """Returns gates ``sigmoid((logits - tau) / temperature)`` with ``tau`` such that they sum to ``k``.

    Towards temperature 0 they become 1 for the ``k`` largest logits and 0 for all others.

    Args:
        logits: one number a gate.
        k: the sum, above 0 and below the number of gates.
        temperature: in units of the logits.
    """
    # 40 temperatures beyond the outermost logit a gate is 0 or 1 to the last digit
    low, high = (float(end) for end in (logits.min() - 40 * temperature, logits.max() + 40 * temperature))
    threshold = (low + high) / 2
    for _ in range(_TRIES):
        gates = torch.sigmoid((logits - threshold) / temperature)
        excess = float(gates.sum()) - k
        if abs(excess) <= _EXACT * len(logits):
            break
        # Newton's step alone leaves the interval where nearly all gates are at 0 or 1 and the slope is nothing
        low, high = (threshold, high) if excess > 0 else (low, threshold)
        slope = float((gates * (1 - gates)).sum()) / temperature
        newton = threshold + excess / slope if slope > 0 else low
        threshold = newton if low < newton < high else (low + high) / 2
    return torch.sigmoid((logits - threshold) / temperature)


def soft_top_gradient(
    gates: Float[Tensor, " m"], gradient: Float[Tensor, " m"], temperature: float
) -> Float[Tensor, " m"]:
    """Returns the gradient with respect to the logits of `soft_top`, given that with respect to its gates.

    With ``d = g (1 - g) / T`` the threshold moves by ``d / sum d``, so the gradient is ``d (G - <d, G> / sum d)``: its
    sum is zero, because a shift of all logits changes nothing.

    Args:
        gates: what `soft_top` gave.
        gradient: of the loss with respect to each gate.
        temperature: that of the gates.
    """
    slope = gates * (1 - gates) / temperature
    total = slope.sum()
    return slope * (gradient - (slope @ gradient) / total) if total > 0 else torch.zeros_like(slope)


def best(values: Float[Tensor, " m"], k: int) -> Bool[Tensor, " m"]:
    """Returns True for exactly the ``k`` largest values; ties go to the first, as in `Scores.select`."""
    kept = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    kept[torch.sort(values, descending=True, stable=True).indices[:k]] = True
    return kept
