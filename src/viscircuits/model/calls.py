"""Calls of kernel layers, seen where they happen: in `torch.nn.functional`.

Kernels are used in functions, not in modules. By the function, and the identity of the weight that it is given, a call
is seen wherever it stands: functional calls, modules that are used twice and every padding mode need no case of their
own. Not here: running a model (`viscircuits.model.instrument`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.graph import KernelLayer

CallKind = tuple[str, tuple[int, ...], torch.dtype]
"""What two calls have in common: the kind of layer, the shape of the weight, the type of the output."""

_FUNCTIONS: dict[Callable[..., object], str] = {
    torch.conv1d: "conv",
    torch.conv2d: "conv",
    torch.conv3d: "conv",
    torch.conv_transpose1d: "conv_transpose",
    torch.conv_transpose2d: "conv_transpose",
    torch.conv_transpose3d: "conv_transpose",
    torch.nn.functional.linear: "linear",
}
_TENSORS = ("input", "weight", "bias")
# the two kinds have their last arguments in different orders
_CONV_ARGUMENTS = (*_TENSORS, "stride", "padding", "dilation", "groups")
_TRANSPOSE_ARGUMENTS = (*_TENSORS, "stride", "padding", "output_padding", "groups", "dilation")


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


@dataclass(frozen=True)
class Watching:
    """What is looked for in a run.

    Attributes:
        layers: by the identity of the weight as the run has it.
        see: called with every call of a scored layer; returns the output to go on with.
        filters: layer -> the only filters to compute; the others put out zero.
        sizes: layer -> how many numbers its calls take for one image.
        n_images: images in the batch.
    """

    layers: Mapping[int, KernelLayer]
    see: Callable[[KernelCall], Tensor] | None
    filters: Mapping[str, Int[Tensor, " k"]]
    sizes: Mapping[str, frozenset[int]]
    n_images: int


class Watch(TorchFunctionMode):
    """Shows every call of a kernel layer, lets its output be replaced, and computes the wanted filters alone."""

    def __init__(self, watching: Watching) -> None:
        super().__init__()
        self.watching = watching

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        options = kwargs or {}
        kind = _FUNCTIONS.get(func)
        if kind is None:
            return func(*args, **options)
        names = _TRANSPOSE_ARGUMENTS if kind == "conv_transpose" else _CONV_ARGUMENTS
        given = dict(zip(names, args, strict=False)) | options
        x, weight, bias = (given.pop(name, None) for name in _TENSORS)
        # not by name or shape: only the very tensor that this run was given is the layer's
        layer = self.watching.layers.get(id(weight))
        if layer is None or not layer.scored or not isinstance(x, Tensor) or not isinstance(weight, Tensor):
            return func(*args, **options)
        # what a layer is given has no axis that is surely the images' (tokens, windows), so that its size has to tell
        if x.numel() not in {size * self.watching.n_images for size in self.watching.sizes[layer.name]}:
            raise in_parts(f"layer {layer.name!r}", self.watching.n_images)
        filters = self.watching.filters.get(layer.name)
        if filters is not None:
            weight, bias = layer.rows(weight, filters), bias[filters] if isinstance(bias, Tensor) else bias
        call = KernelCall(layer, x, weight, func(x, weight, bias, **given), given, func, filters)
        output = call.output if self.watching.see is None else self.watching.see(call)
        if filters is None:
            return output
        # what follows wants the whole width; the filters left out do not reach the target, so that zero is as good
        shape = list(output.shape)
        shape[call.channel_axis] = layer.out_channels
        return output.new_zeros(shape).index_copy(call.channel_axis, filters, output)


@dataclass
class Tally:
    """The calls of kernels in a run.

    Attributes:
        calls: how many there were of each kind.
        weights: those that were used, by identity; held here, so that no identity is given to another tensor meanwhile.
    """

    calls: Counter[CallKind] = field(default_factory=Counter)
    weights: dict[int, Tensor] = field(default_factory=dict)


class _Count(TorchFunctionMode):
    """Counts the calls of functions that kernel layers use, whoever makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        options = kwargs or {}
        output = func(*args, **options)
        weight = options.get("weight", args[1] if len(args) > 1 else None)
        if func in _FUNCTIONS and isinstance(weight, Tensor) and isinstance(output, Tensor):
            self.tally.calls[_FUNCTIONS[func], tuple(weight.shape), output.dtype] += 1
            self.tally.weights[id(weight)] = weight
        return output


@contextmanager
def kernel_calls() -> Iterator[Tally]:
    """Yields a tally that grows while the block lasts."""
    with _Count() as counting:
        yield counting.tally


def in_parts(where: str, n_images: int) -> UnsupportedOperation:
    """Returns the error of a model that does not take its whole batch at once, with the place where that was seen."""
    return UnsupportedOperation(
        f"{where} does not take the {n_images} images of a batch at once: the model takes them in parts, and so its "
        f"numbers would not be every image's; give the module inside that takes a whole batch"
    )
