"""Extraction: a standalone, physically smaller module that computes what the seeds ask for.

The exported graph is rebuilt operation by operation with only the channels that are needed downstream and still depend
on the image. Convolutions, linear maps, norms, pooling, activations, sums, concatenation and flattening run narrow;
whatever moves or mixes channels in another way (shuffles, channel-mixing norms, attention) gets its input back at full
width and is reported in `Shrunk.full_width`. Channels that no longer depend on the image are the same map for every
image, uneven at zero-padded borders: they are computed once, on a blank image, and what a convolution makes of them
is added to its output as a map, or to its bias where that map is even.
"""

import operator
from collections.abc import Iterable, Mapping
from itertools import count
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from viscircuits.model.flow import wires
from viscircuits.model.flow.affine import CHANNEL_NORMS
from viscircuits.model.flow.reach import Seeds, reach
from viscircuits.model.graph import KernelLayer, NetGraph
from viscircuits.model.ops import concrete, op_name, origin, to_run
from viscircuits.model.small.blank import Tensors, run_blank
from viscircuits.model.small.cost import Work
from viscircuits.model.small.program import Program
from viscircuits.model.small.rewrite import (
    axis_after,
    cat_axis,
    even,
    even_parts,
    flattens,
    for_each_image,
    images_at_once,
    pick,
    rank,
    rounded,
    widened,
    write_in_place,
)


