"""Running somebody's model with edited weights, watching it, and leaving no trace.

This is the only file that adds hooks to modules or intercepts calls. Weights are edited, and outputs of modules read by
forward hooks, on a replica of the user's model (`viscircuits.model.guard.replica`). Calls of kernel layers are seen
where they happen, in `torch.nn.functional`, which also covers functional calls, modules that are used twice and every
padding mode.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.hooks import RemovableHandle

from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.graph import OUTPUT, KernelLayer, NetGraph
from viscircuits.model.guard.replica import at_rest, leaves_traces, private
from viscircuits.model.guard.untouched import put_back
from viscircuits.model.output import is_part, meant, module_of

_KERNEL_CALLS: dict[Callable[..., Tensor], str] = {
    torch.conv1d: "conv",
    torch.conv2d: "conv",
    torch.conv3d: "conv",
    torch.conv_transpose1d: "conv_transpose",
    torch.conv_transpose2d: "conv_transpose",
    torch.conv_transpose3d: "conv_transpose",
    torch.nn.functional.linear: "linear",
}
_CONV_ARGUMENTS = ("stride", "padding", "dilation", "groups")
_TRANSPOSE_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")


@dataclass(frozen=True)
class KernelCall:
    """One call of a kernel layer during a run: what went in, what came out, and how to repeat it.

    Attributes:
        layer: the layer whose kernels were used.
        x: its input, channels first or last as the call had it.
        weight: the weight as the run had it (masked, when the run was masked), in the module's own layout.
        output: its output, bias included.
        options: stride, padding and so on, as keyword arguments of the function.
        function: the function of `torch` that was called.
        filters: which of the layer's filters were computed, where not all were; then ``weight`` and ``output`` are
            those of these alone.
    """

    layer: KernelLayer
    x: Tensor
    weight: Tensor
    output: Tensor
    options: Mapping[str, Any]
    function: Callable[..., Tensor]
    filters: Int[Tensor, " k"] | None = None

    @property
    def channel_axis(self) -> int:
        """The axis of the output's channels."""
        return self.output.ndim - 1 if self.layer.op == "linear" else 1


class _Watch(TorchFunctionMode):
    """Shows every call of a kernel layer to ``see``, which may replace the output, and computes the wanted filters."""

    def __init__(
        self,
        layers: Mapping[int, KernelLayer],
        see: Callable[[KernelCall], Tensor] | None,
        filters: Mapping[str, Int[Tensor, " k"]],
        sizes: Mapping[str, frozenset[int]],
        n_images: int,
    ) -> None:
        super().__init__()
        self.layers, self.see, self.filters = layers, see, filters
        self.sizes, self.n_images = sizes, n_images

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = _KERNEL_CALLS.get(func)
        if kind is None:
            return func(*args, **kwargs)
        names = ("input", "weight", "bias", *(_TRANSPOSE_ARGUMENTS if kind == "conv_transpose" else _CONV_ARGUMENTS))
        given = dict(zip(names, args, strict=False)) | kwargs
        layer = self.layers.get(id(given["weight"]))
        if layer is None or not layer.scored:
            return func(*args, **kwargs)
        x, weight, bias = (given.pop(name, None) for name in ("input", "weight", "bias"))
        if x.numel() not in {size * self.n_images for size in self.sizes[layer.name]}:
            raise _in_parts(f"layer {layer.name!r}", self.n_images)
        filters = self.filters.get(layer.name)
        if filters is not None:
            weight, bias = layer.rows(weight, filters), None if bias is None else bias[filters]
        call = KernelCall(layer, x, weight, func(x, weight, bias, **given), given, func, filters)
        output = call.output if self.see is None else self.see(call)
        if filters is None:
            return output
        shape = list(output.shape)
        shape[call.channel_axis] = layer.out_channels
        return output.new_zeros(shape).index_copy(call.channel_axis, filters, output)


