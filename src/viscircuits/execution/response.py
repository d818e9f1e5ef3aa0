"""Responses of a target over a set of images, in the full model or with edited weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown
from viscircuits.data.images import ImageSet
from viscircuits.data.stream import Batch
from viscircuits.execution.loop import batches, judged
from viscircuits.mask import Mask
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.replica import own_parameter
from viscircuits.model.instrument import needed_filters, run
from viscircuits.readout import Frozen, Readout
from viscircuits.types import Progress


@dataclass(frozen=True, repr=False)
class Response(Shown):
    """What a network (or circuit) answers to a set of images, and what the target fixed in the full model."""

    values: Float[Tensor, "n p"]
    frozen: Frozen

    def _card(self) -> Card:
        images, positions = self.values.shape
        fixed = sum(part is not None for part in self.frozen)
        return Card("Response", {"images": images, "values of each": positions, "fixed terms": fixed or None})


class Rows:
    """A tensor on the CPU with one row a picture, filled batch by batch.

    A list of the batches' parts would keep all that they are views of (a layer's whole output), and joining them would
    hold everything twice.
    """

    def __init__(self, count: int) -> None:
        self.count, self.filled = count, 0
        self.tensor = torch.empty(0)

    def add(self, part: Shaped[Tensor, "n ..."]) -> None:
        """Writes the next rows."""
        # made when the first part is there: nobody else knows the width and the type
        if not self.filled:
            self.tensor = torch.empty(self.count, *part.shape[1:], dtype=part.dtype)
        self.tensor[self.filled : self.filled + len(part)] = part
        self.filled += len(part)


@checked
@clean
@torch.no_grad()
def respond(
    model: nn.Module,
    readout: Readout,
    images: ImageSet | Tensor,
    *,
    weights: Mapping[str, Tensor] | None = None,
    frozen: Frozen | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Response:
    """Returns the target's responses to all images.

    Args:
        model: the user's module.
        readout: the target, bound to the model's graph.
        images: pictures of the size the graph was traced for.
        weights: parameters to use instead of the model's own, by name (a circuit).
        frozen: what the full model fixes for every image; found by running the full model where None.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    images = judged(images, model, [readout])
    filters = needed_filters(readout.graph, readout.relevant_kernels)
    values = Rows(len(images))
    fixed: list[Frozen] = []
    for batch in batches(images, model, readout.graph, batch_size, progress=progress):
        here = fixed_for(batch, model, readout, frozen)
        outputs = run(model, readout.graph, batch.images, readout.layers, weights=weights, filters=filters)
        values.add(readout.response(outputs, here, batch.labels))
        fixed.append(here)
    return Response(values.tensor, _whole(fixed))


@clean
@torch.no_grad()
def respond_full(
    model: nn.Module,
    readouts: Sequence[Readout],
    images: ImageSet | Tensor,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Response]:
    """Returns the full model's responses for several targets, all from one run of the model.

    Args:
        model: the user's module.
        readouts: the targets, bound to one graph of the model.
        images: pictures of the size the graph was traced for.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    layers = dict.fromkeys(layer for readout in readouts for layer in readout.layers)
    filters = needed_filters(readouts[0].graph, relevant_to_any(readouts))
    values = [Rows(len(images)) for _ in readouts]
    fixed: list[list[Frozen]] = [[] for _ in readouts]
    graph, images = readouts[0].graph, judged(images, model, readouts)
    for batch in batches(images, model, graph, batch_size, progress=progress):
        outputs = run(model, graph, batch.images, layers, filters=filters)
        for readout, own, parts in zip(readouts, values, fixed, strict=True):
            parts.append(readout.freeze(outputs))
            own.add(readout.response(outputs, parts[-1], batch.labels))
    return [Response(own.tensor, _whole(parts)) for own, parts in zip(values, fixed, strict=True)]


def relevant_to_any(readouts: Sequence[Readout]) -> dict[str, Bool[Tensor, "out in"]]:
    """Returns layer -> kernels with a path to at least one of the targets."""
    every: dict[str, Tensor] = {}
    for readout in readouts:
        for name, kernels in readout.relevant_kernels.items():
            every[name] = every[name] | kernels if name in every else kernels
    return every


@clean
@torch.no_grad()
def freeze(model: nn.Module, readout: Readout, images: Float[Tensor, "n c h w"]) -> Frozen:
    """Returns what the target fixes in the full model (arg-max, predicted class); runs it only if needed.

    Args:
        model: the user's module.
        readout: the target, bound to the model's graph.
        images: a batch on the model's device.
    """
    if not readout.needs_freezing():
        return (None,) * max(1, len(readout.terms))
    own = images.clone()  # the model may write over its pictures
    return readout.freeze(run(model, readout.graph, own, readout.layers))


def masked_weights(model: nn.Module, graph: NetGraph, mask: Mask) -> dict[str, Tensor]:
    """Returns the weights of the masked network by parameter name: kernels that are not kept are zero.

    Args:
        model: the user's module.
        graph: its graph.
        mask: what is kept.
    """
    masked = {}
    for name, factor in mask.factors(graph).items():
        weight = own_parameter(model, name)
        masked[name] = weight * factor.to(device=weight.device, dtype=weight.dtype)
    return masked


def fixed_for(batch: Batch, model: nn.Module, readout: Readout, frozen: Frozen | None) -> Frozen:
    """Returns what is fixed for the images of a batch: found in the full model, or out of what is for the whole set.

    Args:
        batch: on the model's device.
        model: the user's module.
        readout: the target, bound to the model's graph.
        frozen: what is fixed for the whole set, where that is known.
    """
    if frozen is None:
        return freeze(model, readout, batch.images)
    rows = slice(batch.start, batch.start + len(batch.images))
    return tuple(None if part is None else part[rows] for part in frozen)


def _whole(batches: Sequence[Frozen]) -> Frozen:
    """What is fixed for all images, out of what is for each batch."""
    return tuple(_joined(parts) for parts in zip(*batches, strict=True))


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [part.cpu() for part in parts if part is not None]
    return torch.cat(present) if present else None
