"""What of a network a circuit needs, node by node: which channels, which of them depend on the image, what is constant.

Asked for once, before the smaller module is written (`viscircuits.model.small.shrink`). Everything is told in the
network's own channels; which of them a node of the smaller module holds is in `viscircuits.model.small.draft`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, fx

from viscircuits.model import ops
from viscircuits.model.flow.reach import Seeds, reach
from viscircuits.model.flow.wires import any_but
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import concrete, op_name
from viscircuits.model.small.blank import Tensors, run_blank
from viscircuits.model.small.cost import Work


class Liveness:
    """What is needed of every node, and what it holds on a blank image.

    Attributes:
        ends: module that the seeds name -> the node of its output.
        varying: the nodes whose values may depend on the image.
        unknown: the nodes of which nothing can be said, and which lead to no seed.
        blank: what every node holds for one blank image: right for all images where a channel is constant.
        dense: what the network cost on that image.
        joined: kernel layers behind which sums and products stand.
        of_images: the nodes that have to do with the images, if only with their number.
    """

    def __init__(self, graph: NetGraph, seeds: Seeds, kept: Mapping[str, Tensor], tensors: Tensors) -> None:
        self.graph, self.kept = graph, kept
        self.ends = {name: graph.output(name).node for name in seeds}
        reached = reach(graph, seeds, kept, nodes=True)
        self.varying, self.unknown = reached.varying, reached.unknown
        self._needed, self._alive = reached.needed, reached.alive
        with Work() as self.dense:
            self.blank = run_blank(graph, tensors, set(self.ends.values()))
        self.joined = self._before_joins()
        self.of_images = self._of_images()

    def live(self, node: fx.Node, axis: int) -> Bool[Tensor, " c"]:
        """Returns the channels that are needed and depend on the image; all needed ones where no constant is stored."""
        shape = concrete(node.meta["val"].shape)
        needed = self._needed[node] if node in self._needed else torch.zeros(shape)
        if self.images_first(node) and node in self._alive:
            # each reduced over positions by itself: a channel may be needed at one place and alive at another, and
            # what is computed is always the whole map
            return any_but(needed, axis).cpu() & any_but(self._alive[node], axis).cpu()
        return any_but(needed, axis).cpu()

    def wanted(self, node: fx.Node) -> bool:
        """Whether a node has to be computed for every image."""
        value = node.meta.get("val")
        if isinstance(value, tuple | list):  # wanted where one of its entries is
            return any(self.wanted(user) for user in node.users)
        if node not in self._needed:
            return False
        if not self.images_first(node):
            return bool(self._needed[node].any())
        return bool((self._needed[node] & self._alive[node]).any())

    def images_first(self, node: fx.Node) -> bool:
        """Whether what is constant can be stored once and repeated along the first axis: no windows there."""
        # Attention over windows puts them beside the images along the first axis, and a transposed sequence has images
        # in another one. A constant of one image repeated there would stand in the wrong places.
        value = self.blank[node]
        alone = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == 1
        return alone and all(isinstance(size, int) for size in node.meta["val"].shape[1:])

    def _of_images(self) -> set[fx.Node]:
        of_images = {node for node in self.graph.axes if node.op == "placeholder"}
        for node in self.graph.nodes:
            if node.op == "call_function" and not of_images.isdisjoint(node.all_input_nodes):
                of_images.add(node)
        return of_images

    def _before_joins(self) -> set[fx.Node]:
        """There, all operands of the join have to hold the same channels, so none may compute a few more."""
        before: set[fx.Node] = set()
        ahead = [n for n in self.graph.nodes if op_name(n) in ops.ELEMENTWISE and len(n.all_input_nodes) > 1]
        while ahead:
            node = ahead.pop()
            sources = [n for n in node.all_input_nodes if n in self.varying and n not in before]
            before.update(sources)
            ahead += [n for n in sources if n not in self.graph.kernel_calls]
        return before
