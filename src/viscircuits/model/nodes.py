"""Reading one operation of an exported graph: its name, where it comes from, its arguments, its shape, its axes.

Torch types what a node holds as nearly anything. What is known of an argument (that the first one is a tensor's node,
that a list stands second) is said once, by the function that is asked for it. Not here: which operations have what in
common (`viscircuits.model.ops`), and what becomes of a signal in one (`viscircuits.model.flow`).
"""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from viscircuits.model import ops

Value = Any
"""What a node holds, or takes, when a graph is run: a tensor, a number, a list or tuple of them, a type, None."""


def op_name(node: fx.Node) -> str:
    """Returns the bare name of an exported operation: ``conv2d`` for ``aten.conv2d.default``."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else getattr(node.target, "__name__", str(node.target))


def origin(node: fx.Node) -> str:
    """Returns where an operation comes from: the module's dotted name and the line of source."""
    trace_lines = [line for line in (node.meta.get("stack_trace") or "").splitlines() if "File " in line]
    # a layer's own forward is torch's; who called it is what a user can find
    outside_torch = [line for line in trace_lines if "/torch/nn/" not in line] or trace_lines
    place = outside_torch[-1].strip().split(", in ")[0] if outside_torch else "unknown line"
    return f"module {module_name(node) or '(the model itself)'!r}, {place}"


def module_name(node: fx.Node) -> str | None:
    """Returns the dotted name of the innermost module of an operation; empty for the model's own, None if unknown."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return stack[-1][0] if stack else None


def in_attention(node: fx.Node) -> bool:
    """Whether an operation is one of an `nn.MultiheadAttention`'s own."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return bool(stack) and str(stack[-1][1]).rpartition(".")[2].startswith("MultiheadAttention")


def kernel_op(node: fx.Node) -> str | None:
    """Returns the kind of kernel layer a node is ("conv", "conv_transpose", "linear"), or None."""
    if node.op != "call_function" or node.target is operator.getitem:
        return None
    kinds = {"conv": ops.CONVS, "conv_transpose": ops.TRANSPOSED_CONVS, "linear": ops.LINEAR}
    return next((kind for kind, names in kinds.items() if op_name(node) in names), None)


def keeps_zero(node: fx.Node) -> bool:
    """Whether an operation leaves zeros zero and apart from what else there is: no activation, sum or concatenation."""
    return node.target is operator.getitem or op_name(node) in ops.KEEPS_ZERO


def keeps_channels(node: fx.Node) -> bool:
    """Whether an operation treats every channel alone and in place (a reduction only where it spares the channels)."""
    return op_name(node) in ops.KEEPS_CHANNELS


def is_random(node: fx.Node) -> bool:
    """Whether an operation draws random numbers: by torch's own tag, and by its switch where it has one."""
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    given = {name: argument(node, name) for name in argument_names(node)}
    switch = next((given[name] for name in ("train", "training") if name in given), True)
    share = next((given[name] for name in ("p", "dropout_p") if name in given), 1.0)
    return switch is not False and bool(share != 0)


def function(node: fx.Node) -> Callable[..., Value]:
    """Returns what an operation calls."""
    assert callable(node.target)
    return node.target


def to_run(node: fx.Node) -> Callable[..., Value]:
    """Returns what to call for a node: its operation, but for images that may be laid out otherwise than the example.

    A reshape is exported as a view where the example's memory allowed it.
    """
    views = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
    return torch.ops.aten.reshape.default if node.target in views else function(node)


def arguments(node: fx.Node) -> tuple[Value, ...]:
    """Returns the positional arguments of an operation, as they stand in the graph."""
    return node.args


def source(node: fx.Node) -> fx.Node:
    """Returns the node that an operation takes first: the tensor that it treats."""
    first = node.args[0]
    assert isinstance(first, fx.Node), f"{op_name(node)} starts with a list or a number"
    return first


def filled(node: fx.Node, value: Callable[[fx.Node], Value]) -> tuple[tuple[Value, ...], dict[str, Value]]:
    """Returns an operation's arguments, positional and named, with a value in place of each node among them."""
    return filled_in(node.args, value), filled_in(dict(node.kwargs), value)


def filled_in(given: Value, value: Callable[[fx.Node], Value]) -> Value:
    """Returns the same of any arguments, however deep nodes stand in them."""
    return map_arg(given, value)


def argument_names(node: fx.Node) -> list[str]:
    """Returns the names of all arguments that an operation has, in order."""
    return [known.name for known in _schema(node).arguments]


def argument(node: fx.Node, name: str) -> Value:
    """Returns an argument of an operation by its name, its default where it was left out, None where it has no such."""
    for place, known in enumerate(_schema(node).arguments):
        if known.name == name:
            return node.args[place] if place < len(node.args) else node.kwargs.get(name, known.default_value)
    return None


def _schema(node: fx.Node) -> torch.FunctionSchema:
    """Overloads have one; it is asked only of operations that a rule knows, never of ``getitem``."""
    return getattr(node.target, "_schema")  # noqa: B009


def leading_to(ends: Iterable[fx.Node]) -> set[fx.Node]:
    """Returns the nodes from which some are computed, these included."""
    leading: set[fx.Node] = set()
    ahead = list(ends)
    while ahead:
        node = ahead.pop()
        if node not in leading:
            leading.add(node)
            ahead += node.all_input_nodes
    return leading


def concrete(shape: Iterable[int | torch.SymInt]) -> tuple[int, ...]:
    """Returns a shape in numbers: two images where their number is symbolic, -1 where values decide (``y[y > 0]``)."""
    return tuple(size if isinstance(size, int) else _hint(size) for size in shape)


def _hint(size: torch.SymInt) -> int:
    return -1 if size.node.hint is None else int(size.node.hint)


def shape(node: fx.Node) -> tuple[int | torch.SymInt, ...]:
    """Returns the shape of a node's value, or of the first of several; symbolic where the number of images is."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def shape_of(node: fx.Node, item: int = 0) -> tuple[int, ...]:
    """Returns the shape of a node, or of one of its outputs, in numbers."""
    value = node.meta["val"]
    return concrete((value[item] if isinstance(value, tuple | list) else value).shape)


def rank(node: fx.Node) -> int:
    """Returns the number of axes of what a node holds; 0 where that is no tensor."""
    value = node.meta["val"]
    return value.ndim if isinstance(value, Tensor) else 0


def has_several_outputs(node: fx.Node) -> bool:
    """Whether an operation gives a tuple: a norm with its statistics, a pool with its indices."""
    return isinstance(node.meta["val"], tuple | list)


def moved_axis(node: fx.Node, axis: int) -> int:
    """Returns where an axis of its input stands after one of the `viscircuits.model.ops.PERMUTATIONS`."""
    rank = len(shape(node))
    if op_name(node) == "permute":
        return [d % rank for d in arguments(node)[1]].index(axis)
    a, b = (d % rank for d in arguments(node)[1:3])
    return {a: b, b: a}.get(axis, axis)


def reduced_axes(node: fx.Node) -> list[int]:
    """Returns the axes that a reduction, or a softmax and its like, runs over."""
    axes = argument(node, "dim") if "dim" in argument_names(node) else None
    rank = len(shape(source(node)))
    # no axes named means all of them, also as an empty list
    return [a % rank for a in ([axes] if isinstance(axes, int) else axes or range(rank))]
