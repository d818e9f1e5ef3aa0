"""What reaches what: relevant kernels, effective circuits, disconnection.

One forward pass of wires from the image and one backward pass from the target answer all of it (see
`viscircuits.model.flow.wires`). Masks come in as plain arrays of kept kernels, so this file knows no `Mask`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeGuard

import torch
from jaxtyping import Bool
from torch import Tensor, fx

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.flow.kernels import KernelUse, kernels
from viscircuits.model.flow.rules import step
from viscircuits.model.flow.wires import recording, wires_in
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.nodes import concrete, filled, leading_to, source

Seeds = Mapping[str, Bool[Tensor, " c"]]
"""Which channels of which modules' outputs are asked for."""


@dataclass(frozen=True)
class Reach:
    """What one forward and one backward pass of wires found.

    Attributes:
        used: per kernel layer, the kernels on a path from the image to a seed, ``Bool[out, in/g]``.
        connected: whether anything at all leads from the image to a seed.
        needed: per graph node, what the seeds ask of it, in the activation's shape (only when asked for).
        varying: the graph nodes whose values may depend on the image (not only on its size; likewise).
        unknown: the graph nodes of which nothing can be said, and which lead to no seed.
        alive: per graph node, which of its elements depend on the image (likewise).
    """

    used: Mapping[str, Bool[Tensor, "out in"]]
    connected: bool
    needed: Mapping[fx.Node, Tensor] = field(default_factory=dict, repr=False)
    varying: frozenset[fx.Node] = field(default_factory=frozenset, repr=False)
    alive: Mapping[fx.Node, Tensor] = field(default_factory=dict, repr=False)
    unknown: frozenset[fx.Node] = field(default_factory=frozenset, repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class Paths:
    """What leads from the image to the seeds when only the kept kernels conduct: followed once it is asked for.

    Args:
        graph, seeds, kept: as in `reach`.
    """

    graph: NetGraph
    seeds: Seeds
    kept: Mapping[str, Bool[Tensor, "out in"]]

    @cached_property
    def reach(self) -> Reach:
        """What was found."""
        return reach(self.graph, self.seeds, self.kept)


@clean
def reach(
    graph: NetGraph, seeds: Seeds, kept: Mapping[str, Bool[Tensor, "out in"]] | None = None, *, nodes: bool = False
) -> Reach:
    """Returns what lies between the image and the seeds when only the kept kernels conduct.

    Args:
        graph: the traced network.
        seeds: module name -> channels asked for.
        kept: kernel layer -> True where a kernel conducts; layers that are absent conduct everywhere.
        nodes: also record the needs of every node (for extraction).
    """
    uses: list[KernelUse] = []
    unknown: set[fx.Node] = set()
    with recording():
        values = _forward(graph, kept or {}, uses, {graph.output(name).node for name in seeds}, unknown)
        ends, wanted = [], []
        for name, channels in seeds.items():
            output = graph.output(name)
            wire = values[output.node]
            if isinstance(wire, Tensor) and wire.requires_grad:
                view = [1] * wire.ndim
                view[output.channel_axis if wire.ndim > 1 else 0] = -1  # one number an image is one channel
                ends.append(wire)
                wanted.append(channels.to(wire).view(view).expand_as(wire))
        needed = _backward(values, ends, wanted, nodes)
    # a path exists where what is asked for is alive; a target whose image was cut off asks, but nothing answers
    connected = any(bool(((wire != 0) & (want != 0)).any()) for wire, want in zip(ends, wanted, strict=True))
    used: dict[str, Tensor] = {}
    for use in uses:
        name = use.layer.name
        used[name] = used[name] | use.used if name in used else use.used
    varying = frozenset(node for node, value in values.items() if nodes and wires_in(value))
    alive = {node: value.detach() != 0 for node, value in values.items() if nodes and _is_wire(value)}
    return Reach(used, connected, needed, varying, alive, frozenset(unknown))


def _is_wire(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.requires_grad


def _forward(
    graph: NetGraph, kept: Mapping[str, Tensor], uses: list[KernelUse], ends: set[fx.Node], unknown: set[fx.Node]
) -> dict[fx.Node, object]:
    values: dict[fx.Node, object] = {}
    remaining = set(ends)
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.constants.get(node.name)
            if values[node] is None:
                image = node.meta["val"]
                values[node] = torch.ones(
                    concrete(image.shape), dtype=torch.float32, device=image.device, requires_grad=True
                )
        elif node.op == "call_function":
            if not unknown or unknown.isdisjoint(node.all_input_nodes):
                try:
                    values[node] = _value(graph, node, values, kept, uses)
                except UnsupportedOperation:
                    # only what leads to a target counts; an auxiliary head may hold anything
                    if node in leading_to(ends):
                        raise
                    unknown.add(node)
            else:
                unknown.add(node)
            remaining.discard(node)
            if not remaining:
                break
    return values


def _value(
    graph: NetGraph, node: fx.Node, values: dict[fx.Node, object], kept: Mapping[str, Tensor], uses: list[KernelUse]
) -> object:
    if node in graph.refused and any(wires_in(values[n]) for n in node.all_input_nodes):
        raise UnsupportedOperation(graph.refused[node])
    name = graph.kernel_calls.get(node)
    wire = values.get(source(node)) if name is not None else None
    if name is not None and isinstance(wire, Tensor) and wire.requires_grad:
        layer = graph.layers[name]
        connect = kept[name] if name in kept else torch.ones(layer.shape, dtype=torch.bool)
        use = KernelUse(layer, connect, torch.zeros(layer.shape, dtype=torch.bool))
        uses.append(use)
        return kernels(node, wire, use)
    args, kwargs = filled(node, values.__getitem__)
    return step(node, list(args), kwargs)


def _backward(
    values: Mapping[fx.Node, object], ends: list[Tensor], wanted: list[Tensor], nodes: bool
) -> dict[fx.Node, Tensor]:
    needed: dict[fx.Node, Tensor] = {}
    if nodes:
        for node, value in values.items():
            if _is_wire(value):
                value.register_hook(partial(_note, needed, node))
    if ends:
        torch.autograd.backward(ends, wanted)
    return needed


def _note(needed: dict[fx.Node, Tensor], node: fx.Node, grad: Tensor | None) -> None:
    if grad is not None:  # one of several outputs of an operation may be asked for nothing
        needed[node] = grad != 0
