"""What an exported operation is: its name, where it comes from, its shape, the axes that it works on."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

_CONV = {"conv1d", "conv2d", "conv3d"}
_CONV_TRANSPOSE = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
PERMUTATIONS = {"permute", "transpose"}


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


def to_run(node: fx.Node) -> Any:
    """Returns what to call for a node: its operation, but for images that may be laid out otherwise than the example.

    A reshape is exported as a view where the example's memory allowed it.
    """
    views = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
    return torch.ops.aten.reshape.default if node.target in views else node.target


def leading_to(ends: Iterable[fx.Node]) -> set[fx.Node]:
    """Returns the nodes from which some are computed, these included."""
    found: set[fx.Node] = set()
    ahead = list(ends)
    while ahead:
        node = ahead.pop()
        if node not in found:
            found.add(node)
            ahead += node.all_input_nodes
    return found


def in_attention(node: fx.Node) -> bool:
    """Whether an operation is one of an `nn.MultiheadAttention`'s own."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return bool(stack) and str(stack[-1][1]).rpartition(".")[2].startswith("MultiheadAttention")


def is_random(node: fx.Node) -> bool:
    """Whether an operation draws random numbers: by torch's own tag, and by its switch where it has one."""
    operation: Any = node.target
    if torch.Tag.nondeterministic_seeded not in getattr(operation, "tags", ()):
        return False
    names = [known.name for known in operation._schema.arguments]
    given = {name: argument(node, name) for name in names}
    switch = next((given.get(name) for name in ("train", "training") if name in names), True)
    share = next((given.get(name, 0.0) for name in ("p", "dropout_p") if name in names), 1.0)
    return switch is not False and bool(share != 0)


def concrete(shape: Iterable[int | torch.SymInt]) -> tuple[int, ...]:
    """Returns a shape in numbers: two images where their number is symbolic, -1 where values decide (``y[y > 0]``)."""
    return tuple(size if isinstance(size, int) else _hint(size) for size in shape)


def _hint(size: torch.SymInt) -> int:
    return -1 if size.node.hint is None else int(size.node.hint)


def moved_axis(node: fx.Node, axis: int) -> int:
    """Returns where an axis of its input stands after one of the `PERMUTATIONS`."""
    arguments: Any = node.args
    rank = len(shape(node))
    if op_name(node) == "permute":
        return [d % rank for d in arguments[1]].index(axis)
    a, b = (d % rank for d in arguments[1:3])
    return {a: b, b: a}.get(axis, axis)


def reduced_axes(node: fx.Node) -> list[int]:
    """Returns the axes that a reduction, or a softmax and its like, runs over."""
    operation: Any = node.target
    names = [known.name for known in operation._schema.arguments]
    axes: Any = argument(node, "dim") if "dim" in names else None
    source: Any = node.args[0]
    rank = len(shape(source))
    return [a % rank for a in ([axes] if isinstance(axes, int) else axes or range(rank))]


def shape(node: fx.Node) -> tuple[int | torch.SymInt, ...]:
    """Returns the shape of a node's value, or of the first of several."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def shape_of(node: fx.Node, item: int = 0) -> tuple[int, ...]:
    """Returns the shape of a node, or of one of its outputs."""
    value = node.meta["val"]
    return concrete((value[item] if isinstance(value, tuple | list) else value).shape)


def argument(node: fx.Node, name: str) -> Any:
    """Returns an argument of an operation by its name, its default where it was left out, None where it has no such."""
    operation: Any = node.target
    for place, known in enumerate(operation._schema.arguments):
        if known.name == name:
            return node.args[place] if place < len(node.args) else node.kwargs.get(name, known.default_value)
    return None
