"""Extraction: a standalone, physically smaller module that computes what the seeds ask for.

The exported graph is rebuilt operation by operation with only the channels that are needed downstream. Convolutions,
linear maps, norms, pooling, activations, sums, concatenation and flattening run narrow; whatever moves or mixes
channels in another way (shuffles, channel-mixing norms, attention) gets its input back at full width, absent channels
filled with zeros that nothing reads, and is reported in `Shrunk.full_width`. Channels that no longer depend on the
image stay, as maps that are the same for every image: dropping them would change what is at the borders.
"""

import operator
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from viscircuits.model import wires
from viscircuits.model.affine import CHANNEL_NORMS
from viscircuits.model.graph import KernelLayer, NetGraph
from viscircuits.model.reach import Seeds, reach
from viscircuits.model.trace import PERMUTATIONS, concrete, moved_axis, op_name, origin, reduced_axes


class Shrunk(nn.Module):
    """A circuit as a module of its own: images ``[n, c, h, w]`` to the target's response ``[n, p]``.

    Attributes:
        full_width: where channels could not be dropped -> the operation that needs all of them.
    """

    def __init__(
        self, body: fx.GraphModule, layers: Iterable[str], head: nn.Module, full_width: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.layers = tuple(layers)
        self.full_width = dict(full_width)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
        """Returns the target's response to images of the size the circuit was extracted for."""
        return self.head(dict(zip(self.layers, self.body(images), strict=True)))

    @property
    def n_parameters(self) -> int:
        """How many numbers the module stores."""
        return sum(buffer.numel() for buffer in self.buffers())


class _Narrow(NamedTuple):
    """A node of the new graph, which of the original channels it holds (None: all), and along which axis."""

    node: Any
    channels: Int[Tensor, " k"] | None = None
    axis: int = 1


def shrink(
    model: nn.Module,
    graph: NetGraph,
    seeds: Seeds,
    kept: Mapping[str, Bool[Tensor, "out in"]],
    weights: Mapping[str, Tensor],
    head: nn.Module,
) -> Shrunk:
    """Returns the smaller module.

    Args:
        model: the user's module; its tensors are copied.
        graph: its graph, traced for any number of images.
        seeds: module outputs and channels to compute.
        kept: kernel layer -> kernels that conduct.
        weights: edited parameters by name, taken instead of the model's own.
        head: from a dict of full-width module outputs to the response.
    """
    return _Shrinker(model, graph, seeds, kept, weights).build(head)


class _Shrinker:
    def __init__(
        self, model: nn.Module, graph: NetGraph, seeds: Seeds, kept: Mapping[str, Tensor], weights: Mapping[str, Tensor]
    ) -> None:
        self.graph, self.kept, self.weights = graph, kept, weights
        self.tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(
            model.named_buffers(remove_duplicate=False)
        )
        self.ends = {name: graph.output(name).node for name in seeds}
        found = reach(graph, seeds, kept, nodes=True)
        self.needed, self.varying = found.needed, found.varying
        self.new = fx.Graph()
        self.root = nn.Module()
        self.env: dict[fx.Node, _Narrow] = {}
        self.full_width: dict[str, str] = {}

    def build(self, head: nn.Module) -> Shrunk:
        remaining = set(self.ends.values())
        for node in self.graph.nodes:
            if not remaining:
                break
            if node.op == "placeholder" and node in self.graph.axes:
                self.image = self.new.placeholder("images")
                self.env[node] = _Narrow(self.image)
                self.image_device = node.meta["val"].device
            elif node in self.varying and self._wanted(node):
                self.env[node] = self._emit(node)
            elif node not in self.varying and any(self._here(n) for n in node.all_input_nodes):
                self.env[node] = self._sized(node)
            remaining.discard(node)
        self.new.output(tuple(self._full(node) for node in self.ends.values()))
        self.new.eliminate_dead_code()
        body = fx.GraphModule(self.root, self.new)
        return Shrunk(body, self.ends, head, self.full_width).eval().to(self.image_device)

    def _wanted(self, node: fx.Node) -> bool:
        value = node.meta.get("val")
        if isinstance(value, tuple | list):  # wanted where one of its entries is
            return any(self._wanted(user) for user in node.users)
        return node in self.needed and bool(self.needed[node].any())

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
        if name == "cat" and all(self._cat_axis(node) == held.axis for held in narrow):
            return self._cat(node)
        if not narrow:
            return self._barrier(node)
        if self._flattens(node, narrow[0].axis):
            return self._flatten(node)
        if wires.keeps_channels(node) and len(inputs) == 1 and not self._constants_in(node):
            axis = self._axis_after(node, narrow[0].axis)
            if axis is not None:
                return _Narrow(self._call(node, self._arguments(node)), narrow[0].channels, axis)
        same_rank = all(self._rank(n) == self._rank(node) for n in inputs)
        if name in wires.JOINS and same_rank and len({held.axis for held in narrow}) == 1:
            return self._join(node, inputs, narrow[0].axis)
        return self._barrier(node)

    def _kernel(self, node: fx.Node, layer: KernelLayer) -> _Narrow:
        axis = self._rank(node) - 1 if layer.op == "linear" else 1
        rows, columns, groups = self._shape_of(layer, self._need(node, axis))
        weight = layer.out_first(self._tensor(layer.weight))[rows]
        given = node.args[2] if len(node.args) > 2 else None  # calls that share a weight may differ in it
        bias = self._constant(given)[rows] if isinstance(given, fx.Node) else None
        if not len(columns):
            return _Narrow(self._constant_map(node, bias, rows, axis), rows, axis)
        if layer.groups == 1:
            weight = weight[:, columns]
        narrow = KernelLayer(layer.name, layer.op, "", None, len(rows), len(columns), groups, layer.kernel_size)
        args: list[Any] = list(node.args)
        args[0] = self._select(args[0], columns, axis)
        args[1] = self._hold(narrow.stored(weight))
        if bias is not None:
            args[2] = self._hold(bias)
        if layer.op != "linear" and len(args) > 6:
            args[6] = groups
        return _Narrow(self.new.call_function(node.target, tuple(args), dict(node.kwargs)), rows, axis)  # pyright: ignore

    def _shape_of(self, layer: KernelLayer, need: Tensor) -> tuple[Tensor, Tensor, int]:
        """Output channels to compute, input channels to read, groups left; grouped layers shrink by whole groups."""
        kept = self.kept.get(layer.name, torch.ones(layer.shape, dtype=torch.bool))
        if layer.groups == 1:
            rows = need.nonzero()[:, 0]
            return rows, kept[rows].any(0).nonzero()[:, 0], 1
        groups = need.view(layer.groups, -1).any(1)
        rows = groups.repeat_interleave(layer.out_channels // layer.groups).nonzero()[:, 0]
        columns = groups.repeat_interleave(layer.in_channels // layer.groups).nonzero()[:, 0]
        alive = bool(kept[rows].any())
        return rows, columns if alive else columns[:0], int(groups.sum())

    def _sized(self, node: fx.Node) -> _Narrow:
        """What depends on the number of images only: a size, or a constant for each image."""
        arguments: Any = node.args
        if op_name(node) == "sym_size" and arguments[1] == 0:
            held = self.env.get(arguments[0])
            whole = self.image if held is None else held.node
            return _Narrow(self.new.call_function(node.target, (whole, 0)))  # pyright: ignore[reportArgumentType]
        return _Narrow(self._call(node, self._arguments(node, full=True)))

    def _channel_norm(self, node: fx.Node) -> _Narrow:
        source = self.env[node.args[0]]  # pyright: ignore[reportArgumentType]
        args = list(self._arguments(node))
        for place in range(1, 5):
            if isinstance(node.args[place], fx.Node):
                value = self._constant(node.args[place])  # pyright: ignore[reportArgumentType]
                args[place] = self._hold(value if source.channels is None else value[source.channels])
        return source._replace(node=self._call(node, tuple(args)))

    def _join(self, node: fx.Node, inputs: list[fx.Node], axis: int) -> _Narrow:
        """Sums, products and gates: every operand brings the channels that are needed."""
        need = self._need(node, axis)
        want, width = need.nonzero()[:, 0], len(need)

        def operand(argument: Any) -> Any:
            if not isinstance(argument, fx.Node):
                return argument
            if argument in inputs:
                broad = concrete(argument.meta["val"].shape)[axis] == 1 != width
                return self._full(argument) if broad else self._select(argument, want, axis)
            value = self._constant(argument)
            if not isinstance(value, Tensor):
                return value
            place = 0 if op_name(node) in ("prelu", "_prelu_kernel") else axis - self._rank(node) + value.ndim
            sliced = 0 <= place < value.ndim and value.shape[place] == width > 1
            return self._hold(value.index_select(place, want.to(value.device)) if sliced else value)

        args = map_aggregate(tuple(node.args), operand)
        return _Narrow(self.new.call_function(node.target, args, dict(node.kwargs)), want, axis)  # pyright: ignore

    def _cat(self, node: fx.Node) -> _Narrow:
        axis = self._cat_axis(node)
        parts, channels, start = [], [], 0
        for source in node.args[0]:  # pyright: ignore
            width = concrete(source.meta["val"].shape)[axis]
            held = self.env.get(source)
            if held is not None or source not in self.varying:
                parts.append(held.node if held is not None else self._hold(self._constant(source)))
                there = torch.arange(width) if held is None or held.channels is None else held.channels
                channels.append(start + there)
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
        return self.new.call_function(node.target, args, kwargs)  # pyright: ignore[reportArgumentType]

    def _arguments(self, node: fx.Node, full: bool = False) -> tuple[Any, ...]:
        return map_arg(tuple(node.args), lambda n: self._argument(n, full))  # pyright: ignore[reportReturnType]

    def _argument(self, node: fx.Node, full: bool) -> Any:
        if self._here(node):
            return self._full(node) if full else self.env[node].node
        value = self._constant(node)
        return self._hold(value) if isinstance(value, Tensor) else value

    def _full(self, node: fx.Node) -> fx.Node:
        """A node at full width; absent channels are zero, and nothing that is needed reads them."""
        held = self.env.get(node)
        if not isinstance(node.meta.get("val"), Tensor):
            return self.env[node].node  # a size
        shape = concrete(node.meta["val"].shape)
        if held is None:
            return self._expanded(torch.zeros(()), shape[1:])
        if held.channels is None or torch.equal(held.channels, torch.arange(shape[held.axis])):
            return held.node
        blank = self.new.call_function(_blank, (held.node, held.axis, shape[held.axis]))
        return self.new.call_function(torch.index_copy, (blank, held.axis, self._hold(held.channels), held.node))

    def _select(self, node: fx.Node, want: Tensor, axis: int) -> fx.Node:
        """The wanted channels of a node, in order; absent ones are zero."""
        held = self.env.get(node)
        have = held.channels if held is not None and held.axis == axis else None
        if have is None or not bool(torch.isin(want, have).all()):
            have = torch.arange(concrete(node.meta["val"].shape)[axis])
            source = self._full(node)
        else:
            assert held is not None
            source = held.node
        if torch.equal(have, want):
            return source
        return self.new.call_function(torch.index_select, (source, axis, self._hold(torch.searchsorted(have, want))))

    def _constant_map(self, node: fx.Node, bias: Tensor | None, rows: Tensor, axis: int) -> fx.Node:
        shape = list(concrete(node.meta["val"].shape)[1:])
        shape[axis - 1] = len(rows)
        values = torch.zeros(len(rows)) if bias is None else bias
        view = [1] * len(shape)
        view[axis - 1] = -1
        return self._expanded(values.view(view), tuple(shape))

    def _expanded(self, value: Tensor, shape: tuple[int, ...]) -> fx.Node:
        """A value that is the same for every image, as a map for each of them."""
        return self.new.call_function(_for_each_image, (self._hold(value), self.image, shape))

    def _hold(self, value: Tensor) -> fx.Node:
        name = f"tensor_{len(self.root._buffers)}"
        self.root.register_buffer(name, value.detach().clone())
        return self.new.get_attr(name)

    def _constant(self, node: fx.Node) -> Any:
        """What a node that does not depend on the image holds."""
        if node.op == "placeholder":
            name = self.graph.parameters.get(node.name)
            return self._tensor(name) if name is not None else self.graph.constants[node.name]
        args, kwargs = map_arg((tuple(node.args), dict(node.kwargs)), self._constant)  # pyright: ignore
        return node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue, reportOptionalCall]

    def _tensor(self, name: str) -> Tensor:
        return (self.weights[name] if name in self.weights else self.tensors[name]).detach()

    # ---- questions about a node --------------------------------------------------------------------------------------

    def _images_in(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if self._here(n) and isinstance(n.meta.get("val"), Tensor)]

    def _constants_in(self, node: fx.Node) -> bool:
        return not all(self._here(n) for n in node.all_input_nodes)

    def _here(self, node: fx.Node) -> bool:
        """Whether a node stands in the new graph, or would if it were needed; all others are constants."""
        return node in self.env or node in self.varying

    def _rank(self, node: fx.Node) -> int:
        value = node.meta["val"]
        return value.ndim if isinstance(value, Tensor) else 0

    def _cat_axis(self, node: fx.Node) -> int:
        axis = node.args[1] if len(node.args) > 1 else 0
        assert isinstance(axis, int)
        return axis % self._rank(node)

    def _flattens(self, node: fx.Node, axis: int) -> bool:
        source = node.args[0] if node.args else None
        if op_name(node) not in {"view", "reshape", "flatten"} or not isinstance(source, fx.Node) or axis != 1:
            return False
        before, after = concrete(source.meta["val"].shape), concrete(node.meta["val"].shape)
        return len(after) == 2 and before[0] == after[0] and prod(before) == prod(after)

    def _axis_after(self, node: fx.Node, axis: int) -> int | None:
        """Where the channels stand after an operation that may move or reduce axes; None if it reduces over them."""
        name = op_name(node)
        if name in PERMUTATIONS:
            return moved_axis(node, axis)
        if name in wires.OVER_SPACE and axis != 1:
            return None  # the channels stand among the axes that it mixes
        if name in wires.REDUCTIONS:
            return axis if all(a > axis for a in reduced_axes(node)) else None
        return axis

    def _need(self, node: fx.Node, axis: int) -> Bool[Tensor, " c"]:
        return wires.any_but(self.needed[node], axis).cpu()


def _blank(like: Tensor, axis: int, width: int) -> Tensor:
    shape = list(like.shape)
    shape[axis] = width
    return like.new_zeros(shape)


def _for_each_image(value: Tensor, images: Tensor, shape: tuple[int, ...]) -> Tensor:
    return value.to(images.dtype).expand(len(images), *shape)
