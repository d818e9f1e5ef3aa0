"""Pieces of the graphs that `shrink` and `stem` build, and questions about the nodes of those they are built from."""

from math import prod

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, fx

from viscircuits.model import ops
from viscircuits.model.nodes import concrete, moved_axis, op_name, rank, reduced_axes

_LARGEST = 2**25 - 1
"""The largest tensor to make, in bytes. Above this, allocators fetch new memory each time, at five times the cost."""


def images_at_once(largest: int) -> int:
    """Returns how many images to run at a time, given the bytes of the largest result for one of them."""
    return max(1, _LARGEST // max(1, largest))


def even_parts(images: Float[Tensor, "n ..."], at_once: int) -> tuple[Tensor, ...]:
    """Returns the images in parts of nearly the same size, none larger than ``at_once``."""
    return images.chunk(max(1, -(-len(images) // at_once)))


def pick(x: Tensor, axis: int, places: Int[Tensor, " k"]) -> Tensor:
    """The same as ``index_select``, which is slow where channels are stored last, and forgets that they are.

    Args:
        x: any tensor.
        axis: along which to pick.
        places: what to pick, counted from 0.
    """
    if axis == 1 and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        last = x.permute(0, 2, 3, 1)
        return last.gather(3, places.expand(*last.shape[:3], -1)).permute(0, 3, 1, 2)
    return x.index_select(axis, places)


def for_each_image(value: Shaped[Tensor, "1 ..."], images: Tensor) -> Tensor:
    """Returns a constant, repeated (without a copy) for every image."""
    return value.expand(images.shape[0], *value.shape[1:])  # len() would fix the number when it is exported


def widened(x: Tensor, axis: int, places: Int[Tensor, " k"], width: int) -> Tensor:
    """Returns a tensor with more channels: what there is at some places, and zero at the others.

    Args:
        x: any tensor.
        axis: that of its channels.
        places: where its channels go.
        width: how many channels the result has.
    """
    shape = list(x.shape)
    shape[axis] = width
    return x.new_zeros(shape).index_copy(axis, places, x)


def write_in_place(graph: fx.Graph) -> None:
    """Lets activations overwrite what was made for them alone: large new blocks of memory cost more than the work."""
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        alone = isinstance(source, fx.Node) and len(source.users) == 1 and op_name(source) in ops.FRESH
        if alone and node.target is torch.ops.aten.relu.default:
            node.target = torch.ops.aten.relu_.default


def cat_axis(node: fx.Node) -> int:
    """Returns the axis along which a node concatenates."""
    axis = node.args[1] if len(node.args) > 1 else 0
    assert isinstance(axis, int)
    return axis % rank(node)


def flattens(node: fx.Node, axis: int) -> bool:
    """Whether a node makes one axis of channels, in axis 1, and positions."""
    source = node.args[0] if node.args else None
    if op_name(node) not in ops.FLATTENING or not isinstance(source, fx.Node) or axis != 1:
        return False
    before, after = concrete(source.meta["val"].shape), concrete(node.meta["val"].shape)
    return len(after) == 2 and before[0] == after[0] and prod(before) == prod(after)


def axis_after(node: fx.Node, axis: int) -> int | None:
    """Returns where the channels stand after an operation that moves or reduces axes; None if it reduces over them."""
    name = op_name(node)
    if name in ops.PERMUTATIONS:
        return moved_axis(node, axis)
    if name in ops.OVER_SPACE and axis != 1:
        return None  # the channels stand among the axes that it mixes
    if name in ops.REDUCTIONS:
        return axis if all(a > axis for a in reduced_axes(node)) else None
    return axis


_VECTOR = 8
"""What vector code takes at a time. Pooling 63 channels takes twice as long as 64."""


def rounded(rows: Int[Tensor, " k"], width: int) -> Int[Tensor, " r"]:
    """Returns the rows and a few others, to the next multiple of what vector code takes at a time.

    What the others compute is right where it depends on no image; else nothing needs it.
    """
    more = min(-len(rows) % _VECTOR, width - len(rows))
    if not more or len(rows) < _VECTOR // 2:
        return rows
    others = torch.ones(width, dtype=torch.bool).index_fill_(0, rows, False).nonzero()[:more, 0]
    return torch.cat([rows, others]).sort()[0]


def even(constant: Tensor, axis: int) -> bool:
    """Whether a map is the same at all positions."""
    positions = constant.movedim(axis, 0).flatten(1)
    return bool((positions == positions[:, :1]).all())
