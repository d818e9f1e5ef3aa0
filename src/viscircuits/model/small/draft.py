"""The graph of a smaller module while it is written: its nodes, which channels each holds, the tensors that are stored.

A node of the network is held narrow (some of its channels), whole, or not at all because it is constant. Whoever writes
an operation asks here for its inputs in the form that the operation needs. Which form that is, is not here but in
`viscircuits.model.small.operations` and `viscircuits.model.small.kernels`.
"""

from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, fx, nn

from viscircuits.model.nodes import Value, concrete, filled, filled_in, to_run
from viscircuits.model.small.blank import Tensors
from viscircuits.model.small.liveness import Liveness
from viscircuits.model.small.rewrite import for_each_image, pick, widened


class Narrow(NamedTuple):
    """A node of the new graph, which of the original channels it holds (None: all), and along which axis.

    The others are not needed, or constant.
    """

    node: fx.Node
    channels: Int[Tensor, " k"] | None = None
    axis: int = 1


class Draft:
    """A graph in the making.

    Attributes:
        graph: the new one.
        env: node of the network -> what stands for it.
        held: the tensors that are stored, by name.
        full_width: where channels could not be dropped -> the operation that needs all of them.
        image: what the graph starts from.
    """

    def __init__(self, life: Liveness, tensors: Tensors) -> None:
        self.life, self.tensors = life, tensors
        self.graph = fx.Graph()
        self.env: dict[fx.Node, Narrow] = {}
        self.held: dict[str, Tensor] = {}
        self.full_width: dict[str, str] = {}
        self.image = self.graph.placeholder("images")
        self._names = _Names(tensors.own)
        self._anew: dict[fx.Node, fx.Node] = {}

    def add(self, function: Callable[..., Value], *args: Value, **kwargs: Value) -> fx.Node:
        """Returns a new call of a function, of torch's or ours."""
        return self.graph.call_function(function, args, kwargs)

    def call(self, node: fx.Node, args: Iterable[Value]) -> fx.Node:
        """Returns the operation of a node on these arguments; those with a name are filled in at full width."""
        kwargs = filled_in(dict(node.kwargs), lambda n: self.argument(n, full=True))
        return self.add(to_run(node), *args, **kwargs)

    def arguments(self, node: fx.Node, full: bool = False) -> tuple[Value, ...]:
        """Returns the positional arguments of a node in the new graph."""
        return filled_in(tuple(node.args), lambda n: self.argument(n, full))

    def argument(self, node: fx.Node, full: bool) -> Value:
        """Returns what stands for a node as an argument: itself, narrow or whole, or a stored constant."""
        if self.is_here(node) or (full and self.is_anew(node)):
            return self.full(node) if full else self.env[node].node
        value = self.life.blank[node]
        return self.part(value, node) if isinstance(value, Tensor) else value

    # a node in the form that is asked for

    def full(self, node: fx.Node) -> fx.Node:
        """Returns a node at full width, constant channels filled in; channels that nothing needs may hold anything."""
        held = self.env.get(node)
        if not isinstance(node.meta.get("val"), Tensor):
            return self.env[node].node  # a size
        if held is None:
            return self._constant_of(node)
        shape = concrete(node.meta["val"].shape)
        if held.channels is None or torch.equal(held.channels, torch.arange(shape[held.axis])):
            return held.node
        if not self.life.images_first(node):  # what is needed is there; the rest may be anything
            places = self.constant(held.channels, f"{node.name}_places")
            return self.add(widened, held.node, held.axis, places, shape[held.axis])
        return self._filled(node, held, self.life.blank[node], held.channels)

    def select(self, node: fx.Node, want: Int[Tensor, " k"], axis: int) -> fx.Node:
        """Returns the wanted channels of a node, in order; constant ones are filled in.

        Args:
            node: of the network.
            want: channels, in ascending order.
            axis: where they stand in the node.
        """
        held, blank = self.env.get(node), self.life.blank
        if held is None and self.is_anew(node):
            held = Narrow(self.full(node), None, axis)
        if held is None:  # all constant; broadcast over the images
            return self.part(blank[node].index_select(axis, want.to(blank[node].device)), node)
        # narrow along another axis, as tokens are before they are transposed: no channels can be picked from that
        if held.axis != axis:
            held = Narrow(self.full(node), None, axis)
        channels = held.channels
        if channels is None:
            channels = torch.arange(concrete(node.meta["val"].shape)[axis])
        if torch.equal(channels, want):
            return held.node
        here = torch.isin(want, channels)
        places = torch.searchsorted(channels, want[here])
        if not torch.equal(places, torch.arange(len(channels))):
            taken = self.constant(places, f"{node.name}_places")
            held = held._replace(node=self.add(pick, held.node, axis, taken))
        if bool(here.all()):
            return held.node
        constants = blank[node].index_select(axis, want.to(blank[node].device))
        return self._filled(node, held, constants, here.nonzero()[:, 0])

    def _constant_of(self, node: fx.Node) -> Value:
        """What depends on no image, for each of them: repeated, or made anew where images do not stand first."""
        if node in self.env:
            return self.full(node)
        value = self.life.blank[node]
        if node not in self.life.of_images:
            return self.part(value, node) if isinstance(value, Tensor) else value
        if self.life.images_first(node):
            return self._for_each_image(value, node)
        # several readers share it: the steps behind are made once
        if node not in self._anew:
            args, kwargs = filled(node, self._constant_of)
            self._anew[node] = self.add(to_run(node), *args, **kwargs)
        return self._anew[node]

    def _filled(self, node: fx.Node, held: Narrow, constants: Tensor, places: Tensor) -> fx.Node:
        # a clone, because what is repeated without a copy cannot be written to
        whole = self.add(torch.clone, self._for_each_image(constants, node))
        places_held = self.constant(places, f"{node.name}_places")
        return self.add(torch.index_copy, whole, held.axis, places_held, held.node)

    def _for_each_image(self, value: Tensor, node: fx.Node) -> fx.Node:
        """A constant ``(1, ...)``, repeated for every image."""
        return self.add(for_each_image, self.part(value, node), self.image)

    # tensors that are stored

    def part(self, value: Tensor, node: fx.Node) -> fx.Node:
        """Stores what is taken of a node that depends on no image."""
        own = self.life.graph.parameters.get(node.name)
        return self.constant(value, node.name) if own is None else self.hold(value, own)

    def constant(self, value: Tensor, name: str) -> fx.Node:
        """Stores something that the network has no name for."""
        return self.hold(value, f"{self._names.root}.{name}")

    def hold(self, value: Tensor, name: str) -> fx.Node:
        """Stores a tensor under its name in the network, or one like it where two parts of one tensor are needed."""
        trained = isinstance(self.tensors.own.get(name), nn.Parameter)
        # copied, because a view would keep the whole of the network's tensor alive, and in the file
        name, copy = self._names.free(name), value.detach().clone()
        self.held[name] = nn.Parameter(copy, requires_grad=False) if trained else copy
        return self.graph.get_attr(name)

    # questions about a node of the network

    def is_here(self, node: fx.Node) -> bool:
        """Whether a node stands in the new graph, or would if it were needed; all others are constants."""
        return node in self.env or node in self.life.varying

    def is_anew(self, node: fx.Node) -> bool:
        """Whether a node that stands not in the new graph holds something for each image that is not stored once."""
        tensor = node in self.life.of_images and isinstance(self.life.blank[node], Tensor)
        return tensor and not self.life.images_first(node)

    def images_in(self, node: fx.Node) -> list[fx.Node]:
        """Returns the tensors among a node's inputs that depend on the image."""
        return [n for n in node.all_input_nodes if self.is_here(n) and isinstance(n.meta.get("val"), Tensor)]

    def takes_constants(self, node: fx.Node) -> bool:
        """Whether one of a node's inputs is constant."""
        return not all(self.is_here(n) for n in node.all_input_nodes)


class _Names:
    """Gives every tensor a name of its own, that of the network's where that is free."""

    def __init__(self, own: Iterable[str]) -> None:
        # a module and a tensor of one name cannot stand side by side, so the names of modules are taken as well
        paths = [name.split(".") for name in own]
        self.networks = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
        self.given: set[str] = set()
        self.root = next(root for i in count() if (root := "constants" + i * "_") not in self.networks)

    def free(self, name: str) -> str:
        """Returns the name, numbered if it is taken."""
        numbered = (f"{name}_{i}" for i in count(1))
        others = (other for other in numbered if other not in self.given and other not in self.networks)
        free = name if name not in self.given else next(others)
        self.given.add(free)
        return free
