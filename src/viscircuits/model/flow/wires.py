"""How reachability travels through one operation: the rules, one a family of operations.

A *wire* is a 0/1 tensor with the activation's own shape: "does anything alive reach this element". Data movement then
runs natively on it and autograd supplies its adjoint, so channel shuffles, flattening, windows and attention heads need
no rule. What mixes elements is made of means and sums of non-negative numbers, where "alive" is "greater than zero";
`binary` brings the result back to 0/1, forwards and backwards, before it can under- or overflow.

Constants (parameters, positional encodings, index tables) have no wire: they are evaluated and stay plain values.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.nn import functional

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.field.windows import Window, windows
from viscircuits.model.graph import KernelLayer
from viscircuits.model.ops import PERMUTATIONS, argument, concrete, op_name, origin, reduced_axes

Value = Any  # what a node holds: a wire, a constant tensor, a number, a tuple of them
Rule = Callable[[fx.Node, list[Value], dict[str, Value]], Value]


class _Binary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wire: Tensor) -> Tensor:
        return (wire > 0).to(wire.dtype)

    @staticmethod
    def backward(ctx: Any, need: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (need > 0).to(need.dtype)


def binary(wire: Tensor) -> Tensor:
    """Returns the wire as 0 and 1; its adjoint does the same to what is needed."""
    return _Binary.apply(wire)  # pyright: ignore[reportReturnType]


@dataclass
class KernelUse:
    """One call of a kernel layer: which kernels may carry anything, and (filled backwards) which do."""

    layer: KernelLayer
    connect: Tensor  # Bool[out, in/g]
    used: Tensor  # Bool[out, in/g]: connected, fed by something alive, and needed


class _Kernels(torch.autograd.Function):
    """``alive_out[o] = any over kernels (o, i) of connect & alive_in[i]``, and its transpose for what is needed."""

    @staticmethod
    def forward(ctx: Any, wire: Tensor, use: KernelUse, shape: Sequence[int]) -> Tensor:
        axis = wire.ndim - 1 if use.layer.op == "linear" else 1
        alive = any_but(wire, axis).cpu()  # masks live on the CPU, wires on the model's device
        fed = use.connect & alive[use.layer.sources]
        ctx.use, ctx.fed, ctx.axis, ctx.wire_shape = use, fed, axis, wire.shape
        return _spread(fed.any(1), shape, axis, wire)

    @staticmethod
    def backward(ctx: Any, need: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        use: KernelUse = ctx.use
        needed = any_but(need, need.ndim - 1 if use.layer.op == "linear" else 1).cpu()
        use.used |= ctx.fed & needed[:, None]
        asks = use.connect & needed[:, None]
        asked = torch.zeros(use.layer.in_channels, dtype=torch.float32).index_add_(
            0, use.layer.sources.flatten(), asks.flatten().float()
        )
        return _spread(asked > 0, ctx.wire_shape, ctx.axis, need), None, None


@contextmanager
def recording() -> Iterator[None]:
    """A block in which wires can be told from constants, whatever the caller switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class _OneKernel(torch.autograd.Function):
    """The same for a layer of a single kernel, element by element."""

    @staticmethod
    def forward(ctx: Any, wire: Tensor, use: KernelUse) -> Tensor:
        ctx.use, ctx.fed = use, use.connect & bool((wire != 0).any())
        return wire * use.connect.item()

    @staticmethod
    def backward(ctx: Any, need: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.use.used |= ctx.fed & bool((need != 0).any())
        return need * ctx.use.connect.item(), None


def kernels(node: fx.Node, wire: Tensor, use: KernelUse) -> Tensor:
    """Returns the wire behind a call of a kernel layer; a later backward pass records the kernels that were used.

    What stands along the other axes are positions, of which all reach all; but of a single kernel's input they may be
    the channels of something else (as in efficient channel attention), so that it reaches its windows only.
    """
    if use.layer.op == "conv" and use.layer.n_kernels == 1:
        return _OneKernel.apply(_within_windows(node, wire), use)  # pyright: ignore[reportReturnType]
    return _Kernels.apply(wire, use, _shape(node))  # pyright: ignore[reportReturnType]


def any_but(tensor: Tensor, axis: int) -> Tensor:
    """Returns, for each place along an axis, whether anything there is not zero."""
    for other, stride in enumerate(tensor.stride()):
        if stride == 0 and other != axis % tensor.ndim:  # expanded: all the same
            tensor = tensor.narrow(other, 0, 1)
    return (tensor != 0).movedim(axis, 0).flatten(1).any(1)


def _spread(channels: Tensor, shape: Sequence[int], axis: int, like: Tensor) -> Tensor:
    view = [1] * len(shape)
    view[axis] = -1
    return channels.to(like).view(view).expand(*shape)


def _mixed(wire: Tensor, axes: Sequence[int], shape: Sequence[int] | None = None) -> Tensor:
    """Anything alive along the axes reaches everything along them."""
    mean = wire.mean(tuple(axes), keepdim=True) if axes else wire
    return binary(mean).expand(*(shape if shape is not None else wire.shape))


def _shape(node: fx.Node, item: int = 0) -> tuple[int, ...]:
    value = node.meta["val"]
    return concrete((value[item] if isinstance(value, tuple | list) else value).shape)


def wires_in(values: Value) -> list[Tensor]:
    """Returns the wires in a value, however deep in tuples, lists and dicts."""
    flat: list[Value] = []
    map_aggregate(values, flat.append)
    return [v for v in flat if isinstance(v, Tensor) and v.requires_grad]


# ---- the families ----------------------------------------------------------------------------------------------------


def _elementwise(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Everything alive among the inputs is alive in the result: a gate keeps both its sources."""
    shape = _shape(node)
    sources = wires_in([*args, *kwargs.values()])
    return (
        sources[0]
        if len(sources) == 1 and sources[0].shape == shape
        else binary(torch.stack([s.expand(*shape) for s in sources]).sum(0))
    )


def _pooled(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """A pool reaches its windows, along whatever axes these lie: neighbouring channels, where it is told so."""
    wire = _within_windows(node, args[0])
    return (wire, wire) if isinstance(node.meta["val"], tuple | list) else wire


def _within_windows(node: fx.Node, wire: Tensor) -> Tensor:
    """Anything alive in a window reaches the place that the window gives."""
    along = windows(node)
    axes = range(wire.ndim - len(along), wire.ndim)
    if all(wire.stride(axis) == 0 for axis in axes):  # the same everywhere, as behind a kernel layer: no need to look
        return _mixed(wire, axes, _shape(node))
    if all(w.dilation == 1 and w.before == w.after for w in along):
        taps, strides, before = ([w[i] for w in along] for i in range(3))
        return binary(_MEANS[len(along)](wire, taps, strides, before, ceil_mode=any(w.ceil for w in along)))
    for axis, window in zip(axes, along, strict=True):
        if (window.taps, window.stride, window.before, window.after) != (1, 1, 0, 0):
            wire = _windowed(wire, axis, window)
    return binary(wire)


_MEANS: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def _windowed(wire: Tensor, axis: int, window: Window) -> Tensor:
    """The mean over each of the windows along one axis; what they hold beyond the ends is nothing."""
    span, count = window.dilation * (window.taps - 1) + 1, window.count(wire.shape[axis])
    beyond = (count - 1) * window.stride + span - wire.shape[axis] - window.before
    borders = [0, 0] * (wire.ndim - 1 - axis) + [window.before, beyond]  # a negative border cuts off what none reads
    return functional.pad(wire, borders).unfold(axis, span, window.stride)[..., :: window.dilation].mean(-1)


def _over_space(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Resizing mixes positions, along the axes whose size changes."""
    shape = _shape(node)
    changed = [axis for axis, (a, b) in enumerate(zip(args[0].shape, shape, strict=True)) if a != b]
    return _mixed(args[0], changed, shape)


def _adaptive_pool(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Place o of n holds the places ``floor(o size / n)`` to ``ceil((o + 1) size / n)``."""
    wire = args[0]
    for axis, n in enumerate(_shape(node)):
        if (size := wire.shape[axis]) == n:
            continue
        if n == 1:
            wire = wire.mean(axis, keepdim=True)
            continue
        place, o = torch.arange(size)[:, None], torch.arange(n)
        held = (place >= o * size // n) & (place < -(-(o + 1) * size // n))
        wire = (wire.movedim(axis, -1) @ (held / size).to(wire)).movedim(-1, axis)
    wire = binary(wire)
    return (wire, wire) if isinstance(node.meta["val"], tuple | list) else wire


def _normalised_axes(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Layer norm mixes its normalised axes."""
    wire = _mixed(args[0], range(args[0].ndim - len(args[1]), args[0].ndim))
    return (wire, None, None) if isinstance(node.meta["val"], tuple | list) else wire


def _group_norm(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Group norm mixes the channels of a group and all positions."""
    groups = args[1] if op_name(node) == "group_norm" else args[6]
    grouped = args[0].unflatten(1, (groups, -1))
    wire = _mixed(grouped, range(2, grouped.ndim)).flatten(1, 2)
    return (wire, None, None) if isinstance(node.meta["val"], tuple | list) else wire


def _instance_norm(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    return _mixed(args[0], range(2, args[0].ndim))


def _batch_norm(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """In evaluation mode a scale and a shift of each channel."""
    return (args[0], None, None) if isinstance(node.meta["val"], tuple | list) else args[0]


def _reduction(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Sums, means and extremes over axes; everything along them matters."""
    if len(args) > 1 and isinstance(args[1], Tensor):  # max and min of two tensors
        return _elementwise(node, args, kwargs)
    result = binary(args[0].mean(reduced_axes(node))).reshape(_shape(node))
    return (result, result) if isinstance(node.meta["val"], tuple | list) else result


def _along_axis(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Softmax, sorting and their like mix one axis, of which they may keep a part only."""
    axes = reduced_axes(node)
    mixed = binary(args[0].mean(tuple(axes), keepdim=True)).expand(*_shape(node))
    return (mixed, mixed) if isinstance(node.meta["val"], tuple | list) else mixed


def _gated(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """The second half of an axis gates the first."""
    values, gates = args[0].chunk(2, argument(node, "dim"))
    return binary(values + gates)


def _compared(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Two tensors are compared along one axis."""
    axis = argument(node, "dim") if op_name(node) == "cosine_similarity" else -1
    whole = torch.broadcast_shapes(args[0].shape, args[1].shape)
    joined = torch.stack([wire.expand(whole) for wire in wires_in(args[:2])]).sum(0)
    return binary(joined.mean(axis, keepdim=True)).reshape(_shape(node))


def _unpooled(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Values of one map are put where its indices say: anywhere."""
    joined = torch.stack(wires_in(args[:2])).sum(0)
    lead = 2 if op_name(node) == "max_unpool2d" else 3
    return _mixed(joined, range(joined.ndim - lead, joined.ndim), _shape(node))


def _warped(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Any place of a map may be looked up at any other; where, all channels are told alike."""
    shape, sources = _shape(node), []
    if op_name(node) == "affine_grid_generator":
        return _mixed(args[0], range(1, args[0].ndim))[(..., *[0] * (args[0].ndim - 1))].view(
            -1, *[1] * (len(shape) - 1)
        ).expand(*shape)  # fmt: skip
    picture, grid = args[:2]
    if wires_in(picture):
        sources.append(picture.mean(tuple(range(2, picture.ndim)), keepdim=True).expand(*shape))
    if wires_in(grid):
        sources.append(grid.mean(-1)[:, None].expand(*shape))
    return binary(torch.stack(sources).sum(0))


def _folded(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Patches are put side by side, and add up where they overlap."""
    operation: Any = node.target
    return binary(operation(*args, **kwargs))


def _matrix_product(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """``A @ B``: a row of A reaches its row of the result, a column of B its column; what is added stays in place."""
    shape = _shape(node)
    a, b = args[-2:]
    parts = wires_in(args[:-2])
    if isinstance(a, Tensor) and a.requires_grad:
        parts.append(a.mean(-1, keepdim=True) if b.ndim > 1 else a.mean(-1))
    if isinstance(b, Tensor) and b.requires_grad:
        parts.append(b.mean(-2, keepdim=True) if b.ndim > 1 else b.mean(-1))
    return binary(torch.stack([p.expand(*shape) for p in parts]).sum(0))


def _by_constant(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """A linear map whose weight is no kernel: one within attention, which carries signals."""
    if wires_in(args[1:]):
        raise UnsupportedOperation(f"{op_name(node)} in {origin(node)} has a weight that depends on the image")
    return _mixed(args[0], [args[0].ndim - 1], _shape(node))


def _attention(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Queries reach their own row, keys everything, values their own column."""
    query, key, value = args[:3]
    shape = _shape(node)
    reach = [query.mean(-1, keepdim=True), key.mean((-1, -2), keepdim=True), value.mean(-2, keepdim=True)]
    return binary(torch.stack([r.expand(*shape) for r in reach if r.requires_grad]).sum(0))


def _einsum(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Each operand reaches what its own letters reach."""
    equation, operands = args[0], args[1]
    ones = [torch.ones(operand.shape, dtype=torch.float32, device=operand.device) for operand in operands]
    parts = [
        torch.einsum(equation, [*ones[:i], operand / operand.numel(), *ones[i + 1 :]])
        for i, operand in enumerate(operands)
        if operand.requires_grad
    ]
    return binary(torch.stack(parts).sum(0))


def _created(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """A new tensor takes only its shape from a wire."""
    operation: Any = node.target
    return operation(args[0].detach(), *args[1:], **dead_kwargs(kwargs))


def _copied(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """What is copied takes the place of what was there."""
    source = args[1] if wires_in(args[1:]) else torch.zeros((), dtype=torch.float32, device=args[0].device)
    return source.expand(*_shape(node))


def _joined(parts: list[Tensor], dim: int = 0) -> Tensor:
    """The concatenation; where every part is the same along an axis it stays so, and later rules need not look."""
    n = parts[0].ndim
    same = [a for a in range(n) if a != dim % n and all(p.ndim == n and p.stride(a) == 0 for p in parts)]
    if not same:
        return torch.cat(parts, dim)
    shape = [parts[0].shape[a] if a in same else -1 for a in range(n)]
    for axis in same:
        parts = [p.narrow(axis, 0, 1) for p in parts]
    return torch.cat(parts, dim).expand(shape)


def _native(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Data movement runs as it is; constants it moves along have nothing alive."""
    operation: Any = node.target
    name = op_name(node)
    if name in {"view", "_unsafe_view"}:  # a wire may be laid out differently from the activation
        return args[0].reshape(args[1])

    def dead(value: Value) -> Value:
        if isinstance(value, list | tuple):
            return type(value)(dead(v) for v in value)
        floating = isinstance(value, Tensor) and not value.requires_grad and value.is_floating_point()
        return torch.zeros_like(value, dtype=torch.float32) if floating else value

    if name in {"cat", "concat"}:
        return _joined(dead(list(args[0])), *args[1:], **dead_kwargs(kwargs))
    if name in {"constant_pad_nd", "pad"}:  # the border is a constant
        args = [*args[:2], *([0.0] if name == "constant_pad_nd" else args[2:3])]
        if name == "pad" and (len(args) < 3 or args[2] == "constant"):
            args = [*args[:2], "constant", 0.0]
    return operation(*dead(list(args)), **dead_kwargs(kwargs))


def dead_kwargs(kwargs: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the keyword arguments that data movement understands on a wire."""
    return {k: v for k, v in kwargs.items() if k not in {"dtype", "device", "layout", "memory_format", "pin_memory"}}


def _same(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    return args[0]


_FAMILIES: dict[Rule, str] = {
    _same: "clone contiguous dropout feature_dropout alpha_dropout native_dropout _to_copy to detach alias "
    "lift_fresh_copy _assert_tensor_metadata",
    _elementwise: "relu relu6 gelu silu sigmoid hardsigmoid hardswish hardtanh tanh mish elu selu celu "
    "leaky_relu softplus softsign hardshrink softshrink threshold log_sigmoid prelu _prelu_kernel "
    "rrelu_with_noise abs neg exp log log1p expm1 sqrt rsqrt square pow reciprocal sin cos erf clamp "
    "clamp_min clamp_max sign round floor ceil add sub rsub mul div maximum minimum addcmul addcdiv lerp "
    "where masked_fill logaddexp atan bernoulli nan_to_num logical_not gt lt ge le eq ne fill "
    "clip isnan isinf isfinite isposinf isneginf log2 log10 exp2 sinh cosh tan asin acos asinh acosh "
    "atanh atan2 arctan2 "
    "remainder fmod frac trunc fix erfc erfinv hypot logit xlogy special_xlogy multiply divide true_divide "
    "subtract absolute negative positive sgn signbit rrelu logical_and logical_or logical_xor logaddexp2 "
    "lgamma digamma i0 special_i0 sinc copysign greater less greater_equal less_equal not_equal arctan "
    "float_power fmax fmin deg2rad rad2deg",
    _pooled: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices "
    "max_pool3d_with_indices",
    _adaptive_pool: "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d",
    _over_space: "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_trilinear3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact3d upsample_bilinear2d upsample_bicubic2d "
    "_upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa lp_pool2d",
    _normalised_axes: "layer_norm native_layer_norm rms_norm _fused_rms_norm",
    _group_norm: "group_norm native_group_norm",
    _instance_norm: "instance_norm",
    _batch_norm: "batch_norm _native_batch_norm_legit_no_training native_batch_norm _batch_norm_no_update "
    "cudnn_batch_norm",
    _reduction: "mean sum amax amin max min var std norm linalg_vector_norm logsumexp prod var_mean std_mean "
    "median nanmedian kthvalue mode nanmean nansum any all count_nonzero",
    _along_axis: "softmax _softmax log_softmax _log_softmax cumsum cumprod cummax cummin logcumsumexp sort topk",
    _gated: "glu",
    _compared: "cosine_similarity pairwise_distance",
    _unpooled: "max_unpool2d max_unpool3d",
    _warped: "grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator",
    _folded: "col2im",
    _matrix_product: "matmul bmm mm mv baddbmm addmm",
    _by_constant: "linear",
    _attention: "scaled_dot_product_attention",
    _einsum: "einsum",
    _copied: "copy",
    _created: "sym_size sym_numel new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like",
    _native: "view _unsafe_view reshape flatten unflatten permute transpose t numpy_T movedim swapaxes cat "
    "concat stack hstack vstack slice select split split_with_sizes chunk unbind narrow expand expand_as "
    "squeeze unsqueeze repeat roll flip rot90 constant_pad_nd pad reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _pad_circular index index_select "
    "gather pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle slice_scatter select_scatter "
    "im2col unfold repeat_interleave view_as diagonal tile tensor_split tril triu scatter index_copy",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES.items() for name in names.split()}

REDUCTIONS = frozenset(_FAMILIES[_reduction].split())
JOINS = frozenset(_FAMILIES[_elementwise].split())
_SPACE: set[Rule] = {_pooled, _adaptive_pool, _over_space, _instance_norm}
OVER_SPACE = frozenset(name for rule in _SPACE for name in _FAMILIES[rule].split())
_ASSEMBLES = {"cat", "concat", "stack", "hstack", "vstack", "slice_scatter", "select_scatter", "index", "gather"} | {
    "scatter", "index_copy",
}  # fmt: skip


def keeps_zero(node: fx.Node) -> bool:
    """Whether an operation leaves zeros zero and apart from what else there is: no activation, sum or concatenation."""
    families = {_same, _native, _batch_norm, *_SPACE}
    return node.target is operator.getitem or (RULES.get(op_name(node)) in families and op_name(node) not in _ASSEMBLES)


def keeps_channels(node: fx.Node) -> bool:
    """Whether an operation treats every channel alone and in place (a reduction only where it spares the channels)."""
    families = {_same, _elementwise, _reduction, *_SPACE}
    return RULES.get(op_name(node)) in families or op_name(node) in PERMUTATIONS


def step(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Returns what a node other than a kernel layer holds, given what its inputs hold; constants are computed."""
    if node.target is operator.getitem:
        return args[0][args[1]]
    operation: Any = node.target
    if not wires_in((args, kwargs)):
        return operation(*args, **kwargs)
    rule = RULES.get(op_name(node))
    if rule is None:
        raise UnsupportedOperation(
            f"no rule for the operation {op_name(node)!r} ({origin(node)}); which channels it connects is unknown. "
            f"If it acts on each channel alone, replace it by an equal standard operation, or report it"
        )
    try:
        return rule(node, args, kwargs)
    except (RuntimeError, IndexError, TypeError) as error:  # say an index that depends on the image
        raise UnsupportedOperation(
            f"cannot follow channels through this use of {op_name(node)!r} ({origin(node)}): {str(error)[:200]}"
        ) from error
