"""What a network with edited weights holds at every node for one blank image: constants, and where they stand."""

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import at_rest
from viscircuits.model.nodes import concrete, to_run


class Tensors:
    """The parameters, buffers and constants of a network, some of them edited."""

    def __init__(self, model: nn.Module, graph: NetGraph, edits: Mapping[str, Tensor]) -> None:
        self.graph, self.edits = graph, edits
        with at_rest(model):
            self.own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
            self.own |= dict(model.named_buffers(remove_duplicate=False))

    def named(self, name: str) -> Tensor:
        """Returns a parameter or buffer."""
        return (self.edits[name] if name in self.edits else self.own[name]).detach()

    def at(self, node: fx.Node) -> Any:
        """Returns what a placeholder other than the image holds."""
        name = self.graph.parameters.get(node.name)
        return self.named(name) if name is not None else self.graph.constants[node.name]


@torch.no_grad()
def run_blank(graph: NetGraph, tensors: Tensors, until: Container[fx.Node]) -> dict[fx.Node, Any]:
    """Returns what every node up to the last of some holds; right for all images where a channel is constant.

    Args:
        graph: the network.
        tensors: its parameters, buffers and constants, edited where the circuit's differ.
        until: the nodes after the last of which nothing is needed.
    """
    blank: dict[fx.Node, Any] = {}
    last = max(place for place, node in enumerate(graph.nodes) if node in until)
    for node in graph.nodes[: last + 1]:
        if node.op == "placeholder" and node in graph.axes:
            image = node.meta["val"]
            blank[node] = torch.zeros((1, *concrete(image.shape)[1:]), device=image.device, dtype=image.dtype)
        elif node.op == "placeholder":
            blank[node] = tensors.at(node)
        elif node.op == "call_function":
            args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), lambda n: blank[n])  # pyright: ignore
            blank[node] = to_run(node)(*args, **kwargs)
    return blank
