"""The stem of several circuits, computed once for all: their first layer and what treats its channels alone.

Circuits of one target differ little there: most of the first filters are whole, or have lost the same kernels. Every
distinct filter is computed once, and each circuit picks its own.
"""

import operator
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, fx, nn

from viscircuits.model import ops
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import concrete, keeps_channels, op_name
from viscircuits.model.small.blank import Tensors
from viscircuits.model.small.cost import Work
from viscircuits.model.small.rewrite import axis_after, even_parts, images_at_once, pick, write_in_place

_VECTOR = 8
"""Filters are computed in multiples of this; vector code is slow on what is left over."""


def stem_nodes(graph: NetGraph, ends: Collection[fx.Node]) -> tuple[fx.Node, ...]:
    """Returns a network's first layer and what follows it channel by channel, in order.

    Empty where the image goes elsewhere too, or where one of ``ends`` (what a target reads) lies within.
    """
    image = next(node for node in graph.axes if node.op == "placeholder")
    chain, readers = [], _readers(image)
    while len(readers) == 1 and (_alone(readers[0]) if chain else _first(graph, readers[0])):
        chain += readers
        readers = _readers(chain[-1])
    while chain and not isinstance(chain[-1].meta["val"], Tensor):
        chain.pop()
    return () if set(chain) & set(ends) else tuple(chain)


class Stem(nn.Module):
    """The distinct filters of several circuits: images ``[n, c, h, w]`` to what stands behind the stem.

    Attributes:
        n_filters: how many there are; each is computed once.
        seconds: estimated time for one image.
    """

    def __init__(self, graph: NetGraph, nodes: Sequence[fx.Node], users: Sequence[tuple[Tensors, Int[Tensor, " k"]]]):
        """Builds the stem.

        Args:
            graph: the network, traced for any number of images.
            nodes: its `stem_nodes`.
            users: each circuit's tensors, and the channels that it reads.
        """
        super().__init__()
        stacks = []
        for node in _parameters(nodes):
            stacks.append(torch.cat([tensors.at(node)[reads] for tensors, reads in users]))
        rows = torch.cat([stack.flatten(1) if stack.ndim > 1 else stack[:, None] for stack in stacks], 1)
        distinct, kind = rows.unique(dim=0, return_inverse=True)
        one_of_each = kind.new_zeros(len(distinct)).scatter_(0, kind, torch.arange(len(rows), device=kind.device))
        self.n_filters = len(distinct)
        self.places = kind.split([len(reads) for _, reads in users])
        padded = torch.cat([one_of_each, one_of_each[:1].expand(-self.n_filters % _VECTOR)])
        self.body = _rebuilt(nodes, [stack[padded] for stack in stacks])
        image = concrete(nodes[0].all_input_nodes[0].meta["val"].shape)[1:]
        with torch.no_grad(), Work() as work:
            self.body(rows.new_zeros(1, *image))
        self.seconds, self.at_once = work.seconds, images_at_once(work.largest)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k ..."]:
        """Returns every distinct filter's map."""
        return torch.cat([self.body(some) for some in even_parts(images, self.at_once)])

    def of(self, user: int, maps: Float[Tensor, "n k ..."]) -> Float[Tensor, "n r ..."]:
        """Returns what one of the circuits reads of the maps."""
        return pick(maps, 1, self.places[user])


def _readers(node: fx.Node) -> list[fx.Node]:
    """The nodes that take a node's values, not only its size."""
    return [user for user in node.users if isinstance(user.meta.get("val"), Tensor | tuple | list)]


def _first(graph: NetGraph, node: fx.Node) -> bool:
    """Whether a node is a convolution of which each filter can be computed by itself."""
    layer = graph.layers.get(graph.kernel_calls.get(node, ""))
    return layer is not None and layer.op == "conv" and layer.groups == 1 and _stored(node)


def _alone(node: fx.Node) -> bool:
    """Whether a node treats every channel alone and leaves it where it is."""
    if op_name(node) in ops.CHANNEL_NORMS or node.target is operator.getitem:
        return _stored(node)
    return keeps_channels(node) and len(node.all_input_nodes) == 1 and axis_after(node, 1) == 1


def _stored(node: fx.Node) -> bool:
    """Whether all that a node takes, beside the map, is stored."""
    return all(n.op == "placeholder" for n in node.all_input_nodes[1:])


def _parameters(nodes: Sequence[fx.Node]) -> Iterator[fx.Node]:
    for node in nodes:
        yield from node.all_input_nodes[1:]


def _rebuilt(nodes: Sequence[fx.Node], parameters: Sequence[Tensor]) -> fx.GraphModule:
    """The nodes as a module of their own, with these parameters."""
    root, new = nn.Module(), fx.Graph()
    env: dict[fx.Node, Any] = {nodes[0].all_input_nodes[0]: new.placeholder("images")}
    values = iter(parameters)
    for node in nodes:
        for parameter in node.all_input_nodes[1:]:
            name = f"tensor_{len(root._buffers)}"
            root.register_buffer(name, next(values))
            env[parameter] = new.get_attr(name)
        env[node] = new.node_copy(node, lambda n: env[n])
    new.output(env[nodes[-1]])
    write_in_place(new)
    return fx.GraphModule(root, new)
