"""Execution: a model with edited weights that is read at a target, run with the least work.

It does not know what chose the weights. Whatever is least work runs: the user's module with edited weights, the
physically smaller network, and, for a single position, either of them on the part of each image that the position sees.
All give the same responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx, nn

from viscircuits.data.images import ImageSet
from viscircuits.data.stream import Batch
from viscircuits.execution.loop import judged, to_model
from viscircuits.execution.response import Rows, fixed_for
from viscircuits.model.field.aligned import AlignedCrops
from viscircuits.model.field.crops import tried_crops
from viscircuits.model.flow.reach import Paths
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import needed_filters, run
from viscircuits.model.small.shrink import Shrunk, shrink
from viscircuits.model.trace import trace
from viscircuits.readout import Frozen, Readout, bound
from viscircuits.target import Target, indices
from viscircuits.types import Progress


@dataclass(frozen=True, eq=False)
class Execution:
    """A model with edited weights, read at a target.

    Args:
        model: the user's module; never changed.
        graph: its graph for one size of images.
        readout: the target, bound to the graph.
        weights: parameters that take the place of the model's own, by name.
        conducting: kernel layer -> kernels that conduct; all others are zero.
        paths: what of these kernels leads from the image to the target.
    """

    model: nn.Module
    graph: NetGraph
    readout: Readout
    weights: Mapping[str, Tensor]
    conducting: Mapping[str, Bool[Tensor, "out in"]]
    paths: Paths

    @property
    def connected(self) -> bool:
        """Whether a path leads from the image to the target."""
        return self.paths.reach.connected

    @clean
    def respond(
        self,
        images: ImageSet | Tensor,
        *,
        frozen: Frozen | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> Float[Tensor, "n p"]:
        """Returns the responses to a set of images.

        Args:
            images: pictures of the graph's image size.
            frozen: what the full model fixes, when known; found by running the full model otherwise.
            batch_size: pictures at a time.
            progress: called after every batch.
        """
        images = judged(images, self.model, [self.readout])
        rows = Rows(len(images))
        for batch in images.batches(batch_size, self.graph.memory_format, progress=progress, what="responses"):
            rows.add(self.respond_to(batch, frozen))
        return rows.tensor

    @clean
    @torch.no_grad()
    def respond_to(self, batch: Batch, frozen: Frozen | None = None) -> Float[Tensor, "n p"]:
        """Returns the responses to one batch; ``frozen`` is that of the whole set."""
        batch = to_model(batch, self.model, self.graph)
        here = fixed_for(batch, self.model, self.readout, frozen)
        if self.on_crops is not None:
            return self.on_crops(batch.images, here)
        if self.small is not None:
            outputs = self.small.outputs(batch.images)
        else:
            written_to = batch.images.clone()  # a forward may write over its input, and the caller still needs it
            outputs = run(
                self.model, self.graph, written_to, self.readout.layers, weights=self.weights,
                filters=needed_filters(self.graph, self.readout.relevant_kernels),
            )  # fmt: skip
        return self.readout.response(outputs, here, batch.labels).cpu()

    @cached_property
    def small(self) -> Shrunk | None:
        """The physically smaller network, where it is less work."""
        # by multiplications and bytes, not by a clock: on a busy machine that would give other last digits
        small = self.shrunk()
        return small if small.saving < 1 else None

    @cached_property
    def on_crops(self) -> "OnCrops | None":
        """The same on crops of images, where the target is one position that does not see the whole image."""
        target = self.readout.target
        if not isinstance(target, Target) or target.position is None:
            return None
        crops = tried_crops(self.model, self.graph, target.layer)
        return None if crops is None else OnCrops(self, crops)

    @clean
    def shrunk(self, head: nn.Module | None = None, after: fx.Node | None = None) -> Shrunk:
        """Returns the physically smaller network; ``head`` and ``after`` are those of `shrink`."""
        # the graph for two pictures holds their number as a constant; a module that runs needs it open
        graph = trace(self.model, self.graph.input_shape, any_batch=True)
        return shrink(self.model, graph, self.readout.seeds(), self.conducting, self.weights, head, after)


class OnCrops:
    """An execution that is read at one position, on the part of each image that the position sees."""

    def __init__(self, whole: Execution, crops: AlignedCrops) -> None:
        assert isinstance(whole.readout.target, Target)
        self.whole, self.crops = whole, crops
        graph = trace(whole.model, (whole.graph.input_shape[0], *crops.size))
        target = replace(whole.readout.target, position="max")  # each image has a position of its own on its crop
        self.cropped = replace(whole, graph=graph, readout=bound(target, graph))
        # a crop too small for a path would lose kernels that the whole picture uses
        relevant, own = whole.readout.relevant_kernels, self.cropped.readout.relevant_kernels
        assert relevant.keys() == own.keys()
        assert all(torch.equal(own[name], kernels) for name, kernels in relevant.items())

    def __call__(self, images: Tensor, frozen: Frozen) -> Float[Tensor, "n 1"]:
        """Returns the responses to images on the model's device, for which ``frozen`` is known."""
        (layer,) = self.whole.readout.layers
        width, small = (one.graph.output(layer).map_shape[1] for one in (self.whole, self.cropped))
        crops = [self.crops.at(divmod(place, width)) for place in self._places(len(images), frozen[0])]
        parts = torch.stack([image[:, *box.slices] for image, (box, _) in zip(images, crops, strict=True)])
        places = torch.tensor([y * small + x for _, (y, x) in crops])
        return self.cropped.respond_to(Batch(parts, None, 0), (places,))

    def _places(self, n: int, frozen: Tensor | None) -> list[int]:
        """Where on the flat map each image is read."""
        if frozen is not None:
            return frozen.tolist()
        target = self.whole.readout.target
        assert isinstance(target, Target)
        shape = self.whole.graph.output(target.layer).map_shape
        y, x = indices(target.position, shape)
        return [y * shape[1] + x] * n
