"""Resampled contributions: removed kernels put out what they put out for another image.

Zero, and the mean (`viscircuits.circuit.compensation`), are inputs that the rest of the circuit may never have seen.
Here each filter gets, beside what its kept kernels make of this image, what its removed kernels make of a random other
image of the set in the full model: noise of the right kind that knows nothing of this image. It is a way to measure a
circuit, not a network: nothing is folded into parameters.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.circuit.compensation import removed_part
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError
from viscircuits.execution.loop import batches, judged
from viscircuits.execution.response import Rows, freeze
from viscircuits.model.calls import KernelCall
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import run
from viscircuits.types import Progress


@checked
@clean
@torch.no_grad()
def respond_resampled(
    circuit: Circuit, images: ImageSet, *, seed: int = 0, batch_size: int = 16, progress: Progress | None = None
) -> Float[Tensor, "n p"]:
    """Returns a masked circuit's responses while its removed kernels put out what they do for other images.

    Compare them with `Reference.compare`.

    Args:
        circuit: with biases="masked", not compensated.
        images: at least two pictures; each gets another one of them, no picture serves twice.
        seed: of the choice.
        batch_size: pictures at a time; changes nothing.
        progress: called after every batch.

    Raises:
        MaskError: a pruned or a compensated circuit.
        ImageError: a single picture.
    """
    if circuit.kind != "masked":
        raise MaskError(f"resampled contributions are for a masked circuit, got a {circuit.kind} one")
    if len(images) < 2:
        raise ImageError("resampled contributions need at least two pictures, got one")
    images = judged(images, circuit.model, [circuit.readout])
    others = images.subset(donors(len(images), seed))
    model, graph, readout = circuit.model, circuit.graph, circuit.readout
    factors = circuit.mask.factors(graph)
    values = Rows(len(images))
    pairs = batches(images, model, graph, batch_size, progress=progress), batches(others, model, graph, batch_size)
    for batch, other in zip(*pairs, strict=True):
        parts: list[Tensor] = []

        def store(call: KernelCall, parts: list[Tensor] = parts) -> Tensor:
            if call.layer.weight in factors:
                parts.append(removed_part(call, factors[call.layer.weight]))
            return call.output

        # the calls of a run come in one order, so the parts are taken as they were stored
        def add(call: KernelCall, parts: list[Tensor] = parts) -> Tensor:
            return call.output + parts.pop(0) if call.layer.weight in factors else call.output

        # what the target fixes is that of this picture, not of the donor
        here = freeze(model, readout, batch.images)
        run(model, graph, other.images, readout.layers, see=store)
        outputs = run(model, graph, batch.images, readout.layers, weights=circuit.weights, see=add)
        values.add(readout.response(outputs, here, batch.labels))
    return values.tensor


def donors(n: int, seed: int) -> list[int]:
    """Returns, for each of ``n`` images, another one: a random cycle through all of them."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    other_of = [0] * n
    # a cycle: nobody is his own donor, and everybody is one once
    for one, other in zip(order, [*order[1:], order[0]], strict=True):
        other_of[one] = other
    return other_of
