"""Silencing filters: edits of parameters after which a filter's output is zero.

A *pruned* circuit has no filters that live on their bias alone. Such a filter's output must be zero after its
per-channel affine (bias, batch norm, scale) and before the next activation, addition or concatenation. All of that is
in parameters: zero the bias of the layer, and of every norm that directly follows, the weight and the bias (or, for a
norm without them, the running mean).
"""

import operator
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, fx, nn

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.graph import NetGraph
from viscircuits.model.trace import op_name, origin

BATCH_NORMS = {"batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "_batch_norm_no_update"}
_MIXING_NORMS = {"layer_norm", "native_layer_norm", "group_norm", "native_group_norm"}
_KEEPS_ZERO = {"clone", "contiguous", "dropout", "detach", "alias", "_to_copy", "to", "div"}


def silenced(
    model: nn.Module, graph: NetGraph, dead: Mapping[str, Bool[Tensor, " out"]]
) -> dict[str, Tensor]:
    """Returns the biases and norm parameters, by name, with which the dead filters of each layer put out zero.

    Raises:
        UnsupportedOperation: a norm that mixes channels follows a dead filter, or a norm is shared between layers.
    """
    edits: dict[str, Tensor] = {}

    def zero(name: str, channels: Tensor) -> None:
        value = edits[name] if name in edits else _tensor(model, name).detach().clone()
        value[channels.to(value.device)] = 0
        edits[name] = value

    for name, channels in dead.items():
        if not bool(channels.any()):
            continue
        if (bias := graph.layers[name].bias) is not None:
            zero(bias, channels)
        for norm in _norms_behind(graph, name):
            _check_unshared(graph, norm, name)
            weight, shift, mean = (_parameter(graph, norm, i) for i in _PLACES[op_name(norm)])
            for parameter in (weight, shift) if weight or shift else (mean,):
                if parameter is not None:
                    zero(parameter, channels)
    return edits


_PLACES = {
    "batch_norm": (1, 2, 3),
    "_native_batch_norm_legit_no_training": (1, 2, 3),
    "native_batch_norm": (1, 2, 3),
    "_batch_norm_no_update": (1, 2, 3),
}


def affine_tail(graph: NetGraph, node: fx.Node) -> Iterator[fx.Node]:
    """Yields the nodes of the per-channel affine that directly follows a kernel layer's call, first to last."""
    for user in node.users:
        name = op_name(user)
        per_channel = name in BATCH_NORMS or user.target is operator.getitem or name in _KEEPS_ZERO
        if per_channel or (name == "mul" and len(_from_image(graph, user)) == 1):
            yield user
            yield from affine_tail(graph, user)


def _norms_behind(graph: NetGraph, layer: str) -> list[fx.Node]:
    norms = []
    for call in (node for node, name in graph.kernel_calls.items() if name == layer):
        for node in [call, *affine_tail(graph, call)]:
            norms += [node] if op_name(node) in BATCH_NORMS else []
            for user in node.users:
                if op_name(user) in _MIXING_NORMS:
                    raise UnsupportedOperation(
                        f"a pruned circuit cannot silence single filters of {layer!r}: {op_name(user)} ({origin(user)}) "
                        f"mixes its channels; use biases='masked'"
                    )
    return norms


def _check_unshared(graph: NetGraph, norm: fx.Node, layer: str) -> None:
    shift = norm.args[2]
    if not isinstance(shift, fx.Node):
        return
    for other in shift.users:
        source: object = other.args[0]
        if isinstance(source, fx.Node) and graph.kernel_calls.get(source) != layer:
            raise UnsupportedOperation(
                f"a pruned circuit cannot silence filters of {layer!r}: the norm behind it is shared ({origin(other)}); "
                f"use biases='masked'"
            )


def _from_image(graph: NetGraph, node: fx.Node) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if n in graph.axes]


def _parameter(graph: NetGraph, node: fx.Node, place: int) -> str | None:
    argument = node.args[place]
    return graph.parameters.get(argument.name) if isinstance(argument, fx.Node) else None


def _tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    value = getattr(model.get_submodule(owner), leaf)
    assert isinstance(value, torch.Tensor)
    return value
