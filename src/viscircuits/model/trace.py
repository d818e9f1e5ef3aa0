"""From somebody's module to a `NetGraph`, through `torch.export`.

The exported graph gives the topology only; every number viscircuits reports comes from running the user's own module.
`torch.export` is called with ``strict=False`` (plain Python runs as it is) and with two images, which also suits models
that refuse one; then in-place writes are made functional, because a write through a view is invisible otherwise.
"""

import operator
import warnings
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.graph import OUTPUT, KernelLayer, NetGraph, Output
from viscircuits.model.instrument import computing_first_outputs_last

_CONV = {"conv1d", "conv2d", "conv3d"}
_CONV_TRANSPOSE = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_LAYER_NORM = {"layer_norm", "native_layer_norm"}
_RESHAPES = {"view", "reshape", "flatten", "unflatten"}
PERMUTATIONS = {"permute", "transpose"}

_Graphs = dict[tuple[tuple[int, ...], bool], NetGraph]
_cache: "weakref.WeakKeyDictionary[nn.Module, tuple[object, _Graphs]]" = weakref.WeakKeyDictionary()


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
    before, known = _cache.get(model, (None, {}))
    if before != signature:
        _cache[model] = signature, (known := {})
    if (shape, any_batch) not in known:
        known[shape, any_batch] = _build(model, shape, _export(model, shape, any_batch))
    return known[shape, any_batch]


def check_evaluation_mode(model: nn.Module) -> None:
    """Raises a `ModelError` that names the first module in training mode, if there is one."""
    for name, module in model.named_modules():
        if module.training:
            where = f"its module {name!r}" if name else "the model"
            raise ModelError(f"the model must be in evaluation mode, but {where} is training; call model.eval() first")


def op_name(node: fx.Node) -> str:
    """Returns the bare name of an exported operation: ``conv2d`` for ``aten.conv2d.default``."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else getattr(node.target, "__name__", str(node.target))


def origin(node: fx.Node) -> str:
    """Returns where an operation comes from: the module's dotted name and the line of source."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    trace_lines = [line for line in (node.meta.get("stack_trace") or "").splitlines() if "File " in line]
    outside_torch = [line for line in trace_lines if "/torch/nn/" not in line] or trace_lines
    place = outside_torch[-1].strip().split(", in ")[0] if outside_torch else "unknown line"
    return f"module {module or '(the model itself)'!r}, {place}"


def _signature(model: nn.Module) -> object:
    """What the graph of a model depends on: its modules (weakly), their settings, the shapes of its tensors."""
    modules = [(name, weakref.ref(module), _settings(module)) for name, module in model.named_modules()]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return modules, [(name, tuple(t.shape), t.dtype, t.device) for name, t in tensors]


def _settings(module: nn.Module) -> list[tuple[str, object]]:
    """Attributes that are plain values: a stride, a flag that a forward branches on."""
    return [(k, v) for k, v in vars(module).items() if isinstance(v, bool | int | float | str | tuple)]


def _export(model: nn.Module, shape: tuple[int, ...], any_batch: bool) -> torch.export.ExportedProgram:
    example = _example(model, shape)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            sizes = ({0: torch.export.Dim("n", min=1)},) if any_batch else None
            with computing_first_outputs_last(model):
                exported = torch.export.export(model, (example,), dynamic_shapes=sizes, strict=False)
            # without the tables of decompositions, convolutions, linear maps and norms stay what they are
            return exported.run_decompositions({})
        except Exception as error:
            hint = ", nor fixes the number of images (as len(x) does; take x.shape[0])" if any_batch else ""
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UnsupportedOperation(
                f"the model cannot be traced on images of shape {shape}: {type(error).__name__}: {first[:300]}. "
                f"Check that model(images) runs at this size and does not branch on the values of a tensor{hint}"
            ) from error


def _build(model: nn.Module, shape: tuple[int, ...], exported: torch.export.ExportedProgram) -> NetGraph:
    signature = exported.graph_signature
    nodes = tuple(exported.graph.nodes)
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    canonical = _canonical_names(model)
    parameters = {placeholder: canonical[name] for placeholder, name in names.items()}
    constants = _constants(exported)
    axes = _channel_axes(nodes)
    layers, kernel_calls = _kernel_layers(model, nodes, parameters, axes)
    modules = dict(model.named_modules(remove_duplicate=False))
    outputs = _outputs(nodes, axes, signature.user_outputs, _first_names(modules.items()))
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
        _memory_format(model, shape),
    )


@torch.no_grad()
def _memory_format(model: nn.Module, shape: tuple[int, ...]) -> torch.memory_format:
    """Channels last where the model runs on it: convolutions are up to four times as fast there on a CPU.

    A model that calls ``view`` on an activation may refuse; it then runs on the ordinary layout.
    """
    if len(shape) != 3:
        return torch.contiguous_format
    try:
        own = {name: buffer.clone() for name, buffer in model.named_buffers()}  # a forward may write to them
        with torch.random.fork_rng(devices=[]):
            functional_call(model, own, (_example(model, shape).contiguous(memory_format=torch.channels_last),))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


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


