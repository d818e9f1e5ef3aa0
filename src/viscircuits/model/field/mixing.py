"""What a place reads where an operation computes: element by element, over whole axes, products of matrices.

Weights and activations play no part, so nothing can cancel or be dead. Windows are in
`viscircuits.model.field.sliding`, what only moves numbers in `viscircuits.model.field.moving`.
"""

from collections.abc import Sequence

from torch import fx

from viscircuits.model import ops
from viscircuits.model.field.places import Call, Demand, Places, Requests, everything, inside, unsupported
from viscircuits.model.field.sliding import of_groups
from viscircuits.model.nodes import argument, arguments, op_name, reduced_axes, shape_of, source


def pointwise(call: Call) -> Requests:
    """A place reads its own place of each input."""
    for operand in call.inputs:
        yield operand, _broadcast(shape_of(operand), call.demand, call.shape)


def overwritten(call: Call) -> Requests:
    """What is written takes the place of what was there."""
    for operand in call.inputs:
        if operand in call.node.args[1:]:
            yield operand, _broadcast(shape_of(operand), call.demand, call.shape)


def _broadcast(sizes: Sequence[int], demand: Demand, shape: Sequence[int]) -> Demand:
    """A demand on the result of broadcasting, asked of one that may have been repeated along some axes."""
    skipped = len(demand) - len(sizes)
    pairs = zip(sizes, demand[skipped:], shape[skipped:], strict=True)
    return tuple(_repeated(size, places, n) for size, places, n in pairs)


def _repeated(size: int, places: Places, n: int) -> Places:
    """A demand along an axis of size n, asked of an axis that is repeated where its size is another."""
    if size == n:
        return places
    # of another size is only an axis along which two tensors are compared: all of it is read
    return Places(frozenset({0})) if size == 1 else everything(size)


def mixed_axes(node: fx.Node) -> set[int]:
    """Returns the axes along which an operation reads everything, for those whose output has its input's axes."""
    name, rank = op_name(node), len(shape_of(source(node)))
    if name == "linear":
        return {rank - 1}
    if name in ops.LAST_AXES_NORMS:
        return set(range(rank - len(arguments(node)[1]), rank))
    return set(range(2, rank)) if name in ops.SPACE_NORMS else set(reduced_axes(node))


def over_axes(call: Call) -> Requests:
    """Linear maps, norms and softmax: everything along some axes, the same place along the others."""
    axes, sizes = mixed_axes(call.node), shape_of(call.inputs[0])
    demand = [everything(size) if axis in axes else call.demand[axis] for axis, size in enumerate(sizes)]
    if op_name(call.node) in ops.GROUP_NORMS:
        # the native form calls it otherwise
        groups = argument(call.node, "num_groups") or argument(call.node, "group")
        demand[1] = of_groups(demand[1], sizes[1] // groups, sizes[1] // groups)
    yield call.inputs[0], tuple(demand)


def gated(call: Call) -> Requests:
    """The second half of an axis gates the first."""
    axis, demand = argument(call.node, "dim") % len(call.demand), list(call.demand)
    known = inside(demand[axis], half := call.shape[axis])
    demand[axis] = Places(known.at | {i + half for i in known.at}, known.mixed)
    yield call.inputs[0], tuple(demand)


def compared(call: Call) -> Requests:
    """Two tensors are compared along one axis."""
    sizes = [shape_of(operand) for operand in call.inputs]
    axis = (argument(call.node, "dim") if op_name(call.node) == "cosine_similarity" else -1) % max(map(len, sizes))
    kept = len(call.demand) == max(map(len, sizes))
    # the compared axis put back with size 1, so that the two are broadcast against it as if it were there
    demand, shape = list(call.demand), list(call.shape)
    if not kept:
        demand.insert(axis, Places(frozenset({0})))
        shape.insert(axis, 1)
    for operand, size in zip(call.inputs, sizes, strict=True):
        yield operand, _broadcast(size, tuple(demand), shape)


def reduction(call: Call) -> Requests:
    """Sums, means and extremes over axes, which they may drop."""
    if isinstance(argument(call.node, "other"), fx.Node):  # max and min of two tensors
        yield from pointwise(call)
        return
    reduced = call.inputs[0]
    axes, sizes = set(reduced_axes(call.node)), shape_of(reduced)
    # where the reduced axes are kept with size 1, their entries say nothing and are skipped
    kept = iter([p for axis, p in enumerate(call.demand) if len(call.demand) < len(sizes) or axis not in axes])
    yield reduced, tuple(everything(size) if axis in axes else next(kept) for axis, size in enumerate(sizes))


def matrix_product(call: Call) -> Requests:
    """``A @ B``: rows of A, columns of B, everything along the axis they share; what is added, in place."""
    # what follows the matrices are factors, which are numbers
    *added, a, b = arguments(call.node)[: 3 if op_name(call.node) in ops.ADDING_PRODUCTS else 2]
    for summand in set(added) & set(call.inputs):
        yield summand, _broadcast(shape_of(summand), call.demand, call.shape)
    size_a, size_b = shape_of(a), shape_of(b)
    if min(len(size_a), len(size_b)) < 2:
        raise unsupported(call.node, "it multiplies with a vector")
    lead, rows, columns = call.demand[:-2], *call.demand[-2:]
    yield a, (*_broadcast(size_a[:-2], lead, call.shape[:-2]), rows, everything(size_a[-1]))
    yield b, (*_broadcast(size_b[:-2], lead, call.shape[:-2]), everything(size_b[-2]), columns)


def attention(call: Call) -> Requests:
    """A row asks for its own query, for all keys, and for its columns of all values."""
    query, key, value = arguments(call.node)[:3]
    lead, rows, columns = call.demand[:-2], *call.demand[-2:]
    tokens, width = shape_of(key)[-2:]
    # all keys for every row: the softmax's denominator reads each of them
    for operand, last in (
        (query, (rows, everything(width))),
        (key, (everything(tokens), everything(width))),
        (value, (everything(tokens), columns)),
    ):
        yield operand, (*_broadcast(shape_of(operand)[:-2], lead, call.shape[:-2]), *last)
    mask = argument(call.node, "attn_mask")
    if mask in call.inputs:
        raise unsupported(call.node, "its mask depends on the image")


def einsum(call: Call) -> Requests:
    """Letters of the result keep their place, the others are summed over."""
    equation, operands = arguments(call.node)[0].replace(" ", ""), arguments(call.node)[1]
    if "." in equation or "->" not in equation:
        raise unsupported(call.node, "its equation leaves axes unnamed")
    left, _, right = equation.partition("->")
    of_letter = dict(zip(right, call.demand, strict=True))
    for operand, letters in zip(operands, left.split(","), strict=True):
        sizes = zip(letters, shape_of(operand), strict=True)
        yield operand, tuple(of_letter.get(letter) or everything(size) for letter, size in sizes)
