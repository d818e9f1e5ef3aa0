"""How receptive fields spread through one operation, backwards: the rules, one a family of operations.

A rule is given what is asked of an operation's output (`viscircuits.model.field.places.Call`) and says what that asks
of its inputs. Weights and activations play no part, so nothing can cancel or be dead. Operations that move values about
in a less common way, and those that have no rule, are asked themselves (`moved`, `probed`).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import torch
from torch import fx

from viscircuits.model.field.places import Asked, Call, Demand, Places, everything, inside, moved, unsupported
from viscircuits.model.field.windows import space_axes, windows
from viscircuits.model.flow.affine import CHANNEL_NORMS
from viscircuits.model.flow.wires import JOINS, REDUCTIONS
from viscircuits.model.ops import argument, concrete, op_name, reduced_axes, shape_of

# ---- windows ---------------------------------------------------------------------------------------------------------


def _of_groups(channels: Places, out: int, width: int) -> Places:
    """Channels ``width`` a group, of the groups that some of ``out`` channels a group belong to."""
    groups = {c // out for c in channels.at}
    return Places(frozenset(g * width + i for g in groups for i in range(width)))


def _windowed(call: Call) -> Asked:
    """Convolutions (also transposed) and pools."""
    along, name = windows(call.node), call.graph.kernel_calls.get(call.node)
    lead, space = list(call.demand[: -len(along)]), call.demand[-len(along) :]
    layer = call.graph.layers[name] if name is not None else None
    if layer is not None:
        lead[-1] = _of_groups(lead[-1], layer.out_channels // layer.groups, layer.shape[1])
    transposed = layer is not None and layer.op == "conv_transpose"
    reads = [
        Places(w.writers(p.at) if transposed else w.reads(p.at), p.mixed) for w, p in zip(along, space, strict=True)
    ]
    yield call.inputs[0], (*lead, *reads)


def _adaptive_pool(call: Call) -> Asked:
    """Place o of ``n`` reads ``floor(o * size / n)`` to ``ceil((o + 1) * size / n)``."""
    source = call.inputs[0]
    k = space_axes(call.node)
    space = []
    for places, n, size in zip(call.demand[-k:], call.shape[-k:], shape_of(source)[-k:], strict=True):
        ranges = [range(o * size // n, -(-(o + 1) * size // n)) for o in places.at]
        space.append(Places(frozenset(i for r in ranges for i in r), places.mixed or n == 1))
    yield source, (*call.demand[:-k], *space)


# ---- element by element, and over whole axes -------------------------------------------------------------------------


def _pointwise(call: Call) -> Asked:
    for source in call.inputs:
        yield source, _broadcast(shape_of(source), call.demand, call.shape)


def _overwritten(call: Call) -> Asked:
    """What is written takes the place of what was there."""
    for source in call.inputs:
        if source in call.node.args[1:]:
            yield source, _broadcast(shape_of(source), call.demand, call.shape)


def _broadcast(sizes: Sequence[int], demand: Demand, shape: Sequence[int]) -> Demand:
    """A demand on the result of broadcasting, asked of one that may have been repeated along some axes."""
    skipped = len(demand) - len(sizes)
    pairs = zip(sizes, demand[skipped:], shape[skipped:], strict=True)
    return tuple(
        places if size == n else Places(frozenset({0})) if size == 1 else everything(size) for size, places, n in pairs
    )


def mixed_axes(node: fx.Node) -> set[int]:
    """Returns the axes along which an operation reads everything, for those whose output has its input's axes."""
    arguments: Any = node.args
    name, rank = op_name(node), len(shape_of(arguments[0]))
    if name == "linear":
        return {rank - 1}
    if name in _LAYER_NORMS:
        return set(range(rank - len(arguments[1]), rank))
    return set(range(2, rank)) if name in _SPACE_NORMS else set(reduced_axes(node))