class _Count(TorchFunctionMode):
    """Counts the calls of functions that kernel layers use."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, tuple[int, ...], torch.dtype]] = Counter()
        self.weights: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in _KERNEL_CALLS:
            weight = (kwargs or {}).get("weight", args[1] if len(args) > 1 else None)
            self.calls[_KERNEL_CALLS[func], tuple(weight.shape), output.dtype] += 1  # pyright: ignore
            self.weights[id(weight)] = weight  # pyright: ignore[reportArgumentType]
        return output


@contextmanager
def kernel_calls() -> Iterator[tuple[Counter[tuple[str, tuple[int, ...], torch.dtype]], dict[int, Tensor]]]:
    """Yields what grows while the block lasts.

    A count of calls, by kind, shape of the weight and type of the output; and the weights, by their identity.
    """
    with _Count() as counting:
        yield counting.calls, counting.weights


class _Reached(BaseException):
    """Everything asked for has been seen; unwinds the forward. Not an `Exception`, so that no model swallows it."""


def run(
    model: nn.Module,
    graph: NetGraph,
    images: Float[Tensor, "n c h w"],
    read: Iterable[str],
    *,
    weights: Mapping[str, Tensor] | None = None,
    see: Callable[[KernelCall], Tensor] | None = None,
    filters: Mapping[str, Int[Tensor, " k"]] | None = None,
) -> dict[str, Tensor]:
    """Returns the outputs of the modules named in ``read``, computed by the user's own module, which stops there.

    Args:
        model: the user's module, in evaluation mode; its parameters take part as constants.
        graph: the model's graph.
        images: preprocessed pictures.
        read: modules to read, by name (``""`` is the model's own output).
        weights: parameters to use instead of the model's own, by full name.
        see: called with every call of a scored kernel layer; returns the output to go on with.
        filters: kernel layer -> the only filters worth computing (see `needed_filters`); the others put out zero.
    """
    graph.check()
    wanted = set(read)
    tensors = constants(model) | dict(weights or {})
    seen: dict[str, Tensor] = {}
    # with tied weights several names stand for one tensor; the layer knows the first
    watch = {id(tensors[layer.weight]): layer for layer in graph.layers.values() if layer.weight in tensors}
    watching = (
        _Watch(watch, see, filters or {}, graph.input_sizes, len(images))
        if see is not None or filters
        else nullcontext()
    )
    back = put_back(model) if leaves_traces(model) else nullcontext()
    with private(model, tensors) as mine, back, _reading(mine.module, wanted, seen):
        try:
            with watching:
                mine.run(images)
        except _Reached:
            pass
    missing = wanted - set(seen)
    assert not missing, f"never ran: {sorted(missing)}"
    for name, output in seen.items():
        if len(output) != len(images):
            raise _in_parts(f"layer {name!r}" if name else "the model", len(images))
    return seen


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's parameters, without gradients, and copies of its buffers, to which a forward may write."""
    with at_rest(model):
        tensors = {name: _usable(tensor) for name, tensor in model.named_parameters()}
        return tensors | {name: buffer.clone() for name, buffer in model.named_buffers()}


def _usable(parameter: Tensor) -> Tensor:
    """A parameter without gradients; a copy of one that was made in inference mode, which gradients cannot pass."""
    return parameter.detach().clone() if parameter.is_inference() else parameter.detach()


def _in_parts(where: str, n_images: int) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"{where} does not take the {n_images} images of a batch at once: the model takes them in parts, and so its "
        f"numbers would not be every image's; give the module inside that takes a whole batch"
    )


_one_at_a_time = RLock()


@contextmanager
def keeping_copies() -> Iterator[None]:
    """A block in which a model may write over what its gradients need: torch then keeps copies.

    For one thread at a time: whether it does so is all threads' in torch.
    """
    with _one_at_a_time, torch.autograd.graph.allow_mutation_on_saved_tensors():
        yield


def check_differentiable(layer: str) -> None:
    """Raises an `UnsupportedOperation` where a layer runs now and no gradient can come back to it.

    Checkpointed parts run a second time for their gradients, and are not seen then.
    """
    if not torch.is_grad_enabled():
        raise UnsupportedOperation(
            f"layer {layer!r} leads to the target, but the model's forward runs it without gradients (torch.no_grad, "
            f"torch.inference_mode, or activation checkpointing); take that out of the forward, or choose a criterion "
            f"without gradients (magnitude, activation)"
        )
    saving = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    if saving is not None and getattr(saving[0], "__module__", "") == "torch.utils.checkpoint":
        raise UnsupportedOperation(
            f"layer {layer!r} stands in a part of the model under activation checkpointing (torch.utils.checkpoint); "
            f"switch it off, as model.set_grad_checkpointing(False) or model.gradient_checkpointing_disable() do"
        )


def needed_filters(graph: NetGraph, relevant: Mapping[str, Bool[Tensor, "out in"]]) -> dict[str, Int[Tensor, " k"]]:
    """Returns layer -> filters with a relevant kernel, where these are few enough to be worth singling out.

    In an ungrouped layer the other filters do not reach the target, so nothing can tell whether they are computed.
    """
    needed = {}
    for name, kernels in relevant.items():
        filters = kernels.any(1).nonzero()[:, 0]
        if graph.layers[name].groups == 1 and 0 < len(filters) <= len(kernels) // 2:
            needed[name] = filters
    return needed


@contextmanager
def computing_first_outputs_last(model: nn.Module) -> Iterator[None]:
    """While it lasts, a module with several outputs copies the first at its end, so that a trace shows which it is."""

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        leaves, form = tree_flatten(output)
        if isinstance(leaves[0], Tensor) and any(isinstance(leaf, Tensor) for leaf in leaves[1:]):
            return tree_unflatten([leaves[0].clone(), *leaves[1:]], form)
        return None

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _reading(model: nn.Module, wanted: set[str], seen: dict[str, Tensor]) -> Iterator[None]:
    modules = dict(model.named_modules())
    calls: dict[str, int] = {}
    handles: list[RemovableHandle] = []

    def reader(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            call = calls[path] = calls.get(path, -1) + 1
            own = {name for name in wanted if module_of(name) == path and name in (path, f"{path}@{call}")}
            parts = {name for name in wanted if path == OUTPUT and is_part(name)}
            for name in own | parts - set(seen):
                seen[name] = _copy(name, output)  # a later in-place operation may overwrite the output
            if wanted <= set(seen):
                raise _Reached

        return hook

    try:
        for path in {module_of(name) for name in wanted}:
            handles.append(modules[path].register_forward_hook(reader(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(name: str, output: Any) -> Tensor:
    value = meant(name, output)
    if value is None:
        where = "the model" if name == OUTPUT or is_part(name) else f"layer {name!r}"
        raise ModelError(
            f"{where} must output a tensor (or a tuple whose first entry is one), not {type(output).__name__}"
        )
    return value.clone() if value.requires_grad else value.detach().clone()
