"""What a demand on one node of a graph asks of the nodes before it, back to the image.

The rules of the operations are in `viscircuits.model.field.spread`; what stands at the image is made a box of pixels in
`viscircuits.model.field.receptive_field`.
"""

import operator
from collections.abc import Iterable

from torch import Tensor, fx

from viscircuits.errors import UnsupportedOperation
from viscircuits.model import ops
from viscircuits.model.field.places import Call, Demand, Places, inside, probed
from viscircuits.model.field.spread import RULES
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import arguments, op_name, shape_of


def image_node(graph: NetGraph) -> fx.Node:
    """Returns the node that stands for the images; an error where they are no pictures with height and width."""
    if len(graph.input_shape) != 3:
        raise UnsupportedOperation(
            f"receptive fields need images of shape (c, h, w); this network takes {graph.input_shape}"
        )
    return next(node for node in graph.nodes if node.op == "placeholder" and node in graph.axes)


def demands(graph: NetGraph, node: fx.Node, demand: Demand, *, borders: bool) -> dict[fx.Node, Demand]:
    """Returns what a demand on one node asks of every node before it (and that demand itself).

    Args:
        graph: the traced network.
        node: where the demand stands.
        demand: one entry an axis of the node.
        borders: drop indices beyond the ends of a tensor, which ask for padding; otherwise go on as if the image had
            no borders (where an operation knows nothing beyond them, they hold all the same).
    """
    varying = varying_nodes(graph)
    # an operation of several outputs (a split) is asked for each by itself
    by_item: dict[fx.Node, dict[int, Demand]] = {}

    def ask(source: fx.Node, item: int, need: Demand) -> None:
        if borders:
            need = tuple(inside(places, size) for places, size in zip(need, shape_of(source, item), strict=True))
        # nothing along one axis is nothing at all
        if all(places.at for places in need):
            items = by_item.setdefault(source, {})
            items[item] = _union([items[item], need]) if item in items else need

    ask(node, 0, demand)
    # backwards in the order of execution: all readers of a node have asked before it is looked at
    for current in reversed(graph.nodes):
        if current.op != "call_function":
            continue
        for item, need in by_item.get(current, {}).items():
            if current.target is operator.getitem:
                source, output = arguments(current)
                ask(source, output, need)
                continue
            inputs = tuple(n for n in current.all_input_nodes if n in varying)
            for source, wanted in RULES.get(op_name(current), probed)(Call(graph, current, item, need, inputs)):
                if source in varying:
                    ask(source, 0, wanted)
    return {source: _union(items.values()) for source, items in by_item.items()}


def varying_nodes(graph: NetGraph) -> set[fx.Node]:
    """Returns the nodes that depend on the image's values, not only on its size."""
    varying: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" and node in graph.axes:
            varying.add(node)
        elif node.op == "call_function" and node in graph.axes and op_name(node) not in ops.CREATIONS | ops.CHECKS:
            value = node.meta.get("val")
            sources = node.args[1:] if op_name(node) in ops.OVERWRITES else node.all_input_nodes
            if isinstance(value, Tensor | tuple | list) and any(source in varying for source in sources):
                varying.add(node)
    return varying


def _union(demands: Iterable[Demand]) -> Demand:
    """The smallest block that holds some blocks."""
    first, *others = demands
    for other in others:
        pairs = zip(first, other, strict=True)
        first = tuple(Places(one.at | more.at, one.mixed or more.mixed) for one, more in pairs)
    return first
