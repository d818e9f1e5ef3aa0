"""From somebody's module to a `NetGraph`, through `torch.export`.

The exported graph gives the topology only; every number viscircuits reports comes from running the user's own module.
`torch.export` is called with ``strict=False`` (plain Python runs as it is) and with two images, which also suits models
that refuse one; then in-place writes are made functional, because a write through a view is invisible otherwise.
"""

import operator
import warnings
import weakref
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn

from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.graph import OUTPUT, KernelLayer, NetGraph, Output

_CONV = {"conv1d", "conv2d", "conv3d", "convolution"}
_CONV_TRANSPOSE = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_CHANNELS_LAST = {"linear", "layer_norm", "native_layer_norm"}

_cache: "weakref.WeakKeyDictionary[nn.Module, dict[object, NetGraph]]" = weakref.WeakKeyDictionary()


def trace(model: nn.Module, input_shape: Iterable[int], *, any_batch: bool = False) -> NetGraph:
    """Returns the network graph of a model for one image shape ``(c, h, w)``; kept in memory per model and shape.

    With ``any_batch`` the number of images stays symbolic, so that the graph itself can be run (extraction needs it).

    Raises:
        ModelError: the model is in training mode.
        UnsupportedOperation: the model cannot be followed, or uses its weights in a way that has no rule.
    """
    check_evaluation_mode(model)
    shape = tuple(input_shape)
    known = _cache.setdefault(model, {})
    key = (shape, any_batch, _signature(model))
    if key not in known:
        known[key] = _build(model, shape, _export(model, shape, any_batch))
    return known[key]


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
    modules = tuple((name, type(module)) for name, module in model.named_modules())
    tensors = tuple((name, tuple(p.shape), p.dtype, p.device) for name, p in model.named_parameters())
    return hash((modules, tensors))


