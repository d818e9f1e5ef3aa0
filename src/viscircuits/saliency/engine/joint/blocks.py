"""Layers that are too large to be treated as one: what their parts share is left out.

Inputs go in blocks where the matrix of all would not fit into memory; filters one by one where it would take hours to
choose among all their kernels. Which layers, and how many blocks, follows from the memory limit and the network alone,
so that the same limit gives the same scores everywhere.
"""

from collections.abc import Iterable, Mapping
from math import prod

from viscircuits.model.graph import KernelLayer

SHARE = 0.5
"""Of the memory limit, what all matrices may take; the rest is for the pass over the pictures."""

WORK = 10**12
"""Products that eliminating the kernels of a layer together may take: a few minutes."""

_SETS = 2
"""Matrices are kept of the full and of the masked network."""
_COPIES = 3
"""While a layer is worked on: pooled, centred, and in the order of the loop."""


def input_blocks(layers: Iterable[KernelLayer], memory: int, itemsize: int) -> dict[str, int]:
    """Returns layer -> into how many blocks the inputs of each of its groups go; 1 where they stay whole.

    Args:
        layers: kernel layers.
        memory: the limit, in bytes.
        itemsize: bytes a number.
    """
    by_name = {layer.name: layer for layer in layers}
    blocks = dict.fromkeys(by_name, 1)
    while matrix_bytes(by_name.values(), blocks, itemsize) > SHARE * memory:
        sizes = {name: _inputs(layer, blocks[name]) for name, layer in by_name.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        width = by_name[largest].shape[1]
        finer = next((b for b in range(blocks[largest] + 1, width + 1) if width % b == 0), None)
        if finer is None:  # one channel a block: what is left is for the pass to refuse
            break
        blocks[largest] = finer
    return blocks


def by_filter(layer: KernelLayer, blocks: int) -> bool:
    """Returns whether a layer is so large that its filters are eliminated one by one, as if gradients shared nothing.

    Args:
        layer: the kernel layer.
        blocks: into how many the inputs of each group go.
    """
    filters, width = layer.out_channels // layer.groups, layer.shape[1] // blocks * prod(layer.kernel_size)
    return prod(layer.shape) * filters * width > WORK


def matrix_bytes(layers: Iterable[KernelLayer], blocks: Mapping[str, int], itemsize: int) -> int:
    """Returns the bytes of all matrices of some layers, with what working on the largest takes.

    Args:
        layers: kernel layers.
        blocks: layer -> into how many the inputs of each of its groups go.
        itemsize: bytes a number.
    """
    layers = list(layers)
    inputs = [_inputs(layer, blocks[layer.name]) for layer in layers]
    gradients = [layer.out_channels**2 for layer in layers]
    weights = [prod(layer.shape) * prod(layer.kernel_size) for layer in layers]
    return itemsize * (_SETS * sum(inputs + gradients) + _COPIES * max(inputs) + _COPIES * max(weights))


def _inputs(layer: KernelLayer, blocks: int) -> int:
    """Numbers in the matrices of a layer's inputs."""
    width = layer.shape[1] // blocks * prod(layer.kernel_size) + 1
    return layer.groups * blocks * width**2
