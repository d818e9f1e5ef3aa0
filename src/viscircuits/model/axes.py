"""Which axis of each tensor of a graph holds the channels; found, where operations move it about."""

from collections.abc import Mapping

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from viscircuits.model import ops
from viscircuits.model.nodes import concrete, kernel_op, moved_axis, op_name, reduced_axes, shape


def channel_axes(nodes: tuple[fx.Node, ...]) -> dict[fx.Node, int]:
    """Which axis of each tensor holds the channels: 1, unless a linear map, a norm or a move put them elsewhere."""
    axes: dict[fx.Node, int] = {}
    image = next(node for node in reversed(nodes) if node.op == "placeholder")
    for node in nodes:
        inputs = image_inputs(node, axes)
        if node is image or inputs:
            axes[node] = _channel_axis(node, inputs, axes)
    return axes


def image_inputs(node: fx.Node, axes: Mapping[fx.Node, int]) -> list[fx.Node]:
    """The tensors among a node's inputs that depend on the image; the size of one does not."""
    return [n for n in node.all_input_nodes if n in axes and isinstance(n.meta.get("val"), Tensor | tuple | list)]


def _channel_axis(node: fx.Node, inputs: list[fx.Node], axes: Mapping[fx.Node, int]) -> int:
    rank = len(shape(node))
    axis = next((axes[n] for n in inputs if len(shape(n)) == rank), 1)
    name = op_name(node)
    if name == "linear" or (name in ops.LAYER_NORMS and _normalises_one_axis(node)):
        return rank - 1
    if kernel_op(node) is not None:
        return 1
    if name in ops.PERMUTATIONS:
        return moved_axis(node, axis)
    if name in ops.AXIS_MOVES and inputs == [*node.args[:1]]:
        moved = _followed(node, axes[inputs[0]])
        if moved is not None:
            return moved
    if name in ops.RESHAPES and inputs:  # channels that stand last stay there when other axes are split or joined
        before = shape(inputs[0])
        if 1 < axes[inputs[0]] == len(before) - 1 and before[-1] == shape(node)[-1]:
            return rank - 1
    lost = len(shape(inputs[0])) - rank if inputs and node.args[:1] == (inputs[0],) else 0
    if lost > 0 and isinstance(node.target, torch._ops.OpOverload):
        gone, before = reduced_axes(node), axes[inputs[0]]
        if len(gone) == lost and before not in gone:  # a mean or a choice along other axes
            return before - sum(a < before for a in gone)
    return axis


def _normalises_one_axis(node: fx.Node) -> bool:
    """Whether a layer norm runs over the last axis alone, as over the features of a token; else it spans a map too."""
    sizes = node.args[1]
    return isinstance(sizes, list | tuple) and len(sizes) == 1


def _followed(node: fx.Node, axis: int) -> int | None:
    """Where an axis of its input stands after an operation that moves data: numbered, moved, and looked up.

    None where the numbers then vary along several axes, or along none.
    """
    source, operation = node.args[0], node.target
    assert isinstance(source, fx.Node)
    assert callable(operation)
    sizes = concrete(shape(source))
    if axis >= len(sizes) or -1 in sizes:
        return None
    view = [-1 if a == axis else 1 for a in range(len(sizes))]
    numbers = torch.arange(sizes[axis]).view(view).expand(sizes).contiguous()
    rest = map_arg((node.args[1:], dict(node.kwargs)), lambda n: concrete([n.meta["val"]])[0])
    moved = operation(numbers, *rest[0], **rest[1])
    varies = [a for a in range(moved.ndim) if bool((moved != moved.narrow(a, 0, 1)).any())]
    return varies[0] if len(varies) == 1 else None
