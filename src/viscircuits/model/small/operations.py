"""Writing an operation without kernels: narrow where it treats channels alone, at full width where it mixes them.

Norms, activations, pools, sums, concatenations and flattening run narrow. All else (shuffles, norms across channels,
attention) gets its input back at full width, which is noted in the draft. Kernel layers are in
`viscircuits.model.small.kernels`.
"""

import operator
from math import prod

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from viscircuits.model import ops
from viscircuits.model.nodes import (
    Value,
    arguments,
    concrete,
    function,
    keeps_channels,
    module_name,
    op_name,
    origin,
    rank,
    source,
)
from viscircuits.model.small.draft import Draft, Narrow
from viscircuits.model.small.rewrite import axis_after, cat_axis, flattens


def operation(draft: Draft, node: fx.Node) -> Narrow:
    """Returns what stands for an operation without kernels."""
    name, inputs = op_name(node), draft.images_in(node)
    narrow = [draft.env[n] for n in inputs if n in draft.env and draft.env[n].channels is not None]
    if name in ops.CHANNEL_NORMS and draft.env[inputs[0]].axis == 1:
        return _channel_norm(draft, node)
    if node.target is operator.getitem:
        of = draft.env[source(node)]
        return of._replace(node=draft.add(operator.getitem, of.node, node.args[1]))
    if name == "cat" and all(cat_axis(node) == held.axis for held in narrow):
        return _concatenation(draft, node)
    if not narrow:
        return at_full_width(draft, node)
    if flattens(node, narrow[0].axis):
        return _flattened(draft, node)
    # a constant beside the input may hold one number a channel, which has to shrink with it: that is a join's business
    if keeps_channels(node) and len(inputs) == 1 and not draft.takes_constants(node):
        axis = axis_after(node, narrow[0].axis)
        if axis is not None:
            return Narrow(draft.call(node, draft.arguments(node)), narrow[0].channels, axis)
    # broadcast from another rank, an axis of one operand is not the same axis of the other
    same_rank = all(rank(n) == rank(node) for n in inputs)
    if name in ops.ELEMENTWISE and same_rank and len({held.axis for held in narrow}) == 1:
        return _join(draft, node, inputs, narrow[0].axis)
    return at_full_width(draft, node)


def at_full_width(draft: Draft, node: fx.Node) -> Narrow:
    """Returns an operation that gets all channels of its inputs."""
    for operand in draft.images_in(node):
        if operand in draft.env and draft.env[operand].channels is not None:
            name = module_name(node)  # empty for the model itself, which is a name
            draft.full_width[origin(node) if name is None else name] = op_name(node)
    return Narrow(draft.call(node, draft.arguments(node, full=True)))


def size(draft: Draft, node: fx.Node, n_first: int) -> Narrow:
    """Returns what depends on the number of images only: a size, or a constant for each image.

    Args:
        draft: the graph in the making.
        node: of the network.
        n_first: how long the first axis is where the graph starts, for one image.
    """
    of = draft.env.get(source(node)) if isinstance(node.args[0], fx.Node) else None
    if op_name(node) == "sym_size" and of is None:
        n = draft.add(function(node), draft.image, 0)
        one = draft.life.blank[node]
        if one != n_first:  # an axis may hold several parts of each image
            n = draft.add(operator.mul, n, one)
            n = draft.add(operator.floordiv, n, n_first)
        return Narrow(n)
    if op_name(node) == "sym_size" and of is not None and arguments(node)[1] == 0:
        return Narrow(draft.add(function(node), of.node, 0))
    return Narrow(draft.call(node, draft.arguments(node, full=True)))


def _channel_norm(draft: Draft, node: fx.Node) -> Narrow:
    of = draft.env[source(node)]

    def operand(argument: Value) -> Value:
        if not isinstance(argument, fx.Node):
            return argument
        # arguments 1 to 4 hold one number a channel; what follows them (a momentum) may be a node as well
        if argument in (node.args[0], *node.args[5:]):
            return draft.argument(argument, full=False)
        value = draft.life.blank[argument]
        return draft.part(value if of.channels is None else value[of.channels], argument)

    return of._replace(node=draft.call(node, map_aggregate(tuple(arguments(node)), operand)))


def _join(draft: Draft, node: fx.Node, inputs: list[fx.Node], axis: int) -> Narrow:
    """Sums, products and gates: every operand brings the channels that are needed."""
    live = draft.life.live(node, axis)
    want, width = live.nonzero()[:, 0], len(live)

    def operand(argument: Value) -> Value:
        if not isinstance(argument, fx.Node):
            return argument
        if argument in inputs:
            # one map for all channels (a spatial gate) has none to choose from
            broad = concrete(argument.meta["val"].shape)[axis] == 1 != width
            return draft.full(argument) if broad else draft.select(argument, want, axis)
        value = draft.life.blank[argument]
        if not isinstance(value, Tensor):
            return value
        if draft.is_anew(argument):
            same = rank(argument) == rank(node) and value.shape[axis] == width
            return draft.select(argument, want, axis) if same else draft.full(argument)
        # constants are aligned at their last axis, as torch broadcasts, but a PReLU's slopes at the channels
        place = 0 if op_name(node) in ops.PRELUS else axis - rank(node) + value.ndim
        sliced = 0 <= place < value.ndim and value.shape[place] == width > 1
        return draft.part(value.index_select(place, want.to(value.device)) if sliced else value, argument)

    args = map_aggregate(tuple(arguments(node)), operand)
    return Narrow(draft.add(function(node), *args, **node.kwargs), want, axis)


def _concatenation(draft: Draft, node: fx.Node) -> Narrow:
    axis = cat_axis(node)
    parts: list[fx.Node] = []
    channels: list[Tensor] = []
    start = 0
    for part in arguments(node)[0]:
        width = concrete(part.meta["val"].shape)[axis]
        held = draft.env.get(part)
        # a constant part is left out, and stored where somebody asks for it; but not where it cannot be stored
        if held is None and not draft.life.images_first(node):
            held = Narrow(draft.full(part))
        if held is not None:
            parts.append(held.node)
            channels.append(start + (torch.arange(width) if held.channels is None else held.channels))
        start += width
    joined = parts[0] if len(parts) == 1 else draft.add(function(node), parts, *node.args[1:])
    return Narrow(joined, torch.cat(channels), axis)


def _flattened(draft: Draft, node: fx.Node) -> Narrow:
    of = draft.env[source(node)]
    assert of.channels is not None
    places = prod(concrete(source(node).meta["val"].shape)[2:])
    features = (of.channels[:, None] * places + torch.arange(places)).flatten()
    # the traced operation names the full width, so it cannot be called as it stands
    return Narrow(draft.add(torch.flatten, of.node, 1), features)