def _kernel_layers(
    model: nn.Module, nodes: tuple[fx.Node, ...], parameters: Mapping[str, str], axes: Mapping[fx.Node, int]
) -> tuple[dict[str, KernelLayer], dict[fx.Node, str]]:
    layers: dict[str, KernelLayer] = {}
    calls: dict[fx.Node, str] = {}
    for node in nodes:
        if kernel_op(node) is None or not _image_inputs(node, axes):
            continue
        weight, bias = node.args[1], (node.args[2] if len(node.args) > 2 else None)
        if not isinstance(weight, fx.Node) or weight.name not in parameters or bias in axes:
            raise UnsupportedOperation(
                f"{op_name(node)} in {origin(node)} computes its weight or bias while running (weight normalisation or "
                f"standardisation, a plain tensor); kernels need a stored weight: fold it into a plain layer first, or "
                f"register it as a parameter or buffer"
            )
        layer = _layer(model, node, parameters)
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
    return layers, calls


def kernel_op(node: fx.Node) -> str | None:
    """Returns the kind of kernel layer a node is ("conv", "conv_transpose", "linear"), or None."""
    if node.op != "call_function" or node.target is operator.getitem:
        return None
    name = op_name(node)
    return (
        "conv"
        if name in _CONV
        else "conv_transpose"
        if name in _CONV_TRANSPOSE
        else "linear"
        if name == "linear"
        else None
    )


def _layer(model: nn.Module, node: fx.Node, parameters: Mapping[str, str]) -> KernelLayer:
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
        scored=_trained(model, weight_name),
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
    nodes: tuple[fx.Node, ...], axes: Mapping[fx.Node, int], final: Iterable[object], modules: Mapping[str, str]
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
    by_name = {node.name: node for node in axes}
    if (first := next(iter(final), None)) in by_name:
        named[OUTPUT] = by_name[str(first)]
    return {
        name: Output(node, tuple(node.meta["val"].shape[1:]), axes[node])
        for name, node in named.items()
        if concrete(node.meta["val"].shape[:1]) == (2,)  # the image axis comes first
    }


def concrete(shape: Iterable[int | torch.SymInt]) -> tuple[int, ...]:
    """Returns a shape in numbers, with two images where their number is symbolic."""
    return tuple(size if isinstance(size, int) else int(size.node.hint) for size in shape)  # pyright: ignore


def _call(stack_key: str) -> str:
    return stack_key.partition("@")[2] or "0"


def _channel_axes(nodes: tuple[fx.Node, ...]) -> dict[fx.Node, int]:
    """Which axis of each tensor holds the channels: 1, unless a linear map, a norm or a move put them elsewhere."""
    axes: dict[fx.Node, int] = {}
    image = next(node for node in reversed(nodes) if node.op == "placeholder")
    for node in nodes:
        inputs = _image_inputs(node, axes)
        if node is image or inputs:
            axes[node] = _channel_axis(node, inputs, axes)
    return axes


def _image_inputs(node: fx.Node, axes: Mapping[fx.Node, int]) -> list[fx.Node]:
    """The tensors among a node's inputs that depend on the image; the size of one does not."""
    return [n for n in node.all_input_nodes if n in axes and isinstance(n.meta.get("val"), Tensor | tuple | list)]


def _channel_axis(node: fx.Node, inputs: list[fx.Node], axes: Mapping[fx.Node, int]) -> int:
    arguments: Any = node.args
    rank = len(_shape(node))
    axis = next((axes[n] for n in inputs if len(_shape(n)) == rank), 1)
    name = op_name(node)
    if name == "linear" or (name in _LAYER_NORM and len(arguments[1]) == 1):
        return rank - 1
    if kernel_op(node) is not None:
        return 1
    if name in PERMUTATIONS:
        return moved_axis(node, axis)
    if name in _RESHAPES and inputs:  # channels that stand last stay there when other axes are split or joined
        before = _shape(inputs[0])
        if 1 < axes[inputs[0]] == len(before) - 1 and before[-1] == _shape(node)[-1]:
            return rank - 1
    lost = len(_shape(inputs[0])) - rank if inputs and arguments[:1] == (inputs[0],) else 0
    if lost > 0 and isinstance(node.target, torch._ops.OpOverload):
        gone, before = reduced_axes(node), axes[inputs[0]]
        if len(gone) == lost and before not in gone:  # a mean or a choice along other axes
            return before - sum(a < before for a in gone)
    return axis


def moved_axis(node: fx.Node, axis: int) -> int:
    """Returns where an axis of its input stands after one of the `PERMUTATIONS`."""
    arguments: Any = node.args
    rank = len(_shape(node))
    if op_name(node) == "permute":
        return [d % rank for d in arguments[1]].index(axis)
    a, b = (d % rank for d in arguments[1:3])
    return {a: b, b: a}.get(axis, axis)


def reduced_axes(node: fx.Node) -> list[int]:
    """Returns the axes that a reduction, or a softmax and its like, runs over."""
    operation: Any = node.target
    names = [argument.name for argument in operation._schema.arguments]
    place = names.index("dim") if "dim" in names else len(node.args)
    axes: Any = node.args[place] if place < len(node.args) else node.kwargs.get("dim")
    source: Any = node.args[0]
    rank = len(_shape(source))
    return [a % rank for a in ([axes] if isinstance(axes, int) else axes or range(rank))]


def _shape(node: fx.Node) -> tuple[int | torch.SymInt, ...]:
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, Tensor) else ()
