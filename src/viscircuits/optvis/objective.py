"""Objectives: what a picture is made to raise. One number a picture; frozen; they add, scale and negate.

``Activation(target)`` is any `Target` or weighted sum of targets: a channel, a neuron, a direction, a class logit. A
map counts with its mean over positions, with its sign (a target's ``reduction`` is for scoring); ``@max`` is the map's
largest value as it then stands. ``KernelMap`` is what one kernel alone puts out. ``a - 0.5 * b`` works on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.bounds.arguments import check_fields
from viscircuits.card import Card, Shown
from viscircuits.errors import TargetError, UnsupportedOperation, closest
from viscircuits.meaning import where
from viscircuits.model.calls import KernelCall
from viscircuits.model.graph import OUTPUT, KernelLayer, NetGraph
from viscircuits.readout import Readout
from viscircuits.target import AnyTarget, Loss, Target, TargetSum, indices, parse_target


@dataclass(frozen=True)
class Seen:
    """What a network made of one picture.

    Attributes:
        graph: the network's graph.
        outputs: module -> its output, ``[1, ...]``.
        maps: kernel -> its own map, once for every call of its layer.
    """

    graph: NetGraph
    outputs: Mapping[str, Tensor]
    maps: Mapping["KernelMap", list[Tensor]]


class Objective(ABC):
    """Something that a picture is made to raise."""

    @abstractmethod
    def layers(self, graph: NetGraph) -> tuple[str, ...]:
        """Returns the modules to read; checks everything against the network first."""

    @abstractmethod
    def value(self, seen: Seen) -> Float[Tensor, ""]:
        """Returns the number that is raised."""

    @property
    def kernels(self) -> "tuple[KernelMap, ...]":
        """The kernels whose own maps are needed."""
        return ()

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that are read."""
        return ()

    def __add__(self, other: "Renderable") -> "Objective":
        # sums of sums are flat, so that what is equal has one text, and one place in a cache
        return Combination(_terms(self) + _terms(objective(other)))

    def __mul__(self, weight: float) -> "Objective":
        return Combination(tuple((weight * w, objective) for w, objective in _terms(self)))

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return self * -1.0

    def __sub__(self, other: "Renderable") -> "Objective":
        return self + objective(other) * -1.0


