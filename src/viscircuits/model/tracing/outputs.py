"""Where the outputs of modules stand in an exported program.

Convention: a module's output is the last tensor that was computed in it. A module that runs several times has one for
each call, ``features.3@1``; what the model itself returns has the names of `viscircuits.model.output`. Not here:
reading an output in a run (`viscircuits.model.instrument`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from viscircuits.model.graph import OUTPUT, Output
from viscircuits.model.nodes import concrete
from viscircuits.model.output import chosen


def outputs(
    nodes: tuple[fx.Node, ...], axes: Mapping[fx.Node, int], whole: Mapping[str, fx.Node], modules: Mapping[str, str]
) -> dict[str, Output]:
    """Returns the outputs that hold one map, or one vector, an image.

    Args:
        nodes: the operations, in order.
        axes: node that depends on the image -> axis of its channels.
        whole: what `model_outputs` gives.
        modules: name of a module -> the first name of the same module.
    """
    standing: dict[str, Output] = {}
    for name, node in {**_inner(nodes, axes, modules), **whole}.items():
        sizes = node.meta["val"].shape
        # two images were exported: where the first axis has another size, images do not stand there
        if concrete(sizes[:1]) == (2,):
            standing[name] = Output(node, tuple(sizes[1:]) or (1,), axes[node] if len(sizes) > 1 else 1)
    return standing


def model_outputs(
    program: torch.export.ExportedProgram, ways: Sequence[str], axes: Mapping[fx.Node, int]
) -> dict[str, fx.Node]:
    """Returns the tensors that the model returns, by the names of `viscircuits.model.output`, and its output proper.

    Args:
        program: the exported program.
        ways: where each of its outputs stands in what the model returns.
        axes: node that depends on the image -> axis of its channels.
    """
    by_name = {node.name: node for node in axes if isinstance(node.meta.get("val"), Tensor)}
    # what does not depend on the image (a constant) is no output of the network
    pairs = zip(ways, program.graph_signature.user_outputs, strict=True)
    parts = {way: by_name[leaf] for way, leaf in pairs if leaf in by_name}
    proper = chosen(list(parts))
    if proper is not None:
        parts[OUTPUT] = parts.pop(proper)
    return parts


def _inner(nodes: tuple[fx.Node, ...], axes: Mapping[fx.Node, int], modules: Mapping[str, str]) -> dict[str, fx.Node]:
    """The last tensor of every call of every module in the model."""
    last: dict[tuple[str, str], fx.Node] = {}
    for node in nodes:
        value = node.meta.get("val")
        if node not in axes or node.op != "call_function" or not isinstance(value, Tensor) or value.ndim < 2:
            continue
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            if path:  # the model itself puts out what it returns, which need not be computed last
                last[path, _call(key)] = node
    calls: dict[str, list[fx.Node]] = {}
    for (path, _), node in last.items():  # a module may stand under several names
        calls.setdefault(modules[path], []).append(node)
    named: dict[str, fx.Node] = {}
    for path, nodes_of_calls in calls.items():
        for number, node in enumerate(nodes_of_calls):
            named[f"{path}@{number}" if len(nodes_of_calls) > 1 else path] = node
    return named


def _call(stack_key: str) -> str:
    """The number of a call; torch writes ``name@1`` from the second call of a module on."""
    return stack_key.partition("@")[2] or "0"
