"""Silencing filters: edits of parameters after which a filter's output is zero.

A *pruned* circuit has no filters that live on their bias alone. Such a filter's output must be zero after its
per-channel affine (bias, batch norm, scale) and before the next activation, addition or concatenation. All of that is
in parameters: zero the bias of the layer, and of every norm that directly follows, the weight and the bias (or, for a
norm without them, the running mean).
"""

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, fx, nn

from viscircuits.errors import UnsupportedOperation
from viscircuits.model import ops
from viscircuits.model.flow.rules import step
from viscircuits.model.flow.wires import any_but, recording
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import at_rest
from viscircuits.model.nodes import filled, keeps_zero, op_name, origin


def silenced(model: nn.Module, graph: NetGraph, dead: Mapping[str, Bool[Tensor, " out"]]) -> dict[str, Tensor]:
    """Returns the biases and norm parameters, by name, with which the dead filters of each layer put out zero.

    Args:
        model: the user's module; its tensors are read and stay as they are.
        graph: its graph.
        dead: kernel layer -> True for each filter that no kernel feeds.

    Raises:
        UnsupportedOperation: what follows a dead filter mixes channels, is shared between layers, or shifts each
            channel by something that is not a stored parameter.
    """
    edits: dict[str, Tensor] = {}
    for name, channels in dead.items():
        if not bool(channels.any()):
            continue
        calls = {call: channels for call, layer in graph.kernel_calls.items() if layer == name}
        norms = dict(item for call in calls for item in affine_tail(graph, call, ~channels))
        stored = [*_stored(graph, name, calls, (2,)), *_stored(graph, name, norms, (1, 2))]
        # without a bias, zero comes out of a norm as minus its mean (scaled): the mean has to go as well
        stored += _stored(graph, name, {norm: c for norm, c in norms.items() if _argument(norm, 2) is None}, (3,))
        for parameter, silent in stored:
            value = edits.setdefault(parameter, _tensor(model, parameter).detach().clone())
            value[silent.to(value.device)] = 0
    return edits


def affine_tail(graph: NetGraph, call: fx.Node, live: Bool[Tensor, " c"]) -> Iterator[tuple[fx.Node, Tensor]]:
    """Yields the norms of the affine behind a kernel layer's call, each with the channels that only dead filters feed.

    Args:
        graph: the network.
        call: a call of a kernel layer.
        live: which of its output channels are not dead.
    """
    shape = call.meta["val"].shape
    axis = graph.axes[call]
    with recording():
        wire = live.float().view([-1 if a == axis else 1 for a in range(len(shape))]).expand(*shape)
        wire = wire.clone().requires_grad_()
    yield from _tail(graph, call, wire, graph.kernel_calls[call])


def _tail(graph: NetGraph, node: fx.Node, value: object, layer: str) -> Iterator[tuple[fx.Node, Tensor]]:
    for user in node.users:
        name = op_name(user)
        if name in ops.MIXING_NORMS:
            raise _unsupported(layer, user, "mixes its channels")
        if name in ops.CHANNEL_NORMS:
            assert isinstance(value, Tensor)
            # after a shuffle or a reshape one channel of the norm may hold places of dead and of live filters
            if bool((any_but(value, 1) & any_but(1 - value, 1)).any()):
                raise _unsupported(layer, user, "mixes its channels")
            yield user, ~any_but(value, 1)
        # a scale keeps zero zero; as a divisor, or with another signal, it is the end of the affine
        scaled = name in ops.SCALINGS and user.args[0] is node and _alone(graph, user)
        if name in ops.ADDITIONS and _alone(graph, user) and _by_channel(graph, user):
            raise _unsupported(layer, user, "shifts its channels outside a norm")
        if keeps_zero(user) or scaled:
            args, kwargs = filled(user, {node: value}.get)
            with recording():
                moved = step(user, list(args), kwargs)
            yield from _tail(graph, user, moved, layer)


def _alone(graph: NetGraph, node: fx.Node) -> bool:
    """Whether only one input depends on the image."""
    return sum(n in graph.axes for n in node.all_input_nodes) == 1


def _by_channel(graph: NetGraph, node: fx.Node) -> bool:
    """Whether one of the inputs holds one number a channel."""
    shape = node.meta["val"].shape
    wanted = [size if axis == graph.axes[node] else 1 for axis, size in enumerate(shape)]
    constants = [n.meta["val"] for n in node.all_input_nodes if n not in graph.axes]
    return any([1] * (len(shape) - c.ndim) + list(c.shape) == wanted and c.numel() > 1 for c in constants)


def _stored(
    graph: NetGraph, layer: str, uses: Mapping[fx.Node, Tensor], places: tuple[int, ...]
) -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters at some places of calls, with the channels to silence; nobody else may use them."""
    for node, silent in uses.items():
        for argument in (_argument(node, place) for place in places):
            if argument is None:
                continue
            name = graph.parameters.get(argument.name)
            # one parameter may stand in the graph under several placeholders: tied modules
            sharing = [p for p, other in graph.parameters.items() if other == name]
            users = {user for p in graph.nodes if p.name in sharing for user in p.users}
            if name is None or users - set(uses):
                fault = "computes its parameters" if name is None else "shares its parameters with other layers"
                raise _unsupported(layer, node, fault)
            yield name, silent


def _argument(node: fx.Node, place: int) -> fx.Node | None:
    argument = node.args[place] if place < len(node.args) else None
    return argument if isinstance(argument, fx.Node) else None


def _unsupported(layer: str, node: fx.Node, fault: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"a pruned circuit cannot silence single filters of {layer!r}: {op_name(node)} ({origin(node)}) {fault}; "
        f"use biases='masked'"
    )


def _tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    with at_rest(model):
        value = getattr(model.get_submodule(owner), leaf)
    assert isinstance(value, torch.Tensor)
    return value