@dataclass(frozen=True, repr=False)
class Activation(Shown, Objective):
    """The mean of a target's map, or the weighted sum of such means."""

    target: Target | TargetSum

    def layers(self, graph: NetGraph) -> tuple[str, ...]:
        """Returns the modules to read; checks everything against the network first."""
        return Readout(self.target, graph).layers

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that are read."""
        return tuple(term for _, term in self.target.terms)

    def value(self, seen: Seen) -> Float[Tensor, ""]:
        """Returns the number that is raised."""
        parts = []
        for weight, term in self.target.terms:
            # frozen on this very picture: "max" is the largest value as it now stands
            readout = Readout(term, seen.graph)
            parts.append(weight * readout.response(seen.outputs, readout.freeze(seen.outputs)).mean())
        return torch.stack(parts).sum()

    def __str__(self) -> str:
        return str(self.target)

    def _card(self) -> Card:
        return Card("Activation", {"raises": f"the mean of {self}"})


@dataclass(frozen=True, repr=False)
class KernelMap(Shown, Objective):
    """The mean of one kernel's own map, ``w[out, source] * x[source]``: before the sum over inputs and the bias.

    Args:
        layer: a kernel layer.
        out: its output channel.
        source: its input channel, counted over all groups.
        position: where on the map: everywhere, ``(y, x)`` or the centre.
    """

    layer: str
    out: int
    source: int
    position: tuple[int, ...] | Literal["center"] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def kernels(self) -> "tuple[KernelMap, ...]":
        """The kernels whose own maps are needed."""
        return (self,)

    def layers(self, graph: NetGraph) -> tuple[str, ...]:
        """Returns the modules to read; checks everything against the network first."""
        if self.layer not in graph.layers:
            raise TargetError(f"layer {self.layer!r} has no kernels{closest(self.layer, graph.layers)}")
        layer = graph.layers[self.layer]
        self._check(layer, graph)
        if layer.calls > 1 or self.layer not in graph.outputs:
            return (OUTPUT,)  # the end of the network is behind every call
        return (self.layer,)

    def _check(self, layer: KernelLayer, graph: NetGraph) -> None:
        sources = layer.sources[self.out].tolist() if 0 <= self.out < layer.out_channels else []
        if self.source not in sources:
            behind = f"its channel {self.out} reads {min(sources)} to {max(sources)}" if sources else "no such output"
            raise TargetError(
                f"no kernel {self}: layer {self.layer!r} has {layer.out_channels} output and {layer.in_channels} input "
                f"channels in {layer.groups} groups ({behind})"
            )
        inputs = [
            node.all_input_nodes[0].meta["val"] for node, name in graph.kernel_calls.items() if name == self.layer
        ]
        if not layer.scored or any(value.shape[0] != 2 for value in inputs):  # traced with two images
            raise UnsupportedOperation(f"the kernels of layer {self.layer!r} have no maps of single images")

    def map(self, call: KernelCall, row: int) -> Tensor:
        """Returns the kernel's map of one picture of a call, its positions in one axis."""
        layer = call.layer
        # a grouped layer numbers the inputs of each group from 0
        weight = layer.out_first(call.weight)[self.out, self.source - int(layer.sources[self.out, 0])]
        if layer.op == "linear":
            return (call.x[row, ..., self.source] * weight).reshape(-1)
        # one kernel is no longer in groups
        options = {key: value for key, value in call.options.items() if key != "groups"}
        one = call.function(call.x[row : row + 1, self.source : self.source + 1], weight[None, None], **options)[0, 0]
        if self.position is None:
            return one.reshape(-1)
        index = indices("center", one.shape) if self.position == "center" else self.position
        if len(index) != one.ndim or not all(0 <= i < size for i, size in zip(index, one.shape, strict=True)):
            raise TargetError(f"position {self.position} is outside the map of {self}, of size {tuple(one.shape)}")
        return one[index].reshape(1)

    def value(self, seen: Seen) -> Float[Tensor, ""]:
        """Returns the number that is raised."""
        return torch.stack([values.mean() for values in seen.maps[self]]).sum()

    def __str__(self) -> str:
        place = self.position if isinstance(self.position, str) else ",".join(map(str, self.position or ()))
        return f"{self.layer}:{self.out}<{self.source}" + (f"@{place}" if place else "")

    def _card(self) -> Card:
        kernel = f"what channel {self.source} alone gives to channel {self.out} of {self.layer}"
        return Card("KernelMap", {"text": self, "raises": kernel, "place": where(self.position)})


@dataclass(frozen=True, repr=False)
class Combination(Shown, Objective):
    """A weighted sum of objectives."""

    terms: tuple[tuple[float, Objective], ...]

    def layers(self, graph: NetGraph) -> tuple[str, ...]:
        """Returns the modules to read; checks everything against the network first."""
        return tuple(dict.fromkeys(layer for _, term in self.terms for layer in term.layers(graph)))

    @property
    def kernels(self) -> "tuple[KernelMap, ...]":
        """The kernels whose own maps are needed."""
        return tuple(dict.fromkeys(kernel for _, term in self.terms for kernel in term.kernels))

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that are read."""
        return tuple(target for _, term in self.terms for target in term.targets)

    def value(self, seen: Seen) -> Float[Tensor, ""]:
        """Returns the number that is raised."""
        return torch.stack([weight * term.value(seen) for weight, term in self.terms]).sum()

    def __str__(self) -> str:
        texts = [f"{str(float(weight)).removesuffix('.0')}*{term}" for weight, term in self.terms]
        return " + ".join(texts).replace("+ -", "- ")

    def _card(self) -> Card:
        return Card("Combination", {"terms": len(self.terms), "raises": self})


Renderable = Objective | AnyTarget | str
"""Whatever a picture can be made of: an objective, a target, or the text of a target."""


def objective(what: Renderable) -> Objective:
    """Returns the objective that a target, or its text, stands for; an objective as it is."""
    if isinstance(what, Objective):
        return what
    target = parse_target(what) if isinstance(what, str) else what
    # it needs a label for every picture, and a picture that is rendered has none
    if isinstance(target, Loss):
        raise TargetError("a loss has no picture; render a class instead: logit:NUMBER")
    return Activation(target)


def _terms(what: Objective) -> tuple[tuple[float, Objective], ...]:
    return what.terms if isinstance(what, Combination) else ((1.0, what),)
