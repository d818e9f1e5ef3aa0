"""How much memory a run needs: the sizes of what a network computes on the way, read off its graph."""

from collections.abc import Iterable
from math import prod

from torch import Tensor

from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import concrete


def activation_bytes(graph: NetGraph, layers: Iterable[str]) -> int:
    """Returns the bytes of everything one image makes up to some modules' outputs, as if nothing were ever freed.

    An upper bound of what a backward pass keeps: in-place operations and views share memory.
    """
    return sum(_values(graph, layers, kernels=False))


def kernel_output_bytes(graph: NetGraph, layers: Iterable[str]) -> int:
    """Returns the bytes of all outputs of kernel layers for one image, up to some modules' outputs."""
    return sum(_values(graph, layers, kernels=True))


def _values(graph: NetGraph, layers: Iterable[str], kernels: bool) -> Iterable[int]:
    remaining = {graph.output(name).node for name in layers}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and node in graph.axes and (node in graph.kernel_calls or not kernels):
            yield prod(concrete(value.shape)) * value.element_size() // 2  # traced with two images
        remaining.discard(node)
        if not remaining:
            return