class Shrunk(nn.Module):
    """A circuit as a module of its own: images ``[n, c, h, w]`` to the target's response ``[n, p]``.

    It can be copied, pickled and exported. Its parameters are the parts of the network's own that it needs, under
    ``body`` and the network's names; what is constant on all images, and which channels to take, are buffers below
    ``body.constants``. They ask for no gradients until ``requires_grad_()`` is called.

    Attributes:
        full_width: where channels could not be dropped -> the operation that needs all of them.
        reads: the channels that it takes: those of the image, or some of those behind the network's first layers.
        seconds: estimated time for one image; ``dense_seconds`` is that of the whole network it was made from.
        at_once: how many images it takes at a time.
    """

    def __init__(
        self, body: Program, layers: Iterable[str], head: nn.Module | None, full_width: Mapping[str, str],
        reads: Int[Tensor, " k"], work: Work, dense: Work,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = body
        self.head = head
        self.layers = tuple(layers)
        self.full_width = dict(full_width)
        self.reads = reads
        self.seconds, self.dense_seconds = work.seconds, dense.seconds
        self.at_once = images_at_once(work.largest)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
        """Returns the target's response to images of the size the circuit was extracted for."""
        assert self.head is not None
        return self.head(self.outputs(images))

    def outputs(self, images: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
        """Returns the outputs of the modules that the target reads; only what it reads of them is meaningful."""
        if torch.compiler.is_exporting():  # for any number of images, so that nothing may depend on it
            return dict(zip(self.layers, self.body(images), strict=True))
        parts = [self.body(some) for some in even_parts(images, self.at_once)]
        return dict(zip(self.layers, map(torch.cat, zip(*parts, strict=True)), strict=True))

    @property
    def saving(self) -> float:
        """Its estimated time over that of the network it was made from; above 1 it is slower."""
        return self.seconds / self.dense_seconds

    @property
    def n_parameters(self) -> int:
        """How many numbers the module stores."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))


class _Narrow(NamedTuple):
    """A node of the new graph, which of the original channels it holds (None: all), and along which axis.

    The others are not needed, or constant.
    """

    node: Any
    channels: Int[Tensor, " k"] | None = None
    axis: int = 1


def shrink(
    model: nn.Module,
    graph: NetGraph,
    seeds: Seeds,
    kept: Mapping[str, Bool[Tensor, "out in"]],
    weights: Mapping[str, Tensor],
    head: nn.Module | None = None,
    after: fx.Node | None = None,
) -> Shrunk:
    """Returns the smaller module.

    Args:
        model: the user's module; its tensors are copied.
        graph: its graph, traced for any number of images.
        seeds: module outputs and channels to compute.
        kept: kernel layer -> kernels that conduct.
        weights: edited parameters by name, taken instead of the model's own.
        head: from a dict of full-width module outputs to the response; without one, only `Shrunk.outputs` serves.
        after: a node on every path from the image, to start behind instead of at the image; see `Shrunk.reads`.
    """
    return _Shrinker(model, graph, seeds, kept, weights).build(head, after)


class _Shrinker:
    def __init__(
        self, model: nn.Module, graph: NetGraph, seeds: Seeds, kept: Mapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> None:
        self.graph, self.kept, self.tensors = graph, kept, Tensors(model, graph, weights)
        self.ends = {name: graph.output(name).node for name in seeds}
        found = reach(graph, seeds, kept, nodes=True)
        self.needed, self.varying, self.alive, self.unknown = found.needed, found.varying, found.alive, found.unknown
        with Work() as self.dense:
            self.blank = run_blank(graph, self.tensors, set(self.ends.values()))
        self.joined = self._joined()
        self.of_images = self._of_images()
        self.new = fx.Graph()
        self.held: dict[str, Tensor] = {}
        self.names = _Names(self.tensors.own)
        self.env: dict[fx.Node, _Narrow] = {}
        self.made_anew: dict[fx.Node, fx.Node] = {}
        self.full_width: dict[str, str] = {}

    def build(self, head: nn.Module | None, after: fx.Node | None) -> Shrunk:
        start = after if after is not None else next(n for n in self.graph.axes if n.op == "placeholder")
        reads = torch.arange(self.blank[start].shape[1]) if after is None else self._live(after, 1).nonzero()[:, 0]
        self.image = self.new.placeholder("images")
        self.env[start] = _Narrow(self.image, None if after is None else reads)
        self.n_first = len(self.blank[start])
        for node in self.graph.nodes[: self.graph.nodes.index(start)]:  # numbers of images that are used behind
            if node in self.of_images and isinstance(node.meta.get("val"), torch.SymInt):
                self.env[node] = self._sized(node)
        last = max(self.graph.nodes.index(node) for node in self.ends.values())
        for node in self.graph.nodes[self.graph.nodes.index(start) + 1 : last + 1]:
            if node in self.varying and self._wanted(node):
                self.env[node] = self._emit(node)
            elif node in self.unknown:
                continue
            elif node not in self.varying and any(self._here(n) for n in node.all_input_nodes):
                self.env[node] = self._sized(node)
        self.new.output(tuple(self._full(node) for node in self.ends.values()))
        self.new.eliminate_dead_code()
        write_in_place(self.new)
        body = Program(self.new, self.held)
        first = self.blank[start].index_select(1, reads.to(self.blank[start].device))
        with torch.no_grad(), Work() as work:
            body(first)
        return Shrunk(body, self.ends, head, self.full_width, reads, work, self.dense).eval().to(first.device)

    def _of_images(self) -> set[fx.Node]:
        """The nodes that have to do with the images, if only with their number."""
        found = {node for node in self.graph.axes if node.op == "placeholder"}
        for node in self.graph.nodes:
            if node.op == "call_function" and not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return found

    def _joined(self) -> set[fx.Node]:
        """Kernel layers that sums and products follow: there, all operands have to hold the same channels."""
        found: set[fx.Node] = set()
        ahead = [node for node in self.graph.nodes if op_name(node) in wires.JOINS and len(node.all_input_nodes) > 1]
        while ahead:
            node = ahead.pop()
            before = [n for n in node.all_input_nodes if n in self.varying and n not in found]
            found.update(before)
            ahead += [n for n in before if n not in self.graph.kernel_calls]
        return found

    def _wanted(self, node: fx.Node) -> bool:
        """Whether a node has to be computed for every image."""
        value = node.meta.get("val")
        if isinstance(value, tuple | list):  # wanted where one of its entries is
            return any(self._wanted(user) for user in node.users)
        if node not in self.needed:
            return False
        if not self._images_first(node):
            return bool(self.needed[node].any())
        return bool((self.needed[node] & self.alive[node]).any())

    def _images_first(self, node: fx.Node) -> bool:
        """Whether what is constant can be stored once and repeated along the first axis: no windows there."""
        value = self.blank[node]
        alone = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == 1
        return alone and all(isinstance(size, int) for size in node.meta["val"].shape[1:])

    # ---- one operation -----------------------------------------------------------------------------------------------

    def _emit(self, node: fx.Node) -> _Narrow:
        name = op_name(node)
        if node in self.graph.kernel_calls:
            return self._kernel(node, self.graph.layers[self.graph.kernel_calls[node]])
        inputs = self._images_in(node)
        narrow = [self.env[n] for n in inputs if n in self.env and self.env[n].channels is not None]
        if name in CHANNEL_NORMS and self.env[inputs[0]].axis == 1:
            return self._channel_norm(node)
        if node.target is operator.getitem:
            source = self.env[node.args[0]]  # pyright: ignore[reportArgumentType]
            return source._replace(node=self.new.call_function(operator.getitem, (source.node, node.args[1])))
        if name == "cat" and all(cat_axis(node) == held.axis for held in narrow):
            return self._cat(node)
        if not narrow:
            return self._barrier(node)
        if flattens(node, narrow[0].axis):
            return self._flatten(node)
        if wires.keeps_channels(node) and len(inputs) == 1 and not self._constants_in(node):
            axis = axis_after(node, narrow[0].axis)
            if axis is not None:
                return _Narrow(self._call(node, self._arguments(node)), narrow[0].channels, axis)
        same_rank = all(rank(n) == rank(node) for n in inputs)
        if name in wires.JOINS and same_rank and len({held.axis for held in narrow}) == 1:
            return self._join(node, inputs, narrow[0].axis)
        return self._barrier(node)

    def _kernel(self, node: fx.Node, layer: KernelLayer) -> _Narrow:
        axis = rank(node) - 1 if layer.op == "linear" else 1
        source, _, *rest = node.args
        assert isinstance(source, fx.Node)
        rows, columns, groups = self._shape_of(layer, self._live(node, axis), self._live(source, axis))
        if not len(columns):
            return self._barrier(node)
        if groups == 1 and layer.op == "conv" and node not in self.joined:
            rows = rounded(rows, layer.out_channels)
        weight = layer.out_first(self.tensors.named(layer.weight))[rows]
        bias = self.blank[rest[0]][rows] if rest and isinstance(rest[0], fx.Node) else None  # calls may differ in it
        settings: list[Any] = rest[1:]
        if layer.op != "linear" and len(settings) > 3:
            settings[3] = groups
        constant = None
        if layer.groups == 1 and not (self._images_first(source) and self._images_first(node)):  # nothing is constant
            weight = weight[:, columns]
        elif layer.groups == 1:
            columns = self._at_hand(source, columns, axis)
            constant = self._constant_part(node, layer.stored(weight), bias, columns, axis, settings)
            weight = weight[:, columns]
        if constant is not None:  # the bias is in it
            bias = constant.movedim(axis, 0).flatten(1)[:, 0] if even(constant, axis) else None
        narrow = KernelLayer(layer.name, layer.op, "", None, len(rows), len(columns), groups, layer.kernel_size)
        args = [self._select(source, columns, axis), self._hold(narrow.stored(weight), layer.weight)]
        args += [None if bias is None else self._hold(bias, self._bias_name(layer, rest)), *settings]
        made = self.new.call_function(node.target, tuple(args), dict(node.kwargs))  # pyright: ignore
        if constant is not None and bias is None:
            added = self._constant(constant, f"{node.name}_added")
            made = self.new.call_function(torch.ops.aten.add_.Tensor, (made, added))
        return _Narrow(made, rows, axis)

    def _bias_name(self, layer: KernelLayer, rest: list[Any]) -> str:
        """The name of a layer's bias; where it has none, that which one would have."""
        own = self.graph.parameters.get(rest[0].name) if rest and isinstance(rest[0], fx.Node) else None
        return own or layer.weight.rpartition("weight")[0] + "bias"

    def _at_hand(self, source: fx.Node, columns: Tensor, axis: int) -> Tensor:
        """The channels for a layer to read: all at hand where it needs most (other kernels are zero), else its own."""
        held = self.env.get(source)
        if held is None or held.channels is None or held.axis != axis:
            return columns
        return held.channels if _SUBSET * len(held.channels) <= len(columns) else columns

    @torch.no_grad()
    def _constant_part(
        self, node: fx.Node, weight: Tensor, bias: Tensor | None, columns: Tensor, axis: int, settings: list[Any]
    ) -> Tensor | None:
        """What a layer makes of constant inputs and its bias, ``(1, rows, ...)``; None where nothing is constant."""
        x = self.blank[node.args[0]].clone()  # pyright: ignore[reportArgumentType]
        x.index_fill_(axis, columns.to(x.device), 0.0)
        return node.target(x, weight, bias, *settings, **node.kwargs) if bool(x.any()) else None  # pyright: ignore

    def _shape_of(self, layer: KernelLayer, out: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, int]:
        """Output channels to compute, input channels to read, groups left; grouped layers shrink by whole groups."""
        kept = self.kept.get(layer.name, torch.ones(layer.shape, dtype=torch.bool))
        if layer.groups == 1:
            rows = out.nonzero()[:, 0]
            return rows, (kept[rows].any(0) & alive).nonzero()[:, 0], 1
        groups = out.view(layer.groups, -1).any(1)
        rows = groups.repeat_interleave(layer.out_channels // layer.groups).nonzero()[:, 0]
        columns = groups.repeat_interleave(layer.in_channels // layer.groups).nonzero()[:, 0]
        return rows, columns, int(groups.sum())

    def _sized(self, node: fx.Node) -> _Narrow:
        """What depends on the number of images only: a size, or a constant for each image."""
        arguments: Any = node.args
        held = self.env.get(arguments[0])
        if op_name(node) == "sym_size" and held is None:
            size = self.new.call_function(node.target, (self.image, 0))  # pyright: ignore[reportArgumentType]
            if self.blank[node] != self.n_first:  # an axis may hold several parts of each image
                size = self.new.call_function(operator.mul, (size, self.blank[node]))
                size = self.new.call_function(operator.floordiv, (size, self.n_first))
            return _Narrow(size)
        if op_name(node) == "sym_size" and held is not None and arguments[1] == 0:
            return _Narrow(self.new.call_function(node.target, (held.node, 0)))  # pyright: ignore[reportArgumentType]
        return _Narrow(self._call(node, self._arguments(node, full=True)))

    def _channel_norm(self, node: fx.Node) -> _Narrow:
        source = self.env[node.args[0]]  # pyright: ignore[reportArgumentType]

        def operand(argument: Any) -> Any:
            if not isinstance(argument, fx.Node):
                return argument
            if argument in (node.args[0], *node.args[5:]):
                return self._argument(argument, full=False)
            value = self.blank[argument]
            return self._part(value if source.channels is None else value[source.channels], argument)

        return source._replace(node=self._call(node, map_aggregate(tuple(node.args), operand)))  # pyright: ignore

    def _join(self, node: fx.Node, inputs: list[fx.Node], axis: int) -> _Narrow:
        """Sums, products and gates: every operand brings the channels that are needed."""
        live = self._live(node, axis)
        want, width = live.nonzero()[:, 0], len(live)

        def operand(argument: Any) -> Any:
            if not isinstance(argument, fx.Node):
                return argument
            if argument in inputs:
                broad = concrete(argument.meta["val"].shape)[axis] == 1 != width
                return self._full(argument) if broad else self._select(argument, want, axis)
            value = self.blank[argument]
            if not isinstance(value, Tensor):
                return value
            if self._anew(argument):
                same = rank(argument) == rank(node) and value.shape[axis] == width
                return self._select(argument, want, axis) if same else self._full(argument)
            place = 0 if op_name(node) in ("prelu", "_prelu_kernel") else axis - rank(node) + value.ndim
            sliced = 0 <= place < value.ndim and value.shape[place] == width > 1
            return self._part(value.index_select(place, want.to(value.device)) if sliced else value, argument)

        args = map_aggregate(tuple(node.args), operand)
        return _Narrow(self.new.call_function(node.target, args, dict(node.kwargs)), want, axis)  # pyright: ignore

    def _cat(self, node: fx.Node) -> _Narrow:
        axis = cat_axis(node)
        parts, channels, start = [], [], 0
        for source in node.args[0]:  # pyright: ignore
            width = concrete(source.meta["val"].shape)[axis]
            held = self.env.get(source)
            if held is None and not self._images_first(node):
                held = _Narrow(self._full(source))
            if held is not None:
                parts.append(held.node)
                channels.append(start + (torch.arange(width) if held.channels is None else held.channels))
            start += width
        joined = parts[0] if len(parts) == 1 else self.new.call_function(node.target, (parts, *node.args[1:]))  # pyright: ignore
        return _Narrow(joined, torch.cat(channels), axis)

    def _flatten(self, node: fx.Node) -> _Narrow:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        held = self.env[source]
        assert held.channels is not None
        size = prod(concrete(source.meta["val"].shape)[2:])
        features = (held.channels[:, None] * size + torch.arange(size)).flatten()
        return _Narrow(self.new.call_function(torch.flatten, (held.node, 1)), features)

    def _barrier(self, node: fx.Node) -> _Narrow:
        """Runs an operation at full width."""
        for source in self._images_in(node):
            if source in self.env and self.env[source].channels is not None:
                stack = list((node.meta.get("nn_module_stack") or {}).values())
                self.full_width[stack[-1][0] if stack else origin(node)] = op_name(node)
        return _Narrow(self._call(node, self._arguments(node, full=True)))

    # ---- arguments ---------------------------------------------------------------------------------------------------

    def _call(self, node: fx.Node, args: tuple[Any, ...]) -> fx.Node:
        kwargs = map_arg(dict(node.kwargs), lambda n: self._argument(n, full=True))
        return self.new.call_function(to_run(node), args, kwargs)  # pyright: ignore[reportArgumentType]

    def _arguments(self, node: fx.Node, full: bool = False) -> tuple[Any, ...]:
        return map_arg(tuple(node.args), lambda n: self._argument(n, full))  # pyright: ignore[reportReturnType]

    def _argument(self, node: fx.Node, full: bool) -> Any:
        if self._here(node) or (full and self._anew(node)):
            return self._full(node) if full else self.env[node].node
        value = self.blank[node]
        return self._part(value, node) if isinstance(value, Tensor) else value

    def _full(self, node: fx.Node) -> fx.Node:
        """A node at full width, constant channels filled in; channels that nothing needs may hold anything."""
        held = self.env.get(node)
        if not isinstance(node.meta.get("val"), Tensor):
            return self.env[node].node  # a size
        if held is None:
            return self._constant_of(node)
        shape = concrete(node.meta["val"].shape)
        if held.channels is None or torch.equal(held.channels, torch.arange(shape[held.axis])):
            return held.node
        if not self._images_first(node):  # what is needed is there; the rest may be anything
            places = self._constant(held.channels, f"{node.name}_places")
            return self.new.call_function(widened, (held.node, held.axis, places, shape[held.axis]))
        return self._filled(node, held, self.blank[node], held.channels)

    def _constant_of(self, node: fx.Node) -> Any:
        """What depends on no image, for each of them: repeated, or made anew where images do not stand first."""
        if node in self.env:
            return self._full(node)
        value = self.blank[node]
        if node not in self.of_images:
            return self._part(value, node) if isinstance(value, Tensor) else value
        if self._images_first(node):
            return self._for_each_image(value, node)
        if node not in self.made_anew:
            args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), self._constant_of)  # pyright: ignore
            self.made_anew[node] = self.new.call_function(to_run(node), args, kwargs)  # pyright: ignore
        return self.made_anew[node]

    def _anew(self, node: fx.Node) -> bool:
        """Whether a node that stands not in the new graph holds something for each image that is not stored once."""
        return node in self.of_images and isinstance(self.blank[node], Tensor) and not self._images_first(node)

    def _filled(self, node: fx.Node, held: _Narrow, constants: Tensor, places: Tensor) -> fx.Node:
        whole = self.new.call_function(torch.clone, (self._for_each_image(constants, node),))
        places_held = self._constant(places, f"{node.name}_places")
        return self.new.call_function(torch.index_copy, (whole, held.axis, places_held, held.node))

    def _select(self, node: fx.Node, want: Tensor, axis: int) -> fx.Node:
        """The wanted channels of a node, in order; constant ones are filled in."""
        held = self.env.get(node)
        if held is None and self._anew(node):
            held = _Narrow(self._full(node), None, axis)
        if held is None:  # all constant; broadcast over the images
            return self._part(self.blank[node].index_select(axis, want.to(self.blank[node].device)), node)
        if held.axis != axis:
            held = _Narrow(self._full(node), None, axis)
        if held.channels is None:
            held = held._replace(channels=torch.arange(concrete(node.meta["val"].shape)[axis]))
        assert held.channels is not None
        if torch.equal(held.channels, want):
            return held.node
        here = torch.isin(want, held.channels)
        places = torch.searchsorted(held.channels, want[here])
        if not torch.equal(places, torch.arange(len(held.channels))):
            taken = self._constant(places, f"{node.name}_places")
            held = held._replace(node=self.new.call_function(pick, (held.node, axis, taken)))
        if bool(here.all()):
            return held.node
        constants = self.blank[node].index_select(axis, want.to(self.blank[node].device))
        return self._filled(node, held, constants, here.nonzero()[:, 0])

    def _for_each_image(self, value: Tensor, node: fx.Node) -> fx.Node:
        """A constant ``(1, ...)``, repeated for every image."""
        return self.new.call_function(for_each_image, (self._part(value, node), self.image))

    def _part(self, value: Tensor, node: fx.Node) -> fx.Node:
        """Stores what is taken of a node that depends on no image."""
        own = self.graph.parameters.get(node.name)
        return self._constant(value, node.name) if own is None else self._hold(value, own)

    def _constant(self, value: Tensor, name: str) -> fx.Node:
        return self._hold(value, f"{self.names.root}.{name}")

    def _hold(self, value: Tensor, name: str) -> fx.Node:
        """Stores a tensor under its name in the network, or one like it where two parts of one tensor are needed."""
        trained = isinstance(self.tensors.own.get(name), nn.Parameter)
        name, copy = self.names.free(name), value.detach().clone()
        self.held[name] = nn.Parameter(copy, requires_grad=False) if trained else copy
        return self.new.get_attr(name)

    # ---- questions about a node --------------------------------------------------------------------------------------

    def _images_in(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if self._here(n) and isinstance(n.meta.get("val"), Tensor)]

    def _constants_in(self, node: fx.Node) -> bool:
        return not all(self._here(n) for n in node.all_input_nodes)

    def _here(self, node: fx.Node) -> bool:
        """Whether a node stands in the new graph, or would if it were needed; all others are constants."""
        return node in self.env or node in self.varying

    def _live(self, node: fx.Node, axis: int) -> Bool[Tensor, " c"]:
        """Channels that are needed and depend on the image; all that are needed, where constants cannot be stored."""
        needed = self.needed[node] if node in self.needed else torch.zeros(concrete(node.meta["val"].shape))
        if self._images_first(node) and node in self.alive:
            return wires.any_but(needed, axis).cpu() & wires.any_but(self.alive[node], axis).cpu()
        return wires.any_but(needed, axis).cpu()


class _Names:
    """Gives every tensor a name of its own, that of the network's where that is free."""

    def __init__(self, own: Iterable[str]) -> None:
        paths = [name.split(".") for name in own]
        self.networks = {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
        self.given: set[str] = set()
        self.root = next(root for i in count() if (root := "constants" + i * "_") not in self.networks)

    def free(self, name: str) -> str:
        """Returns the name, numbered if it is taken."""
        numbered = (f"{name}_{i}" for i in count(1))
        others = (other for other in numbered if other not in self.given and other not in self.networks)
        found = name if name not in self.given else next(others)
        self.given.add(found)
        return found


_SUBSET = 0.5
"""A convolution reads all channels at hand where it needs this share of them; fewer are picked out first."""
