"""The network as data: channels are nodes, kernels are edges.

A `NetGraph` is what `viscircuits.model.trace` makes of somebody's module. It names every kernel layer in the order in
which the model runs them and knows, for every module, where its output stands. It never runs anything; what reaches
what is asked of `viscircuits.model.flow.reach`.

A kernel is indexed ``(out, in)`` within a layer. Grouped layers have ``out x in/groups`` kernels, so a layer's arrays
have that shape; `KernelLayer.sources` says which global input channel stands behind each entry.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, fx

from viscircuits.card import Card, Shown, few, sized
from viscircuits.errors import TargetError, UnsupportedOperation, closest
from viscircuits.model.nodes import concrete
from viscircuits.model.output import is_part
from viscircuits.types import Granularity

OUTPUT = ""
"""The name of the whole model as a module: its own output (the logits of a classifier)."""


@dataclass(frozen=True)
class KernelLayer:
    """One set of kernels: a convolution, a transposed convolution or a linear map, however often it is called."""

    name: str
    op: str  # "conv", "conv_transpose" or "linear"
    weight: str
    bias: str | None
    out_channels: int
    in_channels: int
    groups: int = 1
    kernel_size: tuple[int, ...] = ()
    calls: int = 1
    scored: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the layer's kernel arrays: ``(out, in / groups)``."""
        return self.out_channels, self.in_channels // self.groups

    @property
    def n_kernels(self) -> int:
        """Number of kernels."""
        return prod(self.shape)

    def structure_shape(self, granularity: Granularity) -> tuple[int, ...]:
        """Returns the shape of a score or mask array: ``(out,)``, ``(out, in/g)`` or ``(out, in/g, *kernel)``."""
        return {
            "filter": self.shape[:1],
            "kernel": self.shape,
            "weight": (*self.shape, *self.kernel_size),
        }[granularity]

    @cached_property
    def sources(self) -> Int[Tensor, "out in"]:
        """The global input channel of every kernel."""
        out, width = self.shape
        group = torch.arange(out) // (out // self.groups)
        return group[:, None] * width + torch.arange(width)[None, :]

    def out_first(self, weight: Shaped[Tensor, "..."]) -> Shaped[Tensor, "out in ..."]:
        """Returns a weight-shaped tensor with axes ``(out, in/g, *kernel)``; only transposed convs store others."""
        if self.op != "conv_transpose":
            return weight
        grouped = weight.unflatten(0, (self.groups, -1))  # (g, in/g, out/g, *kernel)
        return grouped.transpose(1, 2).flatten(0, 1)

    def out_first_of_each(self, weights: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "n out in ..."]:
        """Returns `out_first` of a stack of weight-shaped tensors."""
        return torch.stack([self.out_first(weight) for weight in weights])

    def rows(self, weight: Shaped[Tensor, "..."], filters: Int[Tensor, " k"]) -> Shaped[Tensor, "..."]:
        """Returns the part of a weight-shaped tensor that belongs to some filters; only of ungrouped layers."""
        return weight.index_select(1 if self.op == "conv_transpose" else 0, filters.to(weight.device))

    def stored(self, values: Shaped[Tensor, "out in ..."]) -> Shaped[Tensor, "..."]:
        """Returns the inverse of `out_first`: axes as the module stores its weight."""
        if self.op != "conv_transpose":
            return values
        return values.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)


@dataclass(frozen=True)
class Output:
    """Where a module's output stands: its shape without the image axis, and which axis holds the channels."""

    node: fx.Node = field(repr=False)
    shape: tuple[int, ...]
    channel_axis: int  # counted with the image axis, so 1 for a convolution

    @property
    def n_channels(self) -> int:
        """Number of channels (features, for a linear layer)."""
        return self.shape[self.channel_axis - 1]

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The shape of one channel's map: ``(h, w)`` for a convolution, ``()`` for a vector."""
        return self.shape[: self.channel_axis - 1] + self.shape[self.channel_axis :]