def _export(model: nn.Module, shape: tuple[int, ...], any_batch: bool) -> torch.export.ExportedProgram:
    reference = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    example = torch.zeros(2, *shape, dtype=reference.dtype, device=reference.device)
    with warnings.catch_warnings(), torch.random.fork_rng(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            # without the tables of decompositions, convolutions, linear maps and norms stay what they are
            sizes = ({0: torch.export.Dim("n", min=1)},) if any_batch else None
            return torch.export.export(model, (example,), dynamic_shapes=sizes, strict=False).run_decompositions({})
        except Exception as error:
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise UnsupportedOperation(
                f"the model cannot be traced on images of shape {shape}: {type(error).__name__}: {first[:300]}. "
                f"Check that model(images) runs at this size and does not branch on the values of a tensor"
            ) from error


def _build(model: nn.Module, shape: tuple[int, ...], exported: torch.export.ExportedProgram) -> NetGraph:
    signature = exported.graph_signature
    nodes = tuple(exported.graph.nodes)
    parameters = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = _constants(exported)
    layers, kernel_calls = _kernel_layers(model, nodes, parameters)
    axes = _channel_axes(nodes)
    outputs = _outputs(nodes, axes)
    silent = {name for name, _ in model.named_modules()} - {name.partition("@")[0] for name in outputs}
    return NetGraph(shape, layers, outputs, frozenset(silent), nodes, constants, parameters, kernel_calls, axes)


def _constants(exported: torch.export.ExportedProgram) -> dict[str, Tensor]:
    signature = exported.graph_signature
    tensors = {**exported.state_dict, **exported.constants}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= signature.inputs_to_lifted_tensor_constants
    return {placeholder: tensors[name].detach() for placeholder, name in named.items() if name in tensors}


def _kernel_layers(
    model: nn.Module, nodes: tuple[fx.Node, ...], parameters: Mapping[str, str]
) -> tuple[dict[str, KernelLayer], dict[fx.Node, str]]:
    canonical = _canonical_names(model)
    layers: dict[str, KernelLayer] = {}
    calls: dict[fx.Node, str] = {}
    for node in nodes:
        kind = kernel_op(node)
        if kind is None:
            continue
        weight, bias = node.args[1], (node.args[2] if len(node.args) > 2 else None)
        if not isinstance(weight, fx.Node) or weight.name not in parameters:
            raise UnsupportedOperation(
                f"{op_name(node)} in {origin(node)} computes its weight while running (weight normalisation or "
                f"standardisation); kernels need a stored weight: fold it into a plain layer first"
            )
        weight_name = canonical[parameters[weight.name]]
        bias_name = canonical[parameters[bias.name]] if isinstance(bias, fx.Node) and bias.name in parameters else None
        name = weight_name.removesuffix(".weight")
        if name in layers:
            layer = layers[name]
            layers[name] = KernelLayer(**{**_fields(layer), "calls": layer.calls + 1})
        else:
            layers[name] = _layer(model, name, kind, weight_name, bias_name, node, weight)
        calls[node] = name
    return layers, calls


def kernel_op(node: fx.Node) -> str | None:
    """Returns the kind of kernel layer a node is ("conv", "conv_transpose", "linear"), or None."""
    if node.op != "call_function" or node.target is operator.getitem:
        return None
    name = op_name(node)
    return "conv" if name in _CONV else "conv_transpose" if name in _CONV_TRANSPOSE else "linear" if name == "linear" else None


def _layer(
    model: nn.Module, name: str, kind: str, weight_name: str, bias_name: str | None, node: fx.Node, weight: fx.Node
) -> KernelLayer:
    shape = tuple(weight.meta["val"].shape)
    position = {"conv": 6, "conv_transpose": 6, "linear": 99}[kind]
    groups = node.args[position] if len(node.args) > position else 1
    assert isinstance(groups, int)
    out, width = (shape[1] * groups, shape[0] // groups) if kind == "conv_transpose" else shape[:2]
    owner = model.get_submodule(weight_name.rpartition(".")[0])
    parent = model.get_submodule(weight_name.rpartition(".")[0].rpartition(".")[0])
    attention = isinstance(owner, nn.MultiheadAttention) or isinstance(parent, nn.MultiheadAttention)
    return KernelLayer(
        name, kind, weight_name, bias_name, out, width * groups, groups, shape[2:], scored=not attention
    )


def _fields(layer: KernelLayer) -> dict[str, object]:
    return {name: getattr(layer, name) for name in KernelLayer.__dataclass_fields__}


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """Every parameter and buffer name, to the first name of the same tensor: tied weights are one layer."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}


def _outputs(nodes: tuple[fx.Node, ...], axes: Mapping[fx.Node, int]) -> dict[str, Output]:
    """A module's output is the last tensor computed while it, and its current call, stand on the module stack."""
    last: dict[tuple[str, str], fx.Node] = {}
    for node in nodes:
        value = node.meta.get("val")
        if node not in axes or node.op != "call_function" or not isinstance(value, Tensor) or value.ndim < 2:
            continue
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            if path:
                last[path, _call(key)] = node
    final = _final_node(nodes)
    repeated = {path for path, call in last if call != "0"}
    named = {f"{path}@{call}" if path in repeated else path: node for (path, call), node in last.items()}
    if final is not None:
        named[OUTPUT] = final
    return {
        name: Output(node, tuple(node.meta["val"].shape[1:]), axes[node])
        for name, node in named.items()
        if concrete(node.meta["val"].shape[:1]) == (2,)  # the image axis comes first
    }


def concrete(shape: Iterable[int | torch.SymInt]) -> tuple[int, ...]:
    """Returns a shape in numbers, with two images where their number is symbolic."""
    return tuple(size if isinstance(size, int) else size.node.hint for size in shape)


def _call(stack_key: str) -> str:
    return stack_key.partition("@")[2] or "0"


def _final_node(nodes: tuple[fx.Node, ...]) -> fx.Node | None:
    first = nodes[-1].args[0]
    while isinstance(first, tuple | list) and first:
        first = first[0]
    return first if isinstance(first, fx.Node) else None


def _channel_axes(nodes: tuple[fx.Node, ...]) -> dict[fx.Node, int]:
    """Which axis of each tensor holds the channels: 1, unless a linear map, a norm or a permutation put it elsewhere."""
    axes: dict[fx.Node, int] = {}
    image = next(node for node in reversed(nodes) if node.op == "placeholder")
    for node in nodes:
        inputs = [n for n in node.all_input_nodes if n in axes]
        if node is image or inputs:
            axes[node] = _channel_axis(node, inputs, axes)
    return axes


def _channel_axis(node: fx.Node, inputs: list[fx.Node], axes: Mapping[fx.Node, int]) -> int:
    rank = _rank(node)
    axis = next((axes[n] for n in inputs if _rank(n) == rank), 1)
    name = op_name(node)
    if name in _CHANNELS_LAST:
        return rank - 1
    if kernel_op(node) is not None:
        return 1
    if name == "permute":
        return [d % rank for d in node.args[1]].index(axis)  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
    if name == "transpose":
        a, b = (d % rank for d in node.args[1:3])  # pyright: ignore[reportOperatorIssue]
        return {a: b, b: a}.get(axis, axis)
    return axis


def _rank(node: fx.Node) -> int:
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value.ndim if isinstance(value, Tensor) else 0
