"""From somebody's module to a `NetGraph`, which is kept in memory for as long as its model lives.

The exported graph gives the topology only; every number viscircuits reports comes from running the user's own module.
So a model is run for real first (`viscircuits.model.trial`), then exported, and read. Not here: the steps
(`viscircuits.model.tracing`), and what reaches what (`viscircuits.model.flow`).
"""

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from viscircuits.bounds.arguments import checked
from viscircuits.errors import ModelError
from viscircuits.model.axes import channel_axes
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.alone import lock
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.guard.quiet import quiet
from viscircuits.model.guard.replica import at_rest, like
from viscircuits.model.guard.untouched import same_random_state, untouched
from viscircuits.model.nodes import is_random, op_name, origin
from viscircuits.model.tracing.export import Exported, export
from viscircuits.model.tracing.failure import explained
from viscircuits.model.tracing.kernels import kernels
from viscircuits.model.tracing.outputs import model_outputs, outputs
from viscircuits.model.tracing.state import state
from viscircuits.model.trial import Tried, again, tried

_Graphs = dict[tuple[tuple[int, ...], bool], NetGraph]
_cache: "weakref.WeakKeyDictionary[nn.Module, list[tuple[object, _Graphs]]]" = weakref.WeakKeyDictionary()
_KEPT = 4
"""States of a model whose graphs are kept: hooks come and go."""


@checked
@clean
def trace(model: nn.Module, input_shape: Iterable[int], *, any_batch: bool = False) -> NetGraph:
    """Returns the network graph of a model for one image shape; kept in memory per model and shape.

    Args:
        model: a module in evaluation mode, which is not changed.
        input_shape: of one image, ``(c, h, w)`` in channels and pixels.
        any_batch: whether the number of images stays symbolic, so that the graph itself can be run (extraction needs
            it); a few more models cannot be followed then.

    Raises:
        ModelError: the model is in training mode.
        UnsupportedOperation: the model cannot be followed, or uses its weights in a way that has no rule.
    """
    shape = tuple(input_shape)
    with at_rest(model):
        check_evaluation_mode(model)
        now = state(model)
    # asked before the lock, which another thread may hold for the seconds that its own model takes
    if (graph := _known(model, now).get((shape, any_batch))) is not None:
        return graph
    with lock:
        known = _known(model, now)
        others = [(before, graphs) for before, graphs in _cache.get(model, []) if before != now]
        # the newest first, so that the oldest falls out
        _cache[model] = [(now, known), *others[: _KEPT - 1]]
        if (shape, any_batch) not in known:  # another thread may have traced it meanwhile
            with at_rest(model):
                known[shape, any_batch] = _traced(model, shape, any_batch, known)
        return known[shape, any_batch]


def _known(model: nn.Module, now: object) -> _Graphs:
    """The graphs of a model in its present state."""
    return next((graphs for before, graphs in _cache.get(model, []) if before == now), {})


def check_evaluation_mode(model: nn.Module) -> None:
    """Raises a `ModelError` that names the first module in training mode, or says why the model is no plain module."""
    check_plain(model)
    for name, module in model.named_modules():
        if module.training:
            where = f"its module {name!r}" if name else "the model"
            raise ModelError(f"the model must be in evaluation mode, but {where} is training; call model.eval() first")


def _traced(model: nn.Module, shape: tuple[int, ...], any_batch: bool, known: _Graphs) -> NetGraph:
    """The graph, after the model was run for real; what its forward stores on it meanwhile is put back."""
    device = like(model).device
    with quiet(), same_random_state(device) as drawn, torch.no_grad(), explained(model, shape, any_batch=any_batch):
        # before the export, so that what it makes once and keeps elsewhere are real tensors
        with untouched(model), torch.inference_mode(False):
            trial = _again(model, shape, any_batch, known) if known else tried(model, shape)
        with untouched(model):
            exported = export(model, shape, any_batch=any_batch)
        # numbers only show that a model is random; its graph names the operation
        fault = _randomness(exported.program) or trial.fault
        graph = _graph(model, shape, exported, trial._replace(fault=fault))
        # a model without a fault draws nothing: what was drawn meanwhile is another thread's, and must not be undone
        drawn.by_another = not graph.fault
        return graph


def _again(model: nn.Module, shape: tuple[int, ...], any_batch: bool, known: _Graphs) -> Tried:
    """What is known of a model that was tried before, at this size."""
    alike, first = known.get((shape, not any_batch)), next(iter(known.values()))
    if (
        alike is None
    ):  # the faster layout and the weights that are called may differ by size; a fault is looked for once a model
        return again(model, shape, first.fault)
    return Tried(alike.memory_format, first.fault, frozenset(la.weight for la in alike.layers.values() if la.scored))


def _graph(model: nn.Module, shape: tuple[int, ...], exported: Exported, trial: Tried) -> NetGraph:
    """What is read in the program of a model that was tried."""
    program = exported.program
    nodes = tuple(program.graph.nodes)
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    canonical = _canonical_names(model)
    parameters = {placeholder: canonical[name] for placeholder, name in names.items()}
    axes = channel_axes(nodes)
    layers = kernels(model, nodes, parameters, axes, trial.called)
    # a module that stands under two names is one, and its output has the first of them
    modules = _first_names(model.named_modules(remove_duplicate=False))
    places = outputs(nodes, axes, model_outputs(program, exported.ways, axes), modules)
    return NetGraph(
        shape,
        layers.layers,
        places,
        frozenset(modules.keys() - {name.partition("@")[0] for name in places}),
        nodes,
        _constants(program),
        parameters,
        layers.calls,
        axes,
        trial.layout,
        refused=layers.refused,
        fault=trial.fault,
        model=type(model).__name__,
    )


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Placeholder -> value, of everything that a program is given beside the images."""
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= signature.inputs_to_lifted_tensor_constants
    return {placeholder: tensors[name].detach() for placeholder, name in named.items() if name in tensors}


def _randomness(program: torch.export.ExportedProgram) -> str:
    """Names a random operation on which what the model returns depends, if there is one."""
    needed: set[fx.Node] = set()
    for node in reversed(program.graph.nodes):  # users stand behind what they use, so one walk meets all of it
        if node.op == "output" or node in needed:
            needed.update(node.all_input_nodes)
            if node.op == "call_function" and is_random(node):
                return (
                    f"the model is random: {op_name(node)} in {origin(node)} draws anew in every run, in evaluation "
                    f"mode too; switch it off (functional dropout needs training=self.training)"
                )
    return ""


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """Every parameter and buffer name, to the first name of the same tensor: tied weights are one layer."""
    return _first_names([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _first_names(named: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Every name, to the first one of the same object."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(thing), name) for name, thing in named}
