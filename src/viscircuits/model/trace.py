"""From somebody's module to a `NetGraph`, through `torch.export`.

The exported graph gives the topology only; every number viscircuits reports comes from running the user's own module.
`torch.export` is called with ``strict=False`` (plain Python runs as it is) and with two images, which also suits models
that refuse one; then in-place writes are made functional, because a write through a view is invisible otherwise.
"""

import inspect
import operator
import os
import re
import traceback
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as of_all

from viscircuits.bounds import checked
from viscircuits.errors import ModelError, UnsupportedOperation, ViscircuitsError
from viscircuits.model.axes import channel_axes, image_inputs
from viscircuits.model.graph import OUTPUT, KernelLayer, NetGraph, Output
from viscircuits.model.guard.alone import exporting, lock
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.guard.quiet import quiet, unheard
from viscircuits.model.guard.replica import at_rest, private
from viscircuits.model.guard.untouched import same_random_state, untouched
from viscircuits.model.instrument import computing_first_outputs_last
from viscircuits.model.ops import concrete, in_attention, is_random, kernel_op, op_name, origin
from viscircuits.model.output import chosen, named_leaves
from viscircuits.model.trial import Tried, again, tried

_Graphs = dict[tuple[tuple[int, ...], bool], NetGraph]
_cache: "weakref.WeakKeyDictionary[nn.Module, list[tuple[object, _Graphs]]]" = weakref.WeakKeyDictionary()
_KEPT = 4
"""States of a model whose graphs are kept: hooks come and go."""


@checked
@clean
def trace(model: nn.Module, input_shape: Iterable[int], *, any_batch: bool = False) -> NetGraph:
    """Returns the network graph of a model for one image shape ``(c, h, w)``; kept in memory per model and shape.

    With ``any_batch`` the number of images stays symbolic, so that the graph itself can be run (extraction needs it).

    Raises:
        ModelError: the model is in training mode.
        UnsupportedOperation: the model cannot be followed, or uses its weights in a way that has no rule.
    """
    check_evaluation_mode(model)
    shape = tuple(input_shape)
    signature = _signature(model)
    if (graph := _known(model, signature).get((shape, any_batch))) is not None:
        return graph
    with lock:
        known = _known(model, signature)
        others = [(one, graphs) for one, graphs in _cache.get(model, []) if one != signature]
        _cache[model] = [(signature, known), *others[: _KEPT - 1]]
        if (shape, any_batch) not in known:  # another thread may have traced it meanwhile
            with at_rest(model):
                known[shape, any_batch] = _traced(model, shape, any_batch, known)
        return known[shape, any_batch]


def _known(model: nn.Module, signature: object) -> _Graphs:
    """The graphs of a model as it is now."""
    return next((graphs for before, graphs in _cache.get(model, []) if before == signature), {})


def check_evaluation_mode(model: nn.Module) -> None:
    """Raises a `ModelError` that names the first module in training mode, or says why the model is no plain module."""
    check_plain(model)
    for name, module in model.named_modules():
        if module.training:
            where = f"its module {name!r}" if name else "the model"
            raise ModelError(f"the model must be in evaluation mode, but {where} is training; call model.eval() first")


def _signature(model: nn.Module) -> object:
    """What the graph of a model depends on: its modules (weakly), their settings, shapes of tensors, which are one."""
    modules = [(name, weakref.ref(module), _settings(module)) for name, module in model.named_modules()]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    first: dict[int, str] = {}
    tied = [first.setdefault(id(t), name) for name, t in tensors]
    hooks = [_weakly(hook) for hook in _hooks_of_all()]
    return modules, hooks, tied, [(name, tuple(t.shape), t.dtype, t.device) for name, t in tensors]


def _settings(module: nn.Module) -> list[tuple[str, object]]:
    """Attributes that are plain values (a stride, a flag that a forward branches on), and functions: hooks, patches."""
    settings: list[tuple[str, object]] = []
    for name, value in vars(module).copy().items():  # another thread may be writing to it
        if isinstance(value, _PLAIN):
            settings.append((name, value))
        elif callable(value) and not isinstance(value, nn.Module):
            settings.append((name, _weakly(value)))
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        if not _is_ours(hook):
            settings.append(("a hook", _weakly(hook)))
    return settings


