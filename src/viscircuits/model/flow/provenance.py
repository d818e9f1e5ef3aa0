"""Where a channel comes from: the filters, image channels and joins right behind it.

The network is cut at the image, behind every scored kernel layer, and at every *join*, an operation that puts several
signals together element by element (a residual sum, a gate). What lies between two cuts is followed by the wires of
`viscircuits.model.flow.wires`: one channel is asked for at the end of a stretch, and autograd says which channels of
which cuts it stems from. So this is exact for whatever moves channels (concatenation, shuffling, groups, flattening)
and for what mixes them (a layer norm, attention), where a channel stems from many.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, fx

from viscircuits.errors import UnsupportedOperation
from viscircuits.model import ops
from viscircuits.model.flow.kernels import KernelUse, kernels
from viscircuits.model.flow.rules import step
from viscircuits.model.flow.wires import any_but, recording, wires_in
from viscircuits.model.graph import KernelLayer, NetGraph
from viscircuits.model.nodes import concrete, filled, leading_to, op_name, source


class CutChannel(NamedTuple):
    """One channel at one cut: of the image, of a kernel layer's output, or of a join."""

    node: fx.Node
    channel: int


@dataclass(frozen=True)
class Provenance:
    """The stretches of a network between its cuts; made by `provenance`."""

    graph: NetGraph = field(repr=False)
    cuts: dict[fx.Node, Tensor] = field(default_factory=dict, repr=False)  # the wires that start at each
    arriving: dict[fx.Node, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)  # at a kernel layer or a join
    values: dict[fx.Node, object] = field(default_factory=dict, repr=False)
    _known: dict[tuple[fx.Node, int, int], frozenset[CutChannel]] = field(default_factory=dict, repr=False)

    def is_join(self, node: fx.Node) -> bool:
        """Whether a cut puts several signals together."""
        return node in self.arriving and node not in self.graph.kernel_calls

    def symbol(self, node: fx.Node) -> str:
        """Returns what a join does, as one sign where there is one: "+", "×", or the operation's name."""
        return ops.SIGNS.get(op_name(node), op_name(node))

    def output_stems(self, node: fx.Node, channel: int) -> frozenset[CutChannel]:
        """Returns where a channel of any node's value stems from; of a cut it is the channel itself."""
        return self._ask(node, -1, self.values[node], self.graph.axes[node], channel)

    def input_stems(self, node: fx.Node, channel: int) -> tuple[frozenset[CutChannel], ...]:
        """Returns where an input channel of a kernel layer's call stems from, or a join's channel: a set an operand.

        An operand that is the same for every image there (an operation's constant channel) has an empty set.
        """
        if node in self.graph.kernel_calls:
            linear = self.graph.layers[self.graph.kernel_calls[node]].op == "linear"
            axis = self.arriving[node][0].ndim - 1 if linear else 1
        else:
            axis = self.graph.axes[node]
        return tuple(self._ask(node, i, wire, axis, channel) for i, wire in enumerate(self.arriving[node]))

    def _ask(self, node: fx.Node, operand: int, wire: object, axis: int, channel: int) -> frozenset[CutChannel]:
        if not (isinstance(wire, Tensor) and wire.requires_grad):
            return frozenset()
        if wire.is_leaf:  # nothing on the way but activations and norms, which hand wires on as they are
            return frozenset({CutChannel(self._owner[id(wire)], channel)})
        key = (node, operand, channel)
        if key not in self._known:
            with recording():
                request = torch.zeros_like(wire)
                request.select(axis, channel).fill_(1)
                # every cut is a leaf, so that this walks one stretch only and stays cheap in a deep network
                needed = torch.autograd.grad(wire, [*self.cuts.values()], request, retain_graph=True, allow_unused=True)
            self._known[key] = frozenset(
                CutChannel(cut, int(c))
                for cut, need in zip(self.cuts, needed, strict=True)
                if need is not None
                for c in any_but(need, self.graph.axes[cut]).nonzero().flatten()
            )
        return self._known[key]

    def _follow(self, node: fx.Node) -> object:
        """What a node holds: a wire that starts here at a cut, or one that goes on."""
        if node in self.graph.refused and any(wires_in(self.values[n]) for n in node.all_input_nodes):
            raise UnsupportedOperation(self.graph.refused[node])
        name = self.graph.kernel_calls.get(node)
        wire = self.values.get(source(node)) if name is not None else None
        if name is not None and isinstance(wire, Tensor) and wire.requires_grad:
            return self._kernels(node, self.graph.layers[name], wire)
        args, kwargs = filled(node, self.values.__getitem__)
        wires = wires_in((args, kwargs))
        if len(wires) > 1 and op_name(node) in ops.ELEMENTWISE | ops.EXTREMES:
            shape = concrete(node.meta["val"].shape)
            return self._cut(node, *(w if w.shape == shape else w.expand(*shape) for w in wires))
        return step(node, list(args), kwargs)

    def _kernels(self, node: fx.Node, layer: KernelLayer, wire: Tensor) -> Tensor:
        if layer.scored:
            return self._cut(node, wire)
        whole = torch.ones(layer.shape, dtype=torch.bool)  # carries signals only: one more stretch of the way
        return kernels(node, wire, KernelUse(layer, whole, torch.zeros_like(whole)))

    @cached_property
    def _owner(self) -> dict[int, fx.Node]:
        """The identity of the wire that starts at each cut, to the cut."""
        return {id(wire): cut for cut, wire in self.cuts.items()}

    def _cut(self, node: fx.Node, *arriving: Tensor) -> Tensor:
        value = node.meta["val"]
        if arriving:
            self.arriving[node] = arriving
        self.cuts[node] = torch.ones(
            concrete(value.shape), dtype=torch.float32, device=value.device, requires_grad=True
        )
        return self.cuts[node]


def provenance(graph: NetGraph, ends: Iterable[fx.Node]) -> Provenance:
    """Returns what is needed to ask where channels come from, up to the given nodes of the graph."""
    made = Provenance(graph)
    remaining = set(ends)
    leading = leading_to(remaining)
    with recording():
        for node in graph.nodes:
            if node.op == "placeholder":
                constant = graph.constants.get(node.name)
                made.values[node] = made._cut(node) if constant is None else constant
            elif node.op == "call_function" and node in leading:
                made.values[node] = made._follow(node)
                remaining.discard(node)
                if not remaining:
                    break
    return made
