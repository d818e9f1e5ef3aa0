"""From a model, a target and images to a circuit, in one call."""

from typing import Literal

from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.saliency.registry import score
from viscircuits.target import AnyTarget, as_target
from viscircuits.types import Biases, Granularity, Progress


@checked
def find(
    model: nn.Module,
    target: AnyTarget | str,
    images: ImageSet | Tensor,
    *,
    density: float,
    criterion: str = "actgrad",
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    biases: Biases = "masked",
    seed: int = 0,
    batch_size: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Circuit:
    """Returns the circuit of the best structures for a target, at a density.

    The same as `score`, `Scores.select` and `Circuit` one after the other; criteria that can use the density (force,
    learned) are told it.

    Args:
        model, target, images, criterion, granularity, normalise, seed, batch_size, memory, progress: as for
            `score`.
        density: fraction of the relevant structures to keep, in (0, 1].
        biases: "masked" or "pruned", as for `Circuit`.
    """
    scores = score(
        model, target, images, criterion, granularity=granularity, normalise=normalise, seed=seed,
        density=density, batch_size=batch_size, memory=memory, progress=progress,
    )  # fmt: skip
    return Circuit(model, as_target(target), scores.select(density=density), biases)
