"""Writing a kernel layer narrow: its live filters, on the channels that they read, constants added to what comes out.

Filters that something needs, and that depend on the image, are computed. Grouped layers shrink by whole groups. Input
channels that are the same on all images are not read: what they add to a filter's map, with its bias, is added
afterwards. Operations without kernels are in `viscircuits.model.small.operations`.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor, fx

from viscircuits.model.graph import KernelLayer
from viscircuits.model.nodes import Value, arguments, function, rank
from viscircuits.model.small.draft import Draft, Narrow
from viscircuits.model.small.operations import at_full_width
from viscircuits.model.small.rewrite import even, rounded

_SUBSET = 0.5
"""A convolution reads all channels at hand where it needs this share of them; fewer are picked out first."""


def kernel_layer(draft: Draft, node: fx.Node, layer: KernelLayer) -> Narrow:
    """Returns what stands for a call of a kernel layer.

    Args:
        draft: the graph in the making.
        node: the call.
        layer: the layer.
    """
    life, bias = draft.life, None
    axis = rank(node) - 1 if layer.op == "linear" else 1
    source, _, *rest = arguments(node)
    rows, columns, groups = _shape_of(draft, layer, life.live(node, axis), life.live(source, axis))
    # what depends on the image in another way than by channels (all constant, yet needed anew) has no narrow form
    if not len(columns):
        return at_full_width(draft, node)
    # where a join follows, all its operands must have the same rows, and a few more would be picked out again
    if groups == 1 and layer.op == "conv" and node not in life.joined:
        rows = rounded(rows, layer.out_channels)
    weight = layer.out_first(draft.tensors.named(layer.weight))[rows]
    if rest and isinstance(rest[0], fx.Node):
        bias = life.blank[rest[0]][rows]  # calls may differ in it
    settings: list[Value] = rest[1:]
    if layer.op != "linear" and len(settings) > 3:
        settings[3] = groups
    constant = None
    if layer.groups == 1 and not (life.images_first(source) and life.images_first(node)):  # nothing is constant
        weight = weight[:, columns]
    elif layer.groups == 1:
        columns = _at_hand(draft, source, columns, axis)
        constant = _constant_part(draft, node, layer.stored(weight), bias, columns, axis, settings)
        weight = weight[:, columns]
    if constant is not None:  # the bias is in it
        # Zero padding makes a constant map uneven at its borders. Only an even one is a bias, which costs nothing.
        bias = constant.movedim(axis, 0).flatten(1)[:, 0] if even(constant, axis) else None
    narrow = KernelLayer(layer.name, layer.op, "", None, len(rows), len(columns), groups, layer.kernel_size)
    args: list[Value] = [draft.select(source, columns, axis), draft.hold(narrow.stored(weight), layer.weight)]
    args += [None if bias is None else draft.hold(bias, _bias_name(draft, layer, rest)), *settings]
    made = draft.add(function(node), *args, **node.kwargs)
    if constant is not None and bias is None:
        # in place: the map was just made, and nobody else reads it yet
        made = draft.add(torch.ops.aten.add_.Tensor, made, draft.constant(constant, f"{node.name}_added"))
    return Narrow(made, rows, axis)


def _bias_name(draft: Draft, layer: KernelLayer, rest: list[Value]) -> str:
    """The name of a layer's bias; where it has none, that which one would have."""
    own = draft.life.graph.parameters.get(rest[0].name) if rest and isinstance(rest[0], fx.Node) else None
    return own or layer.weight.rpartition("weight")[0] + "bias"


def _at_hand(draft: Draft, source: fx.Node, columns: Int[Tensor, " k"], axis: int) -> Int[Tensor, " r"]:
    """The channels for a layer to read: all at hand where it needs most (other kernels are zero), else its own."""
    held = draft.env.get(source)
    if held is None or held.channels is None or held.axis != axis:
        return columns
    # picking channels copies their maps, which costs more than multiplying a few more by zero
    return held.channels if _SUBSET * len(held.channels) <= len(columns) else columns


@torch.no_grad()
def _constant_part(
    draft: Draft,
    node: fx.Node,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    axis: int,
    settings: list[Value],
) -> Tensor | None:
    """What a layer makes of constant inputs and its bias, ``(1, rows, ...)``; None where nothing is constant."""
    # the channels that are read are emptied, so that on a blank image only the others are left
    x = draft.life.blank[arguments(node)[0]].clone()
    x.index_fill_(axis, columns.to(x.device), 0.0)
    return function(node)(x, weight, bias, *settings, **node.kwargs) if bool(x.any()) else None


def _shape_of(
    draft: Draft, layer: KernelLayer, out: Bool[Tensor, " out"], alive: Bool[Tensor, " c"]
) -> tuple[Tensor, Tensor, int]:
    """Output channels to compute, input channels to read, groups left; grouped layers shrink by whole groups."""
    kept = draft.life.kept.get(layer.name, torch.ones(layer.shape, dtype=torch.bool))
    if layer.groups == 1:
        rows = out.nonzero()[:, 0]
        return rows, (kept[rows].any(0) & alive).nonzero()[:, 0], 1
    # torch wants groups of one size, so a group with one live filter stays as it is
    groups = out.view(layer.groups, -1).any(1)
    rows = groups.repeat_interleave(layer.out_channels // layer.groups).nonzero()[:, 0]
    columns = groups.repeat_interleave(layer.in_channels // layer.groups).nonzero()[:, 0]
    return rows, columns, int(groups.sum())
