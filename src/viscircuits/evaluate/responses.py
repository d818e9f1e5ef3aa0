"""Responses of several circuits in one pass over the images.

Pictures are read and prepared once for all circuits, what the full model fixes is found once, and so are the first
layers (`viscircuits.model.small.stem`) where that is less work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.circuit import Circuit
from viscircuits.data.images import Batch, ImageSet
from viscircuits.model.guard.clean import clean
from viscircuits.model.small.blank import Tensors
from viscircuits.model.small.shrink import Shrunk
from viscircuits.model.small.stem import Stem, stem_nodes
from viscircuits.model.trace import trace
from viscircuits.readout import Frozen
from viscircuits.response import Rows, freeze, judged, rows_of, to_model
from viscircuits.target import Target
from viscircuits.types import Progress

AT_ONCE = 7
"""Circuits for one call, where there are many: enough to share the first layers; few are lost when it is stopped."""


@clean
@torch.no_grad()
def respond_all(
    circuits: Sequence[Circuit],
    images: ImageSet,
    *,
    frozen: Frozen | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Float[Tensor, "n p"]]:
    """Returns every circuit's responses, images x positions (or one number an image).

    A circuit without a path from the image gives the same response to every image, and is run on one of them.

    Args:
        circuits: circuits of one model and target.
        images: pictures of the masks' image size.
        frozen: what the full model fixes, when known; found by running the full model otherwise.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    model, graph, readout = circuits[0].model, circuits[0].graph, circuits[0].readout
    images = judged(images, model, [readout])
    constant = [c.disconnected and isinstance(c.target, Target) and not readout.needs_freezing() for c in circuits]
    shared = _share(circuits)
    found = [Rows(1 if same else len(images)) for same in constant]
    for batch in images.batches(batch_size, graph.memory_format, progress=progress, what="responses"):
        pictures, labels = to_model(batch, model, graph)
        here = freeze(model, readout, pictures) if frozen is None else rows_of(frozen, batch)
        maps = shared.stem(pictures) if shared is not None else pictures
        for place, own in enumerate(found):
            if constant[place] and own.filled:
                continue
            if shared is not None and place in shared.tails:
                part = readout.response(shared.outputs(place, maps), here, labels)
            else:
                part = circuits[place].respond_to(Batch(pictures, labels, 0), here)
            own.add(part[:1] if constant[place] else part)
    return [r.tensor.expand(len(images), -1) if same else r.tensor for r, same in zip(found, constant, strict=True)]


@dataclass(frozen=True)
class _Shared:
    """The stem of some of the circuits, and what each of them does with it, by place."""

    stem: Stem
    tails: dict[int, Shrunk]

    def outputs(self, place: int, maps: Tensor) -> dict[str, Tensor]:
        """Returns the outputs of the modules that the target reads, given the stem's maps."""
        return self.tails[place].outputs(self.stem.of(list(self.tails).index(place), maps))


def _share(circuits: Sequence[Circuit]) -> _Shared | None:
    """Returns what most of the circuits share, where sharing is less work; None where it is not."""
    graph = trace(circuits[0].model, circuits[0].mask.input_shape, any_batch=True)
    nodes = stem_nodes(graph, [graph.output(layer).node for layer in circuits[0].readout.layers])
    able = {i: c for i, c in enumerate(circuits) if not c.disconnected and c._on_crops is None}
    if len(able) < 2 or not nodes:
        return None
    tails = {i: c._shrunk(after=nodes[-1]) for i, c in able.items()}
    stem = Stem(graph, nodes, [(Tensors(c.model, graph, c.weights), tails[i].reads) for i, c in able.items()])
    pays = 2 * stem.n_filters <= sum(map(len, stem.places))
    part = stem.seconds / len(tails)
    if not pays or any(tail.seconds + part > tail.dense_seconds for tail in tails.values()):
        return None
    return _Shared(stem, tails)
