"""Responses of several executions in one pass over the images.

Pictures are read and prepared once for all, what the full model fixes is found once, and so are the first
layers (`viscircuits.model.small.stem`) where that is less work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.data.images import ImageSet
from viscircuits.execution.execution import Execution
from viscircuits.execution.loop import batches, judged
from viscircuits.execution.response import Rows, fixed_for
from viscircuits.model.guard.clean import clean
from viscircuits.model.small.blank import Tensors
from viscircuits.model.small.shrink import Shrunk
from viscircuits.model.small.stem import Stem, stem_nodes
from viscircuits.model.trace import trace
from viscircuits.readout import Frozen
from viscircuits.target import Target
from viscircuits.types import Progress

AT_ONCE = 7
"""Executions for one call, where there are many: enough to share the first layers; few are lost when it is stopped."""


@clean
@torch.no_grad()
def respond_all(
    executions: Sequence[Execution],
    images: ImageSet,
    *,
    frozen: Frozen | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Float[Tensor, "n p"]]:
    """Returns the responses of each, images x positions (or one number an image).

    One without a path from the image gives the same response to every image, and is run on one of them.

    Args:
        executions: of one model, read at one target.
        images: pictures of the graph's image size.
        frozen: what the full model fixes, when known; found by running the full model otherwise.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    model, graph, readout = executions[0].model, executions[0].graph, executions[0].readout
    images = judged(images, model, [readout])
    # a loss differs from picture to picture by its label, an arg-max by where the full model has it
    may_be_constant = isinstance(readout.target, Target) and not readout.needs_freezing()
    constant = [may_be_constant and not one.connected for one in executions]
    shared = _share(executions)
    rows = [Rows(1 if same else len(images)) for same in constant]
    for batch in batches(images, model, graph, batch_size, progress=progress):
        here = fixed_for(batch, model, readout, frozen)
        maps = shared.stem(batch.images) if shared is not None else batch.images
        for place, own in enumerate(rows):
            if constant[place] and own.filled:
                continue
            if shared is not None and place in shared.tails:
                part = readout.response(shared.outputs(place, maps), here, batch.labels)
            else:
                part = executions[place].respond_to(batch._replace(start=0), here)
            own.add(part[:1] if constant[place] else part)
    return [r.tensor.expand(len(images), -1) if same else r.tensor for r, same in zip(rows, constant, strict=True)]


@dataclass(frozen=True)
class _Shared:
    """The stem of some executions, and what each of them does with it, by place."""

    stem: Stem
    tails: dict[int, Shrunk]

    def outputs(self, place: int, maps: Tensor) -> dict[str, Tensor]:
        """Returns the outputs of the modules that the target reads, given the stem's maps."""
        return self.tails[place].outputs(self.stem.of(list(self.tails).index(place), maps))


def _share(executions: Sequence[Execution]) -> _Shared | None:
    """Returns what most of them share, where sharing is less work; None where it is not."""
    graph = trace(executions[0].model, executions[0].graph.input_shape, any_batch=True)
    nodes = stem_nodes(graph, [graph.output(layer).node for layer in executions[0].readout.layers])
    able = {i: one for i, one in enumerate(executions) if one.connected and one.on_crops is None}
    if len(able) < 2 or not nodes:
        return None
    tails = {i: one.shrunk(after=nodes[-1]) for i, one in able.items()}
    stem = Stem(graph, nodes, [(Tensors(one.model, graph, one.weights), tails[i].reads) for i, one in able.items()])
    # of few filters each, that overlap little, the shared layers are wider than any of their own
    pays = 2 * stem.n_filters <= sum(map(len, stem.places))
    part = stem.seconds / len(tails)
    if not pays or any(tail.seconds + part > tail.dense_seconds for tail in tails.values()):
        return None
    return _Shared(stem, tails)
