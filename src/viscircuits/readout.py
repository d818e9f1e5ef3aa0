"""Reading a target off a run: its responses, the number that gradients start from, the channels it asks for.

`Readout` binds a `Target` to a network graph once, with every check on names and ranges, and then only does arithmetic
on the outputs that `viscircuits.model.instrument.run` brings back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakValueDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viscircuits.bounds.arguments import check_fields
from viscircuits.card import Card, Shown, few
from viscircuits.errors import ImageError, TargetError
from viscircuits.model.flow.reach import reach
from viscircuits.model.graph import OUTPUT, NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.output import with_channels
from viscircuits.store import spelled
from viscircuits.target import AnyTarget, Loss, Target, as_target, indices

Frozen = tuple[Int[Tensor, "_"] | None, ...]  # of a batch or of the whole set, also beside one another
"""What is fixed in the full model and used ever after: one entry a term, each image's arg-max or predicted class."""


@dataclass(frozen=True, repr=False)
class Readout(Shown):
    """A target bound to a network; knows which modules to read and what to make of their outputs."""

    target: AnyTarget
    graph: NetGraph

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "target", as_target(self.target))
        self.graph.check()
        # all names and ranges here, once, so that what reads an output does nothing but arithmetic
        for _, term in self.terms:
            _check(term, self.graph)
        # a map of logits would need a label a place
        if isinstance(self.target, Loss):
            output = self.graph.output(OUTPUT)
            if len(output.shape) != 1:
                raise TargetError(f"the loss needs a model whose output is one logit a class, not {output.shape}")

    def _card(self) -> Card:
        reads = few([layer or "the model's output" for layer in self.layers])
        return Card("Readout", {"target": self.target, "model": self.graph.model, "reads": reads})

    @property
    def terms(self) -> tuple[tuple[float, Target], ...]:
        """The weighted terms; empty for the loss."""
        return () if isinstance(self.target, Loss) else self.target.terms

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The modules whose outputs are read."""
        return (OUTPUT,) if isinstance(self.target, Loss) else tuple(dict.fromkeys(t.layer for _, t in self.terms))

    @clean
    def seeds(self) -> dict[str, Bool[Tensor, " c"]]:
        """Returns the channels that the target reads, module by module."""
        if isinstance(self.target, Loss):
            return {OUTPUT: torch.ones(self.graph.output(OUTPUT).n_channels, dtype=torch.bool)}
        seeds = {layer: torch.zeros(self.graph.output(layer).n_channels, dtype=torch.bool) for layer in self.layers}
        for _, term in self.terms:
            seeds[term.layer] |= self._coefficients(term) != 0
        return seeds

    @cached_property
    def relevant_kernels(self) -> dict[str, Bool[Tensor, "out in"]]:
        """Layer -> kernels with a path from the image to the target."""
        return dict(reach(self.graph, self.seeds()).used)

    def needs_freezing(self) -> bool:
        """Whether something has to be fixed in the full model first."""
        if isinstance(self.target, Loss):
            return self.target.predicted
        return any(term.position == "max" for _, term in self.terms)

    def freeze(self, outputs: Mapping[str, Tensor]) -> Frozen:
        """Returns each image's arg-max position (flat) or predicted class, from outputs of the full model."""
        if isinstance(self.target, Loss):
            return (_predicted(with_channels(outputs[OUTPUT])) if self.target.predicted else None,)
        return tuple(
            self._map(term, outputs).flatten(1).argmax(1) if term.position == "max" else None for _, term in self.terms
        )

    def response(
        self, outputs: Mapping[str, Tensor], frozen: Frozen, labels: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n p"]:
        """Returns what is compared between circuit and model: the map of one target, else one number an image.

        Args:
            outputs: module -> its output for a batch.
            frozen: what the full model fixes for these images.
            labels: their classes, for a loss.
        """
        if isinstance(self.target, Target):
            return self._read(self.target, outputs, frozen[0])
        return self.objective(outputs, frozen, labels)[:, None]

    def objective(
        self, outputs: Mapping[str, Tensor], frozen: Frozen, labels: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Returns the number an image that gradients start from.

        Args:
            outputs: module -> its output for a batch.
            frozen: what the full model fixes for these images.
            labels: their classes, for a loss.

        Raises:
            ImageError: a loss by labels without any, or with one that no output judges.
        """
        if isinstance(self.target, Loss):
            classes = frozen[0] if self.target.predicted else labels
            if classes is None:
                raise ImageError(
                    "the loss needs labels, and the image set has none; use folders by class, labelled(...), or the "
                    "target 'loss@predicted' for the class the model predicts"
                )
            return _cross_entropy(with_channels(outputs[OUTPUT]), classes)
        parts = [
            weight * _reduced(self._read(term, outputs, where), term)
            for (weight, term), where in zip(self.terms, frozen, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def _coefficients(self, term: Target) -> Tensor:
        width = self.graph.output(term.layer).n_channels
        if term.direction is not None:
            return torch.tensor(term.direction, dtype=torch.float64)
        return torch.nn.functional.one_hot(torch.tensor(term.channel), width).double()

    def _map(self, term: Target, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n ..."]:
        channels_last = with_channels(outputs[term.layer]).movedim(self.graph.output(term.layer).channel_axis, -1)
        if term.channel is not None:
            return channels_last[..., term.channel]
        return channels_last @ torch.tensor(term.direction, dtype=channels_last.dtype, device=channels_last.device)

    def _read(self, term: Target, outputs: Mapping[str, Tensor], where: Tensor | None) -> Float[Tensor, "n p"]:
        values = self._map(term, outputs)
        if term.position is None:
            # a vector's output is a map of one place, so that all responses are images x places
            return values.flatten(1) if values.ndim > 1 else values[:, None]
        if term.position == "max":
            assert where is not None
            return values.flatten(1).gather(1, where.to(values.device)[:, None])
        return values[(slice(None), *indices(term.position, values.shape[1:]))][:, None]


def bound(target: AnyTarget | str, graph: NetGraph) -> Readout:
    """Returns the readout of a target on a graph: the same object for as long as anybody holds it.

    So the circuits of one target, which differ in their masks, share what is relevant to it. It is held weakly: a
    readout keeps a number a kernel, and there may be thousands of targets.
    """
    target = as_target(target)
    # graphs do not hash; an id serves, because the readout that is looked up keeps its graph alive
    key = id(graph), spelled(target)
    readout = _BOUND.get(key)
    if readout is None:
        readout = _BOUND[key] = Readout(target, graph)
    return readout


_BOUND: "WeakValueDictionary[tuple[int, str], Readout]" = WeakValueDictionary()
"""The readouts that are in use, by graph and target. A text tells -0.0 from 0.0 in a direction, ``==`` does not."""


def _predicted(logits: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
    # the only output is always the largest; as a logit it tells two classes apart by its sign
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()


def _cross_entropy(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The cross-entropy of every image; one logit is that of class 1 of two."""
    # looked at here: on CUDA an index that is out of range stops every later call of the process as well
    highest = int(classes.max())
    if logits.shape[1] == 1:
        if highest > 1:
            raise ImageError(
                f"label {highest} is no class here: the model has one output, so that its loss is binary and takes the "
                f"labels 0 and 1; give those, or a target such as 'logit:0' for a number that is no logit"
            )
        binary = torch.nn.functional.binary_cross_entropy_with_logits
        return binary(logits[:, 0], classes.to(logits), reduction="none")
    if highest >= logits.shape[1]:
        raise ImageError(f"label {highest} is out of range: the model has {logits.shape[1]} outputs")
    return torch.nn.functional.cross_entropy(logits, classes.to(logits.device), reduction="none")


def _reduced(values: Float[Tensor, "n p"], term: Target) -> Float[Tensor, " n"]:
    if term.reduction == "sum_abs":
        return values.abs().sum(1)
    return values.sum(1) if term.reduction == "sum" else values.mean(1)


def _check(term: Target, graph: NetGraph) -> None:
    output = graph.output(term.layer)
    name = f"layer {term.layer!r}" if term.layer else "the model's output"
    if term.channel is not None and not 0 <= term.channel < output.n_channels:
        raise TargetError(f"channel {term.channel} is out of range: {name} has channels 0 to {output.n_channels - 1}")
    if term.direction is not None and len(term.direction) != output.n_channels:
        raise TargetError(f"a direction over {name} needs {output.n_channels} coefficients, got {len(term.direction)}")
    if term.position is not None and not output.map_shape:
        raise TargetError(f"{name} has no positions (its output is a vector); drop '@{term.position}'")
    if isinstance(term.position, tuple):
        inside = len(term.position) == len(output.map_shape) and all(
            0 <= p < size for p, size in zip(term.position, output.map_shape, strict=True)
        )
        if not inside:
            raise TargetError(
                f"position {term.position} is outside the map of {name}, which has {len(output.map_shape)} axes of "
                f"size {output.map_shape} (row, column; counted from 0)"
            )
