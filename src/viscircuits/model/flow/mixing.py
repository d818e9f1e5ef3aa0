"""How wires pass what computes: element by element, norms, reductions, products of matrices, lookups.

Each rule says what an operation mixes; `viscircuits.model.flow.wires.binary` makes 0 and 1 of it. Windows are in
`viscircuits.model.flow.pooling`, what only moves numbers in `viscircuits.model.flow.moving`.
"""

import torch
from torch import Tensor

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.flow.operation import Operation
from viscircuits.model.flow.wires import binary, joined, mixed, wires_in
from viscircuits.model.nodes import Value, argument, origin, reduced_axes


def elementwise(operation: Operation) -> Value:
    """Everything alive among the inputs is alive in the result: a gate keeps both its sources."""
    sources = wires_in([*operation.args, *operation.kwargs.values()])
    # an activation hands its wire on as it is: no copy of every map, and provenance sees that nothing was mixed
    if len(sources) == 1 and sources[0].shape == operation.shape:
        return sources[0]
    return joined(sources, operation.shape)


def batch_norm(norm: Operation) -> Value:
    """In evaluation mode a scale and a shift of each channel."""
    return norm.with_statistics(norm.args[0])


def norm_over_last_axes(norm: Operation) -> Value:
    """Layer norm mixes its normalised axes."""
    wire, sizes = norm.args[:2]
    return norm.with_statistics(mixed(wire, range(wire.ndim - len(sizes), wire.ndim)))


def group_norm(norm: Operation) -> Value:
    """Group norm mixes the channels of a group and all positions."""
    # the native form has the sizes of its input before the number of groups
    groups = norm.args[1] if norm.name == "group_norm" else norm.args[6]
    grouped = norm.args[0].unflatten(1, (groups, -1))
    return norm.with_statistics(mixed(grouped, range(2, grouped.ndim)).flatten(1, 2))


def instance_norm(norm: Operation) -> Value:
    """Instance norm mixes the positions of a channel."""
    return mixed(norm.args[0], range(2, norm.args[0].ndim))


def reduction(operation: Operation) -> Value:
    """Sums, means and extremes over axes; everything along them matters."""
    if len(operation.args) > 1 and isinstance(operation.args[1], Tensor):  # max and min of two tensors
        return elementwise(operation)
    # the reduced axes may stay, with size 1, or go: the traced shape knows
    wire = binary(operation.args[0].mean(reduced_axes(operation.node))).reshape(operation.shape)
    return operation.with_indices(wire)


def along_axis(operation: Operation) -> Value:
    """Softmax, sorting and their like mix one axis, of which they may keep a part only."""
    axes = tuple(reduced_axes(operation.node))
    return operation.with_indices(binary(operation.args[0].mean(axes, keepdim=True)).expand(*operation.shape))


def gated(operation: Operation) -> Value:
    """The second half of an axis gates the first."""
    values, gates = operation.args[0].chunk(2, argument(operation.node, "dim"))
    return binary(values + gates)


def compared(operation: Operation) -> Value:
    """Two tensors are compared along one axis."""
    # pairwise_distance has no argument for its axis
    axis = argument(operation.node, "dim") if operation.name == "cosine_similarity" else -1
    whole = torch.broadcast_shapes(operation.args[0].shape, operation.args[1].shape)
    both = torch.stack([wire.expand(whole) for wire in wires_in(operation.args[:2])]).sum(0)
    return binary(both.mean(axis, keepdim=True)).reshape(operation.shape)


def unpooled(operation: Operation) -> Value:
    """Values of one map are put where its indices say: anywhere."""
    both = torch.stack(wires_in(operation.args[:2])).sum(0)
    space = 2 if operation.name == "max_unpool2d" else 3
    return mixed(both, range(both.ndim - space, both.ndim), operation.shape)


def warped(operation: Operation) -> Value:
    """Any place of a map may be looked up at any other; where, all channels are told alike."""
    shape = operation.shape
    if operation.name == "affine_grid_generator":
        matrix = operation.args[0]
        # every number of an image's matrix moves every place of its grid
        whole = mixed(matrix, range(1, matrix.ndim))[(..., *[0] * (matrix.ndim - 1))]
        return whole.view(-1, *[1] * (len(shape) - 1)).expand(*shape)
    picture, grid = operation.args[:2]
    sources = []
    if wires_in(picture):
        sources.append(picture.mean(tuple(range(2, picture.ndim)), keepdim=True))
    if wires_in(grid):
        sources.append(grid.mean(-1)[:, None])
    return joined(sources, shape)


def matrix_product(operation: Operation) -> Value:
    """``A @ B``: a row of A reaches its row of the result, a column of B its column; what is added stays in place."""
    a, b = operation.args[-2:]
    parts = wires_in(operation.args[:-2])
    # B may be a vector; then the axis of columns is not there and rows stand last
    if isinstance(a, Tensor) and a.requires_grad:
        parts.append(a.mean(-1, keepdim=True) if b.ndim > 1 else a.mean(-1))
    if isinstance(b, Tensor) and b.requires_grad:
        parts.append(b.mean(-2, keepdim=True) if b.ndim > 1 else b.mean(-1))
    return joined(parts, operation.shape)


def by_constant(operation: Operation) -> Value:
    """A linear map whose weight is no kernel: one within attention, which carries signals.

    Raises:
        UnsupportedOperation: the weight is computed from the image, so that it carries signals as well.
    """
    if wires_in(operation.args[1:]):
        raise UnsupportedOperation(
            f"{operation.name} in {origin(operation.node)} has a weight that depends on the image"
        )
    wire = operation.args[0]
    return mixed(wire, [wire.ndim - 1], operation.shape)


def attention(operation: Operation) -> Value:
    """Queries reach their own row, keys everything, values their own column."""
    query, key, value = operation.args[:3]
    # a key reaches all rows through the softmax's denominator, and with it every column
    reach = [query.mean(-1, keepdim=True), key.mean((-1, -2), keepdim=True), value.mean(-2, keepdim=True)]
    return joined([wire for wire in reach if wire.requires_grad], operation.shape)


def einsum(operation: Operation) -> Value:
    """Each operand reaches what its own letters reach."""
    equation, operands = operation.args[0], operation.args[1]
    # One operand at a time, all others ones: else a dead partner would hide what an operand could reach. Divided by
    # its size, sums over letters stay below one.
    ones = [torch.ones(operand.shape, dtype=torch.float32, device=operand.device) for operand in operands]
    parts = [
        torch.einsum(equation, [*ones[:i], operand / operand.numel(), *ones[i + 1 :]])
        for i, operand in enumerate(operands)
        if operand.requires_grad
    ]
    return binary(torch.stack(parts).sum(0))
