"""Networks built by hand: named units with written-down kernels, amid channels that compute something else.

A circuit is a table of units, named by a prefix and what they see ("a across"). A unit is one channel: its layer, its
bias, and one 3x3 kernel a source, where a source is a unit of the layer below or a colour. `build` gives every unit a
random channel of its layer and fills the rest:

* the other channels, *bystanders*, get random kernels about as large as the planted ones (the 3x3 sums apart, which are
  five times as large), from all channels below;
* bystanders feed the units and the target by *crosstalk*, random kernels hundreds of times smaller, so that every
  kernel of the network is relevant to the target and hardly any matters;
* every hidden channel is scaled by a random power of two, and what reads it by the inverse. A network of ReLUs computes
  exactly the same at any such scale: sizes of weights, activations and gradients alone say little about a circuit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.card import Card, Shown, few
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.target import Target

COLOURS = ("red", "green", "blue")
SIZE = 20
WIDTHS = (len(COLOURS), 16, 16, 16, 4)
"""Channels of the image and of each convolution; the target is a channel of the last."""
TARGET = "target"

_BYSTANDER, _CROSSTALK, _BIAS = 0.25, 0.0005, 0.1

Kernel = Float[Tensor, "3 3"]


@dataclass(frozen=True, repr=False)
class Channel(Shown):
    """One planted channel.

    Args:
        layer: its convolution, from 1; the target's is 4.
        inputs: source -> kernel.
        bias: of its filter.
        sealed: whether it gets no crosstalk, so that it is exactly what is written.
    """

    layer: int
    inputs: Mapping[str, Kernel]
    bias: float = 0.0
    sealed: bool = False

    def _card(self) -> Card:
        facts = {"layer": self.layer, "inputs": few([*self.inputs]), "bias": self.bias}
        return Card("Channel", {**facts, "crosstalk": "none" if self.sealed else None})


@dataclass(frozen=True, repr=False)
class Wiring(Shown):
    """A built network, and where its units ended up."""

    model: nn.Module
    target: Target
    units: Mapping[str, Channel]
    places: Mapping[str, int]
    """Channel or colour -> channel."""

    def _card(self) -> Card:
        units = f"{len(self.units):,} ({few([*self.units])})"
        return Card("Wiring", {"model": type(self.model).__name__, "target": self.target, "units": units})

    def mask(self, *prefixes: str) -> Mask:
        """Returns the planted kernels among the units of some prefixes, from the image and to the target."""
        shape = (len(COLOURS), SIZE, SIZE)
        graph = trace(self.model, shape)
        relevant = expand_relevant(graph, Readout(self.target, graph).relevant_kernels, "kernel")
        kept = {name: torch.zeros_like(array) for name, array in relevant.items()}
        units = {name for name in self.units if name.split()[0] in prefixes}
        for reader in (*units, TARGET):
            for source in self.units[reader].inputs.keys() & {*units, *COLOURS}:
                kept[f"conv{self.units[reader].layer}"][self.places[reader], self.places[source]] = True
        return Mask(kept, relevant, "kernel", shape)


def build(units: Mapping[str, Channel], seed: int, octaves: int) -> Wiring:
    """Returns a network that holds the units.

    Args:
        units: name -> what each computes.
        seed: of the places, the bystanders and the scales.
        octaves: bounds the random scales: from ``2**-octaves`` to ``2**octaves``; 0 for none.
    """
    generator = torch.Generator().manual_seed(seed)
    places = _places(units, generator)
    weights, biases = _filled(units, places, generator)
    _rescale(weights, biases, octaves, generator)
    return Wiring(_model(weights, biases), Target("conv4", places[TARGET]), units, places)


def _places(units: Mapping[str, Channel], generator: torch.Generator) -> dict[str, int]:
    places = {colour: channel for channel, colour in enumerate(COLOURS)}
    for layer, width in enumerate(WIDTHS[1:], start=1):
        names = [name for name, unit in units.items() if unit.layer == layer]
        places |= zip(names, torch.randperm(width, generator=generator).tolist(), strict=False)
    return places


def _filled(
    units: Mapping[str, Channel], places: Mapping[str, int], generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases of every layer: bystanders, crosstalk, and over them what is planted."""
    shapes = [(out, width, 3, 3) for width, out in pairwise(WIDTHS)]
    weights = [_BYSTANDER * torch.randn(shape, generator=generator) for shape in shapes]
    biases = [_BIAS * torch.randn(out, generator=generator) for out in WIDTHS[1:]]
    # planted kernels last, over the crosstalk: what is written down is exactly what is computed
    for name, unit in units.items():
        row, place = weights[unit.layer - 1], places[name]
        row[place] *= 0 if unit.sealed else _CROSSTALK / _BYSTANDER
        biases[unit.layer - 1][place] = unit.bias
        for source, kernel in unit.inputs.items():
            row[place, places[source]] = kernel
    return weights, biases


def _rescale(weights: list[Tensor], biases: list[Tensor], octaves: int, generator: torch.Generator) -> None:
    for below, above, bias in zip(weights, weights[1:], biases, strict=False):
        # powers of two scale without rounding, so that the network computes the same to the last bit
        scale = 2.0 ** torch.randint(-octaves, octaves + 1, (len(bias),), generator=generator)
        below *= scale[:, None, None, None]
        bias *= scale
        above /= scale[None, :, None, None]


def _model(weights: list[Tensor], biases: list[Tensor]) -> nn.Module:
    model = nn.Sequential()
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        out, width = weight.shape[:2]
        # not initialised, which would draw from the caller's random numbers
        layer = nn.utils.skip_init(nn.Conv2d, width, out, 3, padding=1)
        layer.load_state_dict({"weight": weight, "bias": bias})
        model.add_module(f"conv{i}", layer)
        if i < len(weights):
            model.add_module(f"relu{i}", nn.ReLU())
    return model.eval()