_PLAIN = (bool, int, float, str, tuple)


def _is_ours(hook: Any) -> bool:
    """Whether a hook is that of a run of ours, as it stands on a model that has no replica."""
    function = hook.func if isinstance(hook, partial) else hook
    return str(getattr(function, "__module__", "")).startswith("viscircuits.")


def _weakly(function: object) -> object:
    """What is equal for one function alone, and does not keep it."""
    if isinstance(function, MethodType):
        return function.__func__, _weakly(function.__self__)
    try:
        return id(function), weakref.ref(function)
    except TypeError:
        return id(function)


def _traced(model: nn.Module, shape: tuple[int, ...], any_batch: bool, known: _Graphs) -> NetGraph:
    """The graph, after the model was run for real; what its forward stores on it meanwhile is put back."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with quiet(), same_random_state(device) as drawn, torch.no_grad(), _guard(model, shape, any_batch):
        # before the export, so that what it makes once and keeps elsewhere are real tensors
        with untouched(model), torch.inference_mode(False):
            found = _again(model, shape, any_batch, known) if known else tried(model, shape)
        with untouched(model):
            exported, ways = _export(model, shape, any_batch)
        graph = _build(model, shape, exported, ways, found._replace(fault=_randomness(exported) or found.fault))
        drawn.by_another = not graph.fault
        return graph


def _again(model: nn.Module, shape: tuple[int, ...], any_batch: bool, known: _Graphs) -> Tried:
    """What is known of a model that was tried before, at this size."""
    alike, first = known.get((shape, not any_batch)), next(iter(known.values()))
    if alike is None:
        return again(model, shape, first.fault)
    return Tried(alike.memory_format, first.fault, frozenset(la.weight for la in alike.layers.values() if la.scored))


@contextmanager
def _guard(model: nn.Module, shape: tuple[int, ...], any_batch: bool) -> Iterator[None]:
    """Says in our words what the model, the exporter or the reading of its graph stumbled on."""
    try:
        yield
    except ViscircuitsError:
        raise
    except (Exception, SystemExit) as error:  # scripts end with sys.exit
        for fix in _fixes(model, error):
            raise UnsupportedOperation(
                f"the model cannot be traced on images of shape {shape}: {_stumbled(error)}. {fix}"
            ) from error
        hint = ", nor fixes the number of images (as len(x) does; take x.shape[0])" if any_batch else ""
        raise UnsupportedOperation(
            f"the model cannot be traced on images of shape {shape}: {_stumbled(error)}. "
            f"Check that model(images) runs at this size and does not branch on the values of a tensor{hint}"
        ) from error


def _fixes(model: nn.Module, error: BaseException) -> Iterator[str]:
    """What to do about what a model is known to stumble on, the likeliest first."""
    frames = traceback.extract_tb(error.__traceback__)
    exported = any(f"{os.sep}export{os.sep}" in frame.filename for frame in frames)
    if any(f"torchvision{os.sep}transforms{os.sep}" in frame.filename for frame in frames):
        found = [name for name, module in model.named_modules() if "transforms" in type(module).__module__]
        where = f" ({', '.join(map(repr, found))}, {type(model.get_submodule(found[0])).__name__})" if found else ""
        yield f"One of torchvision's transforms{where} stands in the model; it belongs into prepare, before the model"
    hooked = [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    places = [repr(name) if name else "the model" for name in hooked[:4]]
    places += ["every module (torch.nn.modules.module.register_module_forward_hook)"] if _hooks_of_all() else []
    if (exported or "numpy" in str(error)) and places:
        yield (
            f"Somebody's hook on {', '.join(places)} may do so (one that turns activations into numpy arrays does); "
            f"remove it, or check that model(images) does not branch on the values of a tensor"
        )
    if not exported and _takes_something_else(model, error):
        yield (
            "A model is called as model(images), with one tensor [n, c, h, w]; where yours takes more, or something "
            "else, give a module whose forward(images) calls it"
        )
    if not exported and re.search(r"\b(size|sizes|height|width|shape|shapes|dimension)\b", str(error)):
        yield "Give pictures of a size that the model takes (on the command line --input-size)"
    for part in ("backbone", "encoder", "body"):
        if isinstance(getattr(model, part, None), nn.Module):
            yield (
                f"Its part model.{part} may do: give that as the model, or check that model(images) runs at this size "
                f"and does not branch on the values of a tensor"
            )


def _hooks_of_all() -> list[Any]:
    """Hooks that torch runs on every module there is."""
    every = (*of_all._global_forward_hooks.values(), *of_all._global_forward_pre_hooks.values())
    return [hook for hook in every if not _is_ours(hook)]


def _takes_something_else(model: nn.Module, error: BaseException) -> bool:
    """Whether a forward cannot be called with one thing, or takes it for something other than a tensor."""
    try:
        inspect.signature(model.forward).bind(None)
    except (TypeError, ValueError):
        return True
    return isinstance(error, KeyError | AttributeError | IndexError)


def _stumbled(error: BaseException) -> str:
    """The line of the model's own code at which an error arose; what was said there, if not by the exporter."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = max((place for place, frame in enumerate(frames) if frame.filename.startswith(_HERE)), default=-1)
    own = [frame for frame in frames[ours + 1 :] if f"{os.sep}torch{os.sep}" not in frame.filename]
    where = f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""
    if any(f"{os.sep}export{os.sep}" in frame.filename for frame in frames):
        return f"it does something{where} that has no fixed graph"
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"run on them, it fails{where} with {type(error).__name__}: {first[:200]}"


