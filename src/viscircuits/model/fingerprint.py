"""Content hashes of a model's weights and of what it computes with them, for provenance; equal on any device.

Not here: the hash of anything else (`viscircuits.store.digest`).
"""

import hashlib

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import at_rest
from viscircuits.store import digest


def fingerprint(model: nn.Module) -> str:
    """Returns the first 16 hex digits of a SHA-256 over the state dict: names, dtypes, shapes, bytes; sorted by name.

    Device, memory format and training mode do not enter; the code of the model does not either.
    """
    sha = hashlib.sha256()
    with at_rest(model):
        state = model.state_dict()
    for name, tensor in sorted(state.items()):
        if isinstance(tensor, Tensor):  # a module may add values of its own kind
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def graph_fingerprint(model: nn.Module, graph: NetGraph) -> str:
    """Returns the first 16 hex digits of a SHA-256 over a traced graph: operations, what they take, constants.

    Weights enter by name alone, and names of nodes not at all. Another version of torch may trace the same code to
    another graph.
    """
    places = {node: place for place, node in enumerate(graph.nodes)}
    stored = model.state_dict().keys()
    parts: list[str | Tensor] = []
    for node in graph.nodes:
        parts.append(_told(node, places, graph.parameters.get(node.name, "")))
        if node.name in graph.constants and graph.parameters.get(node.name) not in stored:
            parts.append(graph.constants[node.name])
    return digest(*parts)


def _told(node: fx.Node, places: dict[fx.Node, int], weight: str) -> str:
    """An operation in words that are the same in every process."""
    target = node.target
    if node.op == "placeholder":
        name = weight
    elif isinstance(target, torch._ops.OpOverload | str):
        name = str(target)
    else:  # the text of a function holds its address
        name = getattr(target, "__name__", type(target).__name__)
    # where a model runs is no part of what it computes
    options = {key: value for key, value in node.kwargs.items() if key not in ("device", "pin_memory")}
    shown = map_aggregate(
        (node.args, options), lambda one: f"%{places[one]}" if isinstance(one, fx.Node) else _plain(one)
    )
    return f"{node.op} {name} {shown}"


def _plain(value: object) -> str:
    return "a device" if isinstance(value, torch.device) else str(value)
