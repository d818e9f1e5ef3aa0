"""Running somebody's model with edited weights, watching it, and leaving no trace.

Weights are edited, and outputs of modules read by forward hooks, on a replica of the user's model
(`viscircuits.model.guard.replica`), never on the modules themselves. Not here: how calls of kernel layers are seen
(`viscircuits.model.calls`), and what is made of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from threading import RLock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.calls import KernelCall, Watch, Watching, in_parts
from viscircuits.model.graph import OUTPUT, NetGraph
from viscircuits.model.guard.clean import saved_tensor_hooks
from viscircuits.model.guard.replica import at_rest, leaves_traces, private
from viscircuits.model.guard.untouched import put_back
from viscircuits.model.output import is_part, meant, module_of


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

    Raises:
        UnsupportedOperation: no number of the model can be trusted, or it takes the images of a batch in parts.
        ModelError: a module that is read puts out no tensor.
    """
    graph.check()
    wanted = set(read)
    tensors = constants(model) | dict(weights or {})
    outputs: dict[str, Tensor] = {}
    # with tied weights several names stand for one tensor; the layer knows the first
    layers = {id(tensors[layer.weight]): layer for layer in graph.layers.values() if layer.weight in tensors}
    # a mode is asked about every operation of a run, so there is none where nobody looks
    watch = (
        nullcontext()
        if see is None and not filters
        else Watch(Watching(layers, see, filters or {}, graph.input_sizes, len(images)))
    )
    back = put_back(model) if leaves_traces(model) else nullcontext()
    with private(model, tensors) as mine, back, _reading(mine.module, wanted, outputs):
        try:
            with watch:
                mine.run(images)
        except _Reached:
            pass
    missing = wanted - set(outputs)
    assert not missing, f"never ran: {sorted(missing)}"
    for name, output in outputs.items():
        if len(output) != len(images):
            raise in_parts(f"layer {name!r}" if name else "the model", len(images))
    return outputs


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's parameters, without gradients, and copies of its buffers, to which a forward may write."""
    with at_rest(model):
        tensors = {name: _usable(tensor) for name, tensor in model.named_parameters()}
        return tensors | {name: buffer.clone() for name, buffer in model.named_buffers()}


def _usable(parameter: Tensor) -> Tensor:
    """A parameter without gradients; a copy of one that was made in inference mode, which gradients cannot pass."""
    return parameter.detach().clone() if parameter.is_inference() else parameter.detach()


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
    # the newer kind of checkpointing leaves gradients on; only its hooks on what autograd keeps give it away
    hooks = saved_tensor_hooks()
    if isinstance(hooks, tuple) and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint":
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
        # groups tie the filters of a layer to slices of its input; to pick some would need other groups
        if graph.layers[name].groups == 1 and 0 < len(filters) <= len(kernels) // 2:
            needed[name] = filters
    return needed


@contextmanager
def _reading(model: nn.Module, wanted: set[str], outputs: dict[str, Tensor]) -> Iterator[None]:
    """A block in which the wanted outputs are written down, and a run ends as soon as all of them are there."""
    modules = dict(model.named_modules())
    calls: dict[str, int] = {}
    handles: list[RemovableHandle] = []

    def reader(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            call = calls[path] = calls.get(path, -1) + 1
            own = {name for name in wanted if module_of(name) == path and name in (path, f"{path}@{call}")}
            parts = {name for name in wanted if path == OUTPUT and is_part(name)}
            for name in own | parts - set(outputs):
                outputs[name] = _copy(name, output)  # a later in-place operation may overwrite the output
            if wanted <= set(outputs):
                raise _Reached

        return hook

    try:
        for path in {module_of(name) for name in wanted}:
            handles.append(modules[path].register_forward_hook(reader(path)))
        yield
    finally:  # a model without a replica is the user's own, and has to lose its hooks
        for handle in handles:
            handle.remove()


def _copy(name: str, output: object) -> Tensor:
    value = meant(name, output)
    if value is None:
        where = "the model" if name == OUTPUT or is_part(name) else f"layer {name!r}"
        raise ModelError(
            f"{where} must output a tensor (or a tuple whose first entry is one), not {type(output).__name__}"
        )
    return value.clone() if value.requires_grad else value.detach().clone()