@dataclass(frozen=True, repr=False)
class NetGraph(Shown):
    """A traced network: its kernel layers in the order of first execution, and the outputs of its modules."""

    input_shape: tuple[int, ...]  # (c, h, w)
    layers: Mapping[str, KernelLayer]
    outputs: Mapping[str, Output]
    silent: frozenset[str] = field(repr=False)  # modules that exist but emit nothing of their own
    nodes: tuple[fx.Node, ...] = field(repr=False)
    constants: Mapping[str, Tensor] = field(repr=False)  # placeholder -> value, of all but the image
    parameters: Mapping[str, str] = field(repr=False)  # placeholder -> name of parameter or buffer
    kernel_calls: Mapping[fx.Node, str] = field(repr=False)  # node -> kernel layer
    axes: Mapping[fx.Node, int] = field(repr=False)  # node that depends on the image -> axis of its channels
    memory_format: torch.memory_format = torch.contiguous_format  # the faster layout of images the model accepts
    crops_agree: dict[tuple[str, tuple[int, int]], bool] = field(default_factory=dict, repr=False, compare=False)
    refused: Mapping[fx.Node, str] = field(default_factory=dict, repr=False, compare=False)  # kernels used in a way ...
    # ... that has no rule -> why: an error where they lead to a target, and of no account elsewhere
    fault: str = ""  # why no number of this network can be trusted; the graph still says what reaches what
    model: str = field(default="", compare=False)  # the class, for whoever looks at the graph

    def _card(self) -> Card:
        ops = Counter(layer.op for layer in self.layers.values())
        n_kernels = sum(layer.n_kernels for layer in self.layers.values())
        return Card("NetGraph", {
            "model": self.model, "image": sized(self.input_shape),
            "layers with kernels": f"{len(self.layers):,} ({few([f'{count} {op}' for op, count in ops.items()])})",
            "kernels": f"{n_kernels:,}",
            "outputs": f"{len(self.outputs):,} ({few([name or 'logit' for name in self.outputs])})",
            "only carry signals": few(self.not_scored), "no rule": few(sorted(set(self.refused.values()))),
            "fault": self.fault,
        })  # fmt: skip

    def check(self) -> None:
        """Raises an `UnsupportedOperation` if the network's numbers cannot be trusted."""
        if self.fault:
            raise UnsupportedOperation(self.fault)

    @property
    def not_scored(self) -> tuple[str, ...]:
        """Kernel layers that only carry signals: projections inside multi-head attention, filters that are buffers."""
        return tuple(name for name, layer in self.layers.items() if not layer.scored)

    @cached_property
    def input_sizes(self) -> Mapping[str, frozenset[int]]:
        """Kernel layer -> how many numbers its calls take for one image."""
        sizes: dict[str, frozenset[int]] = {}
        for node, name in self.kernel_calls.items():
            taken = prod(concrete(node.all_input_nodes[0].meta["val"].shape)) // 2  # traced with two images
            sizes[name] = sizes.get(name, frozenset()) | {taken}
        return sizes

    def images_lead(self, layers: Iterable[str]) -> bool:
        """Returns whether the first axis of what some kernel layers get is the images: not windows, nor tokens."""
        asked = set(layers)
        inputs = [node.all_input_nodes[0] for node, name in self.kernel_calls.items() if name in asked]
        return all(concrete(node.meta["val"].shape[:1]) == (2,) for node in inputs)  # traced with two images

    def reading_the_image(self) -> set[str]:
        """Returns the kernel layers that get the image, and nothing of it through others that have kernels."""
        fixed: set[fx.Node] = set()
        first = {node for node in self.nodes if node.op == "placeholder" and node.name not in self.constants}
        layers: set[str] = set()
        for node in self.nodes:
            inputs = set(node.all_input_nodes) - fixed
            if node in first:
                continue
            if not inputs:
                fixed.add(node)
            elif inputs <= first and node in self.kernel_calls:
                layers.add(self.kernel_calls[node])
            elif inputs <= first:
                first.add(node)
        return layers

    def output(self, layer: str) -> Output:
        """Returns where a module's output stands; a `TargetError` says what is wrong with the name."""
        if layer in self.outputs:
            return self.outputs[layer]
        parts = [name for name in self.outputs if is_part(name)]
        if layer == OUTPUT and parts:
            raise TargetError(
                f"the model returns {len(parts)} tensors ({', '.join(parts)}) and none of them is called 'logits' or "
                f"'out'; say which is meant: 'logit{parts[0]}:CHANNEL', Target({parts[0]!r}, CHANNEL); for the loss, "
                f"give a model that returns its logits alone"
            )
        if layer + "@1" in self.outputs:  # called several times: every call is named
            calls = sum(1 for name in self.outputs if name.rpartition("@")[0] == layer)
            raise TargetError(
                f"layer {layer!r} runs {calls} times; name the call: '{layer}@0' to '{layer}@{calls - 1}'"
            )
        if layer in self.silent:
            raise TargetError(
                f"layer {layer!r} exists but computes nothing of its own in evaluation mode (an identity, it is not "
                f"run, or its output is not one map an image); take the layer before or after it"
            )
        raise TargetError(
            f"layer {layer!r} is not in the model{closest(layer, self.outputs)} (list them: viscircuits targets MODEL)"
        )


def outline(input_shape: tuple[int, ...], outputs: Mapping[str, tuple[tuple[int, ...], int]]) -> NetGraph:
    """Returns only where some modules' outputs stand: no topology, no tensors, nothing that holds the model.

    Args:
        input_shape: that of the graph in question.
        outputs: module -> shape and channel axis of its `Output`.
    """
    nowhere = fx.Graph().placeholder("nowhere")
    placed = {name: Output(nowhere, shape, axis) for name, (shape, axis) in outputs.items()}
    return NetGraph(input_shape, {}, placed, frozenset(), (), {}, {}, {}, {})