_HERE = str(Path(__file__).parents[1])


def _export(
    model: nn.Module, shape: tuple[int, ...], any_batch: bool
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """The program of a model for two images, in-place writes made functional; and where the tensors it gives were."""
    example = _example(model, shape)
    with exporting(example.device), unheard("torch"):
        ways: list[str] = []
        with private(model, _copied(model)) as mine:
            module = mine.module
            with computing_first_outputs_last(module), _giving(module, ways):
                sizes = _any_number(module) if any_batch else None
                exported = torch.export.export(module, (example,), dynamic_shapes=sizes, strict=False)
        if any("wrap_with_autocast" in str(node.target) for node in exported.graph.nodes):
            raise UnsupportedOperation(
                "the model's forward switches torch.autocast on or off, so that its numbers are not "
                "those of its own weights; "
                "take autocast out of the forward (it belongs around training), or give the model in "
                "the precision you mean, "
                "as model.bfloat16()"
            )
        # without the tables of decompositions, convolutions, linear maps and norms stay what they are
        return exported.run_decompositions({}), ways


@contextmanager
def _giving(module: nn.Module, ways: list[str]) -> Iterator[None]:
    """While it lasts, a model gives a tuple of tensors, and tells where they were: an export takes no other objects."""
    own, before = module.forward, vars(module).get("forward")

    @wraps(own)
    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        output = own(*args, **kwargs)
        leaves = named_leaves(output)
        if not leaves:
            raise ModelError(
                f"no tensor was found in the {type(output).__name__} that the model returns; let it return tensors, "
                f"alone or in tuples, lists, dicts and dataclasses"
            )
        ways[:] = leaves
        return tuple(leaves.values())

    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = before


def _copied(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers that were made in inference mode, which torch.export does not take."""
    parameters = {name: nn.Parameter(p.clone()) for name, p in model.named_parameters() if p.is_inference()}
    return parameters | {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_inference()}


def _any_number(model: nn.Module) -> Any:
    """What tells torch.export that the number of images is not fixed; a forward may take them as ``*args``."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    images = {0: torch.export.Dim("n", min=1)}
    return ((images,),) if first is not None and first.kind is first.VAR_POSITIONAL else (images,)


def _build(
    model: nn.Module, shape: tuple[int, ...], exported: torch.export.ExportedProgram, ways: Sequence[str], found: Tried
) -> NetGraph:
    signature = exported.graph_signature
    nodes = tuple(exported.graph.nodes)
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    canonical = _canonical_names(model)
    parameters = {placeholder: canonical[name] for placeholder, name in names.items()}
    constants = _constants(exported)
    axes = channel_axes(nodes)
    layers, kernel_calls, refused = _kernel_layers(model, nodes, parameters, axes, found.called)
    modules = dict(model.named_modules(remove_duplicate=False))
    outputs = _outputs(nodes, axes, _final(exported, ways, axes), _first_names(modules.items()))
    silent = modules.keys() - {name.partition("@")[0] for name in outputs}
    return NetGraph(
        shape,
        layers,
        outputs,
        frozenset(silent),
        nodes,
        constants,
        parameters,
        kernel_calls,
        axes,
        found.layout,
        refused=refused,
        fault=found.fault,
    )


def _example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Two blank images, on the model's device and in its floating type."""
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(2, *shape, dtype=reference.dtype, device=reference.device)


def _constants(exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = exported.graph_signature
    tensors = {**exported.state_dict, **exported.constants}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= signature.inputs_to_lifted_tensor_constants
    return {placeholder: tensors[name].detach() for placeholder, name in named.items() if name in tensors}


def _randomness(exported: torch.export.ExportedProgram) -> str:
    """Names a random operation on which what the model returns depends, if there is one."""
    asked: set[fx.Node] = set()
    for node in reversed(exported.graph.nodes):
        if node.op == "output" or node in asked:
            asked.update(node.all_input_nodes)
            if node.op == "call_function" and is_random(node):
                return (
                    f"the model is random: {op_name(node)} in {origin(node)} draws anew in every run, in evaluation "
                    f"mode too; switch it off (functional dropout needs training=self.training)"
                )
    return ""


def _kernel_layers(
    model: nn.Module,
    nodes: tuple[fx.Node, ...],
    parameters: Mapping[str, str],
    axes: Mapping[fx.Node, int],
    called: frozenset[str],
) -> tuple[dict[str, KernelLayer], dict[fx.Node, str], dict[fx.Node, str]]:
    """The kernel layers, the nodes that call them, and those that use a weight that is not stored, with the reason."""
    layers: dict[str, KernelLayer] = {}
    calls: dict[fx.Node, str] = {}
    refused: dict[fx.Node, str] = {}
    for node in nodes:
        if kernel_op(node) is None or not image_inputs(node, axes):
            continue
        weight, bias = node.args[1], (node.args[2] if len(node.args) > 2 else None)
        if not isinstance(weight, fx.Node) or weight.name not in parameters or bias in axes:
            if not (in_attention(node) and image_inputs(node, axes) == [*node.args[:1]]):  # carries signals only
                refused[node] = _not_stored(node, parameters)
            continue
        layer = _layer(model, node, parameters, called)
        first = layers.setdefault(layer.name, layer)
        if layer is not first:
            if replace(layer, bias=first.bias, calls=first.calls) != first:
                raise UnsupportedOperation(
                    f"{op_name(node)} in {origin(node)} reads the weight {layer.weight!r} in another way ({layer.op}, "
                    f"{layer.groups} groups) than an earlier call ({first.op}, {first.groups} groups); kernels need "
                    f"one meaning: give each call a weight of its own"
                )
            layers[layer.name] = replace(first, calls=first.calls + 1)
        calls[node] = layer.name
    return layers, calls, refused


def _not_stored(node: fx.Node, parameters: Mapping[str, str]) -> str:
    """Why the kernels of a call cannot be told: it takes a part of a stored weight, or one made while running."""
    weight = made = node.args[1]
    while isinstance(made, fx.Node) and (op_name(made) in _PARTS or made.target is operator.getitem):
        made = made.args[0]
    if made is not weight and isinstance(made, fx.Node) and made.name in parameters:
        return (
            f"{op_name(node)} in {origin(node)} takes a part of the stored weight "
            f"{parameters[made.name]!r}, or takes it "
            f"in another layout; kernels need a weight of their own: give every part a layer"
        )
    return (
        f"{op_name(node)} in {origin(node)} computes its weight or bias while running (weight normalisation or "
        f"standardisation, a plain tensor); kernels need a stored weight: fold it into a plain layer first, or "
        f"register it as a parameter or buffer"
    )


_PARTS = frozenset({
    "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "narrow", "view", "reshape", "transpose",
    "permute", "t",
})  # fmt: skip


def _layer(model: nn.Module, node: fx.Node, parameters: Mapping[str, str], called: frozenset[str]) -> KernelLayer:
    kind, weight, bias = kernel_op(node), node.args[1], (node.args[2] if len(node.args) > 2 else None)
    assert kind is not None
    assert isinstance(weight, fx.Node)
    weight_name = parameters[weight.name]
    bias_name = parameters.get(bias.name) if isinstance(bias, fx.Node) else None
    shape = tuple(weight.meta["val"].shape)
    groups = node.args[6] if kind != "linear" and len(node.args) > 6 else 1
    assert isinstance(groups, int)
    out, width = (shape[1] * groups, shape[0] // groups) if kind == "conv_transpose" else shape[:2]
    return KernelLayer(
        weight_name.removesuffix(".weight"),
        kind,
        weight_name,
        bias_name,
        out,
        width * groups,
        groups,
        shape[2:],
        scored=weight_name in called and _trained(model, weight_name),
    )


def _trained(model: nn.Module, weight: str) -> bool:
    """Whether a weight is one of a layer of its own: not of an attention's projections, not a fixed filter."""
    owner = model.get_submodule(weight.rpartition(".")[0])
    parent = model.get_submodule(weight.rpartition(".")[0].rpartition(".")[0])
    attention = isinstance(owner, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention)
    return not attention and isinstance(getattr(owner, weight.rpartition(".")[2]), nn.Parameter)


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """Every parameter and buffer name, to the first name of the same tensor: tied weights are one layer."""
    return _first_names([*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)])


def _first_names(named: Iterable[tuple[str, object]]) -> dict[str, str]:
    first: dict[int, str] = {}
    return {name: first.setdefault(id(thing), name) for name, thing in named}


def _outputs(
    nodes: tuple[fx.Node, ...], axes: Mapping[fx.Node, int], final: Mapping[str, fx.Node], modules: Mapping[str, str]
) -> dict[str, Output]:
    """A module's output is the last tensor computed while it, and its current call, stand on the module stack."""
    last: dict[tuple[str, str], fx.Node] = {}
    for node in nodes:
        value = node.meta.get("val")
        if node not in axes or node.op != "call_function" or not isinstance(value, Tensor) or value.ndim < 2:
            continue
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            if path:
                last[path, _call(key)] = node
    calls: dict[str, list[fx.Node]] = {}
    for (path, _), node in last.items():  # a module may stand under several names
        calls.setdefault(modules[path], []).append(node)
    named = {f"{p}@{i}" if len(c) > 1 else p: node for p, c in calls.items() for i, node in enumerate(c)}
    return {
        name: Output(node, tuple(node.meta["val"].shape[1:]) or (1,), axes[node] if node.meta["val"].ndim > 1 else 1)
        for name, node in {**named, **final}.items()
        if concrete(node.meta["val"].shape[:1]) == (2,)  # the image axis comes first
    }


def _final(
    exported: torch.export.ExportedProgram, ways: Sequence[str], axes: Mapping[fx.Node, int]
) -> dict[str, fx.Node]:
    """The tensors that the model returns, by the names of `viscircuits.model.output`, and its output proper."""
    by_name = {node.name: node for node in axes if isinstance(node.meta.get("val"), Tensor)}
    returned = zip(ways, exported.graph_signature.user_outputs, strict=True)
    parts = {way: by_name[leaf] for way, leaf in returned if leaf in by_name}
    proper = chosen(list(parts))
    if proper is not None:
        parts[OUTPUT] = parts.pop(proper)
    return parts


def _call(stack_key: str) -> str:
    return stack_key.partition("@")[2] or "0"