def _over_axes(call: Call) -> Asked:
    """Linear maps, norms and softmax: everything along some axes, the same place along the others."""
    axes, sizes = mixed_axes(call.node), shape_of(call.inputs[0])
    demand = [everything(size) if axis in axes else call.demand[axis] for axis, size in enumerate(sizes)]
    if op_name(call.node) in _GROUP_NORMS:
        groups = argument(call.node, "num_groups") or argument(call.node, "group")
        demand[1] = _of_groups(demand[1], sizes[1] // groups, sizes[1] // groups)
    yield call.inputs[0], tuple(demand)


def _gated(call: Call) -> Asked:
    """The second half of an axis gates the first."""
    axis, demand = argument(call.node, "dim") % len(call.demand), list(call.demand)
    known = inside(demand[axis], half := call.shape[axis])
    demand[axis] = Places(known.at | {i + half for i in known.at}, known.mixed)
    yield call.inputs[0], tuple(demand)


def _compared(call: Call) -> Asked:
    """Two tensors are compared along one axis."""
    sizes = [shape_of(source) for source in call.inputs]
    axis = (argument(call.node, "dim") if op_name(call.node) == "cosine_similarity" else -1) % max(map(len, sizes))
    kept = len(call.demand) == max(map(len, sizes))
    demand, shape = list(call.demand), list(call.shape)
    if not kept:
        demand.insert(axis, Places(frozenset({0})))
        shape.insert(axis, 1)
    for source, size in zip(call.inputs, sizes, strict=True):
        yield source, _broadcast(size, tuple(demand), shape)


def _reduction(call: Call) -> Asked:
    """Sums, means and extremes over axes, which they may drop."""
    if isinstance(argument(call.node, "other"), fx.Node):  # max and min of two tensors
        yield from _pointwise(call)
        return
    source = call.inputs[0]
    axes, sizes = set(reduced_axes(call.node)), shape_of(source)
    kept = iter([p for axis, p in enumerate(call.demand) if len(call.demand) < len(sizes) or axis not in axes])
    yield source, tuple(everything(size) if axis in axes else next(kept) for axis, size in enumerate(sizes))


def _matrix_product(call: Call) -> Asked:
    """``A @ B``: rows of A, columns of B, everything along the axis they share; what is added, in place."""
    arguments: Any = call.node.args
    *added, a, b = arguments[: 3 if op_name(call.node) in ("addmm", "baddbmm") else 2]
    for source in set(added) & set(call.inputs):
        yield source, _broadcast(shape_of(source), call.demand, call.shape)
    size_a, size_b = shape_of(a), shape_of(b)
    if min(len(size_a), len(size_b)) < 2:
        raise unsupported(call.node, "it multiplies with a vector")
    lead, rows, columns = call.demand[:-2], *call.demand[-2:]
    yield a, (*_broadcast(size_a[:-2], lead, call.shape[:-2]), rows, everything(size_a[-1]))
    yield b, (*_broadcast(size_b[:-2], lead, call.shape[:-2]), everything(size_b[-2]), columns)


def _attention(call: Call) -> Asked:
    """A row asks for its own query, for all keys, and for its columns of all values."""
    arguments: Any = call.node.args
    query, key, value = arguments[:3]
    lead, rows, columns = call.demand[:-2], *call.demand[-2:]
    tokens, width = shape_of(key)[-2:]
    for source, last in (
        (query, (rows, everything(width))),
        (key, (everything(tokens), everything(width))),
        (value, (everything(tokens), columns)),
    ):
        yield source, (*_broadcast(shape_of(source)[:-2], lead, call.shape[:-2]), *last)
    mask = argument(call.node, "attn_mask")
    if mask in call.inputs:
        raise unsupported(call.node, "its mask depends on the image")


def _einsum(call: Call) -> Asked:
    """Letters of the result keep their place, the others are summed over."""
    arguments: Any = call.node.args
    equation, operands = arguments[0].replace(" ", ""), arguments[1]
    if "." in equation or "->" not in equation:
        raise unsupported(call.node, "its equation leaves axes unnamed")
    left, _, right = equation.partition("->")
    asked = dict(zip(right, call.demand, strict=True))
    for source, letters in zip(operands, left.split(","), strict=True):
        sizes = shape_of(source)
        yield source, tuple(asked.get(letter) or everything(size) for letter, size in zip(letters, sizes, strict=True))


# ---- moving ----------------------------------------------------------------------------------------------------------


def permutation(node: fx.Node) -> list[int]:
    """Returns, for each axis of the result of a permutation, which axis of the input it was."""
    arguments: Any = node.args
    rank = len(shape_of(node))
    if op_name(node) == "permute":
        return [axis % rank for axis in arguments[1]]
    axes = list(range(rank))
    a, b = (axis % rank for axis in arguments[1:3]) if op_name(node) == "transpose" else (0, rank - 1)
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def _permuted(call: Call) -> Asked:
    asked = dict(zip(permutation(call.node), call.demand, strict=True))
    yield call.inputs[0], tuple(asked[axis] for axis in range(len(call.demand)))


def axis_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Returns which axes become which when a tensor is reshaped: groups of equal size, axes of size 1 left out."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    groups = []
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (short := prod(before[i] for i in a) - prod(after[i] for i in b)) != 0:
            a.append(left.pop(0)) if short < 0 else b.append(right.pop(0))
        groups.append((a, b))
    return groups


def _reshaped(call: Call) -> Asked:
    source = call.inputs[0]
    sizes = shape_of(source)
    demand = [Places(frozenset({0}))] * len(sizes)
    for before, after in axis_groups(sizes, call.shape):
        asked = [call.demand[axis] for axis in after]
        if len(before) == len(after) == 1:
            demand[before[0]] = asked[0]
            continue
        places = _unravelled(asked, [call.shape[axis] for axis in after], [sizes[axis] for axis in before])
        for axis, at in zip(before, places, strict=True):
            demand[axis] = Places(at, len(at) == sizes[axis] and any(p.mixed for p in asked))
    yield source, tuple(demand)


def _unravelled(asked: Sequence[Places], shape: Sequence[int], sizes: Sequence[int]) -> list[frozenset[int]]:
    """The indices along each axis of a block of ``sizes`` that places in a block of ``shape`` stand for."""
    known = [sorted(inside(places, size).at) for places, size in zip(asked, shape, strict=True)]
    if all(len(at) == size for at, size in zip(known, shape, strict=True)):
        return [frozenset(range(size)) for size in sizes]
    flat = torch.zeros(1, dtype=torch.long)
    for at, size in zip(known, shape, strict=True):
        flat = (flat[:, None] * size + torch.tensor(at, dtype=torch.long)).flatten()
    return [frozenset(axis.unique().tolist()) for axis in torch.unravel_index(flat, tuple(sizes))]


def _concatenated(call: Call) -> Asked:
    arguments: Any = call.node.args
    axis = (argument(call.node, "dim") or 0) % len(call.demand)
    start = 0
    for source in arguments[0]:
        size = shape_of(source)[axis]
        part = inside(Places(frozenset(i - start for i in call.demand[axis].at), call.demand[axis].mixed), size)
        yield source, (*call.demand[:axis], part, *call.demand[axis + 1 :])
        start += size


def _stacked(call: Call) -> Asked:
    arguments: Any = call.node.args
    axis = (argument(call.node, "dim") or 0) % len(call.demand)
    for i, source in enumerate(arguments[0]):
        if i in call.demand[axis].at:
            yield source, (*call.demand[:axis], *call.demand[axis + 1 :])


def _part(call: Call) -> Asked:
    """Slices, selections and the pieces of a split: some places along one axis, in order."""
    name, source, demand = op_name(call.node), call.inputs[0], list(call.demand)
    sizes = shape_of(source)
    axis = (argument(call.node, "dim") or 0) % len(sizes)
    if name in ("select", "unbind"):
        index = call.item if name == "unbind" else argument(call.node, "index") % sizes[axis]
        demand.insert(axis, Places(frozenset({index})))
    else:
        if name == "slice":
            given = argument(call.node, "start"), argument(call.node, "end"), argument(call.node, "step")
            taken = range(sizes[axis])[slice(*given)]
        else:
            pieces = [concrete(piece.shape)[axis] for piece in call.node.meta["val"]]
            taken = range([0, *accumulate(pieces)][call.item], sizes[axis])
        known = inside(demand[axis], call.shape[axis])
        demand[axis] = Places(frozenset(taken[i] for i in known.at), known.mixed and len(known.at) == sizes[axis])
    yield source, tuple(demand)


def _rolled(call: Call) -> Asked:
    arguments: Any = call.node.args
    if len(arguments) < 3 or not arguments[2]:
        yield from moved(call)
        return
    demand = list(call.demand)
    for shift, axis in zip(arguments[1], arguments[2], strict=True):
        demand[axis] = Places(frozenset((i - shift) % call.shape[axis] for i in demand[axis].at), demand[axis].mixed)
    yield call.inputs[0], tuple(demand)


def constant_padding(node: fx.Node) -> list[tuple[int, int]] | None:
    """Returns how much is put before and after each axis; None for padding with the tensor's own values."""
    if op_name(node) == "pad" and argument(node, "mode") != "constant":
        return None
    arguments: Any = node.args
    pairs = list(zip(arguments[1][::2], arguments[1][1::2], strict=True))[::-1]
    return [(0, 0)] * (len(shape_of(node)) - len(pairs)) + pairs


def _padded(call: Call) -> Asked:
    padding = constant_padding(call.node)
    if padding is None:
        yield from moved(call)
        return
    shifted = zip(call.demand, padding, strict=True)
    yield call.inputs[0], tuple(Places(frozenset(i - before for i in p.at), p.mixed) for p, (before, _) in shifted)


# ---- which rule ------------------------------------------------------------------------------------------------------

Rule = Callable[[Call], Asked]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LAYER_NORMS = _names("layer_norm native_layer_norm rms_norm _fused_rms_norm")
_GROUP_NORMS = _names("group_norm native_group_norm")
_SPACE_NORMS = _GROUP_NORMS | {"instance_norm"}
CHANNEL_BY_CHANNEL = CHANNEL_NORMS - _SPACE_NORMS | {"prelu"}
"""Operations with one constant a channel, whatever axis that is; else pointwise."""
WINDOWED = _names(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d avg_pool1d avg_pool2d avg_pool3d "
    "lp_pool2d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"
)
POINTWISE = JOINS - CHANNEL_BY_CHANNEL - {"fill"} | _names(
    "clone contiguous dropout feature_dropout alpha_dropout native_dropout _to_copy to detach alias lift_fresh_copy "
    "expand expand_as"
)
OVERWRITTEN = _names("copy fill")
CREATED = _names(
    "sym_size sym_numel new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like "
    "_assert_tensor_metadata"
)
"""Operations that take only a shape from their input."""
OVER_AXES = (
    _LAYER_NORMS | _SPACE_NORMS | _names("linear softmax _softmax log_softmax _log_softmax cumsum cumprod sort topk")
)
RESHAPES = _names("view _unsafe_view reshape flatten unflatten squeeze unsqueeze view_as")
PERMUTATIONS = _names("permute transpose t numpy_T")
PARTS = _names("slice select split split_with_sizes chunk unbind tensor_split")
CONCATENATIONS = _names("cat concat")
CONSTANT_PADDINGS = _names("constant_pad_nd pad")

_FAMILIES: dict[Rule, frozenset[str]] = {
    _windowed: WINDOWED,
    _adaptive_pool: _names(
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d"
    ),
    _pointwise: POINTWISE | CHANNEL_BY_CHANNEL,
    _overwritten: OVERWRITTEN,
    _over_axes: OVER_AXES,
    _reduction: REDUCTIONS,
    _gated: _names("glu"),
    _compared: _names("cosine_similarity pairwise_distance"),
    _matrix_product: _names("matmul bmm mm addmm baddbmm"),
    _attention: _names("scaled_dot_product_attention"),
    _einsum: _names("einsum"),
    _permuted: PERMUTATIONS,
    _reshaped: RESHAPES,
    _concatenated: CONCATENATIONS,
    _stacked: _names("stack"),
    _part: PARTS,
    _rolled: _names("roll"),
    _padded: CONSTANT_PADDINGS,
    moved: _names(
        "movedim swapaxes hstack vstack narrow repeat flip rot90 reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d _pad_circular index index_select gather pixel_shuffle "
        "pixel_unshuffle channel_shuffle native_channel_shuffle slice_scatter select_scatter im2col unfold "
        "repeat_interleave diagonal tile upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
        "upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
        "tril triu col2im upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
    ),
}
RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES.items() for name in names}
