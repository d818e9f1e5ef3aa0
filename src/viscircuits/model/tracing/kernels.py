"""The kernel layers of an exported program, named after their weights, in the order of first execution.

A layer is a stored weight and every call that reads it in the same way. Calls whose kernels cannot be told, because
they read a part of a weight or one that is computed, are kept with the reason; that is an error only where such a call
leads to a target. Not here: what a kernel layer is (`viscircuits.model.graph`).
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import fx, nn

from viscircuits.errors import UnsupportedOperation
from viscircuits.model import ops
from viscircuits.model.axes import image_inputs
from viscircuits.model.graph import KernelLayer
from viscircuits.model.nodes import in_attention, kernel_op, op_name, origin

_GROUPS = 6
"""The place of ``groups`` among the arguments of convolutions, transposed ones too."""


@dataclass
class Kernels:
    """What is known of a program's kernels.

    Attributes:
        layers: by name, in the order of first execution.
        calls: node -> the layer whose kernels it uses.
        refused: node -> why its kernels cannot be told.
    """

    layers: dict[str, KernelLayer] = field(default_factory=dict)
    calls: dict[fx.Node, str] = field(default_factory=dict)
    refused: dict[fx.Node, str] = field(default_factory=dict)


def kernels(
    model: nn.Module,
    nodes: tuple[fx.Node, ...],
    parameters: Mapping[str, str],
    axes: Mapping[fx.Node, int],
    called: frozenset[str],
) -> Kernels:
    """Returns the kernels of a program.

    Args:
        model: the user's module.
        nodes: the operations, in order.
        parameters: placeholder -> full name of the parameter or buffer, of tied ones the first.
        axes: node that depends on the image -> axis of its channels.
        called: weights of which a call was seen when the model ran; only these can be scored.

    Raises:
        UnsupportedOperation: two calls read one weight in different ways.
    """
    result = Kernels()
    for node in nodes:
        # one on weights or constants alone has no part in what happens to an image
        if kernel_op(node) is None or not image_inputs(node, axes):
            continue
        weight, bias = node.args[1], (node.args[2] if len(node.args) > 2 else None)
        if not isinstance(weight, fx.Node) or weight.name not in parameters or bias in axes:
            # attention slices its three projections out of one weight; they are never scored, so nothing is lost
            if not (in_attention(node) and image_inputs(node, axes) == [*node.args[:1]]):
                result.refused[node] = _not_stored(node, parameters)
            continue
        layer = _layer(model, node, weight, parameters, called)
        result.layers[layer.name] = _with_call(result.layers.get(layer.name), layer, node)
        result.calls[node] = layer.name
    return result


def _with_call(first: KernelLayer | None, layer: KernelLayer, node: fx.Node) -> KernelLayer:
    """A layer with one call more."""
    if first is None:
        return layer
    # each call may add a bias of its own; what a kernel is must be the same, or a mask would mean two things
    if replace(layer, bias=first.bias, calls=first.calls) != first:
        raise UnsupportedOperation(
            f"{op_name(node)} in {origin(node)} reads the weight {layer.weight!r} in another way ({layer.op}, "
            f"{layer.groups} groups) than an earlier call ({first.op}, {first.groups} groups); kernels need "
            f"one meaning: give each call a weight of its own"
        )
    return replace(first, calls=first.calls + 1)


def _layer(
    model: nn.Module, node: fx.Node, weight: fx.Node, parameters: Mapping[str, str], called: frozenset[str]
) -> KernelLayer:
    """The layer that one call uses."""
    kind, bias = kernel_op(node), (node.args[2] if len(node.args) > 2 else None)
    assert kind is not None
    weight_name = parameters[weight.name]
    bias_name = parameters.get(bias.name) if isinstance(bias, fx.Node) else None
    shape = tuple(weight.meta["val"].shape)
    # the exporter leaves out what stands at its default behind the last argument that does not
    groups = next(iter(node.args[_GROUPS:]), 1)
    assert isinstance(groups, int)
    # transposed convolutions store (in, out / groups, ...), all others (out, in / groups, ...)
    out, width = (shape[1] * groups, shape[0] // groups) if kind == "conv_transpose" else shape[:2]
    # what no run shows (torch computes attention out of sight) could not be shown to a criterion either
    return KernelLayer(
        weight_name.removesuffix(".weight"),
        kind,
        weight_name,
        bias_name,
        out,
        width * groups,
        groups,
        shape[2:],
        scored=weight_name in called and _is_of_a_layer(model, weight_name),
    )


def _is_of_a_layer(model: nn.Module, weight: str) -> bool:
    """Whether a weight is one of a layer of its own: not of an attention's projections, not a fixed filter."""
    owner = model.get_submodule(weight.rpartition(".")[0])
    parent = model.get_submodule(weight.rpartition(".")[0].rpartition(".")[0])
    # the output projection is a module inside of the attention, the others are the attention's own weights
    attention = isinstance(owner, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention)
    return not attention and isinstance(getattr(owner, weight.rpartition(".")[2]), nn.Parameter)


def _not_stored(node: fx.Node, parameters: Mapping[str, str]) -> str:
    """Why the kernels of a call cannot be told: it takes a part of a stored weight, or one made while running."""
    weight = source = node.args[1]
    while isinstance(source, fx.Node) and (op_name(source) in ops.WEIGHT_PARTS or source.target is operator.getitem):
        source = source.args[0]
    if source is not weight and isinstance(source, fx.Node) and source.name in parameters:
        return (
            f"{op_name(node)} in {origin(node)} takes a part of the stored weight "
            f"{parameters[source.name]!r}, or takes it "
            f"in another layout; kernels need a weight of their own: give every part a layer"
        )
    return (
        f"{op_name(node)} in {origin(node)} computes its weight or bias while running (weight normalisation or "
        f"standardisation, a plain tensor); kernels need a stored weight: fold it into a plain layer first, or "
        f"register it as a parameter or buffer"
    )
