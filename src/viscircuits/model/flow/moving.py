"""How wires pass what moves numbers and computes none: the operation itself moves the wire.

Constants that are moved along have nothing alive, so zeros stand for them. Which operations move is in
`viscircuits.model.ops.MOVES`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from viscircuits.model import ops
from viscircuits.model.flow.operation import Operation
from viscircuits.model.flow.wires import binary, wires_in
from viscircuits.model.nodes import Value

_FORMS = frozenset({"dtype", "device", "layout", "memory_format", "pin_memory"})
"""Arguments about how a tensor is stored. The activation's are not the wire's, which is of 32 bits wherever it is."""


def form_free(kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the keyword arguments that data movement understands on a wire."""
    return {name: value for name, value in kwargs.items() if name not in _FORMS}


def same(operation: Operation) -> Value:
    """What stays where it is."""
    return operation.args[0]


def moved(operation: Operation) -> Value:
    """Data movement runs as it is; constants it moves along have nothing alive."""
    name, args, kwargs = operation.name, operation.args, form_free(operation.kwargs)
    # a wire may be laid out differently from the activation, and a view then fails where a reshape does not
    if name in ops.VIEWS:
        return args[0].reshape(args[1])
    if name in ops.CONCATENATIONS:
        return _concatenated(_dead(list(args[0])), *args[1:], **kwargs)
    # the border is a constant, whatever its value: nothing alive
    if name == "constant_pad_nd":
        args = [*args[:2], 0.0]
    elif name == "pad":
        constant = len(args) < 3 or args[2] == "constant"
        args = [*args[:2], "constant", 0.0] if constant else args[:3]
    return operation.function(*_dead(list(args)), **kwargs)


def _dead(value: Value) -> Value:
    """Zeros for the constants among what is moved."""
    if isinstance(value, list | tuple):
        return type(value)(_dead(v) for v in value)
    # whole numbers are indices and sizes; they say where to, and are not moved
    floating = isinstance(value, Tensor) and not value.requires_grad and value.is_floating_point()
    return torch.zeros_like(value, dtype=torch.float32) if floating else value


def _constant(part: Tensor, n: int) -> set[int]:
    """The axes along which a part of n axes repeats one value; torch also takes empty parts of a single axis."""
    return {axis for axis in range(n) if part.stride(axis) == 0} if part.ndim == n else set()


def _concatenated(parts: list[Tensor], dim: int = 0) -> Tensor:
    """The concatenation; where every part is the same along an axis it stays so, and later rules need not look."""
    n = parts[0].ndim
    same = sorted(set.intersection(*(_constant(part, n) for part in parts)) - {dim % n})
    # without this a network that concatenates at every step (DenseNet) would fill whole maps and look at all of them
    if not same:
        return torch.cat(parts, dim)
    shape = [parts[0].shape[a] if a in same else -1 for a in range(n)]
    for axis in same:
        parts = [p.narrow(axis, 0, 1) for p in parts]
    return torch.cat(parts, dim).expand(shape)


def folded(operation: Operation) -> Value:
    """Patches are put side by side, and add up where they overlap."""
    return binary(operation.function(*operation.args, **operation.kwargs))


def created(operation: Operation) -> Value:
    """A new tensor takes only its shape from a wire."""
    # detached: what is made like a wire would ask for gradients and pass for one
    return operation.function(operation.args[0].detach(), *operation.args[1:], **form_free(operation.kwargs))


def copied(operation: Operation) -> Value:
    """What is copied takes the place of what was there."""
    args = operation.args
    # a constant that overwrites a wire leaves a wire without anything alive, which is a tensor of zeros
    source = args[1] if wires_in(args[1:]) else torch.zeros((), dtype=torch.float32, device=args[0].device)
    return source.expand(*operation.shape)
