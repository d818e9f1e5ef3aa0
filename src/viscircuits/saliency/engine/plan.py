"""How many pictures and targets to take at a time, so that a pass stays within a memory limit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from viscircuits.errors import ImageError
from viscircuits.model.small.footprint import activation_bytes, kernel_output_bytes
from viscircuits.readout import Readout
from viscircuits.saliency.engine.fused import TOGETHER

_BESIDE = 2**26
"""Bytes that tracing a model, and reading pictures meanwhile, take beside a pass; an eighth of a small limit."""

MEMORY = 2**31 + _BESIDE
"""Bytes that may be taken unless told otherwise."""

PICTURES = 16
"""Pictures at a time where memory allows; more are no faster on a CPU."""

_WORKSPACE = 2**25
"""Bytes for the fused loop's own arrays, and for what allocators keep back."""


@dataclass(frozen=True)
class Plan:
    """Pictures in a batch, and targets that share a pass; neither changes a score beyond rounding."""

    batch_size: int
    targets: int


def plan(
    readouts: Sequence[Readout], *, memory: int | None = None, batch_size: int | None = None, beside: int = 0
) -> Plan:
    """Returns how to score some targets of one layer within a memory limit.

    A pass keeps what the forward run computed for every picture, the gradients of all kernel layers of every target,
    and every target's sums. The estimate counts each intermediate value once; in-place operations need less.

    Args:
        readouts: the targets, bound to the graph; the first stands for all.
        memory: the most bytes the working set may take; `MEMORY` where None.
        batch_size: pictures at a time, where that is not to be chosen; then only the number of targets is.
        beside: bytes of the limit that a criterion takes for itself.

    Raises:
        ImageError: not even one picture and one target fit.
    """
    first, limit = readouts[0], MEMORY if memory is None else memory
    left = limit - min(_BESIDE, limit // 8) - beside
    forward, backward = activation_bytes(first.graph, first.layers), kernel_output_bytes(first.graph, first.layers)
    sums = 16 * sum(kernels.numel() for kernels in first.relevant_kernels.values())

    def pictures(targets: int) -> int:
        return (left - _WORKSPACE - targets * sums) // (forward + targets * backward)

    targets = min(TOGETHER, len(readouts))
    while targets > 1 and pictures(targets) < (batch_size or 1):
        targets //= 2
    if batch_size is not None:
        return Plan(batch_size, targets)
    if pictures(targets) < 1:
        needed = (forward + backward + sums + _WORKSPACE + limit - left) / 1e6
        raise ImageError(
            f"scoring {first.target} takes {needed:.0f} MB for one picture at a time, and the memory limit is "
            f"{limit / 1e6:.0f} MB; raise the limit or take smaller pictures"
        )
    return Plan(min(PICTURES, pictures(targets)), targets)


def in_passes(
    readouts: Sequence[Readout], *, memory: int | None = None, batch_size: int | None = None
) -> Iterator[tuple[Sequence[Readout], Plan]]:
    """Yields those of some targets that are scored together, in order, with the plan of their pass.

    Each group alone falls into one pass with the same plan.

    Args:
        readouts: the targets, bound to one graph; those of one layer that stand side by side share a pass.
        memory: the most bytes the working set may take; `MEMORY` where None.
        batch_size: pictures at a time, where that is not to be chosen.
    """
    while readouts:
        layers = readouts[0].layers
        alike = list(takewhile(lambda readout, layers=layers: readout.layers == layers, readouts))
        size = plan(alike, memory=memory, batch_size=batch_size)
        yield readouts[: size.targets], size
        readouts = readouts[size.targets :]
