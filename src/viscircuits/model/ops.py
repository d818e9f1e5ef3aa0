"""The one list of operation names: tables named by what the operations in them have in common.

Names are bare ones, as `viscircuits.model.nodes.op_name` gives them: ``conv2d`` for ``aten.conv2d.default``. A name
stands in the smallest table that it belongs to, and larger tables are unions, so that an operation which torch adds or
renames is entered once. What is done with an operation is not here: rules stand with the question that they answer
(`viscircuits.model.flow.rules`, `viscircuits.model.field.spread`, `viscircuits.model.field.extents`).
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Tables that differ by a few names stay apart on purpose: without a rule an operation is refused or probed, so that
# joining two of them changes what existing studies say. Move a name together with a test.

CONVS = _names("conv1d conv2d conv3d")
"""Kernel layers whose weight stands as ``(out, in / groups, ...)`` (`viscircuits.model.nodes.kernel_op`)."""

TRANSPOSED_CONVS = _names("conv_transpose1d conv_transpose2d conv_transpose3d")
"""Kernel layers whose weight has the input channels first."""

LINEAR = _names("linear")
"""The last axis is mapped by a matrix: a layer, or a projection within attention, which only carries signals."""

POOLS = _names(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices"
)
"""Operations that walk a window over their last axes; their window is read by `viscircuits.model.field.windows`."""

POWER_POOLS = _names("lp_pool2d")
"""A pool too, but one that channels are followed through as if it reached all positions."""

WINDOWED = CONVS | TRANSPOSED_CONVS | POOLS | POWER_POOLS
"""Everything with a window: what receptive fields and the sizes of maps are told by."""

ADAPTIVE_POOLS = _names(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d"
)
"""Pools whose windows follow from the size of the result; there is no rule for how they go along with a crop."""

RESIZES = _names(
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_trilinear3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_bilinear2d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
)
"""Interpolation: linear, along the axes whose size changes."""

BATCH_NORMS = _names(
    "batch_norm _native_batch_norm_legit_no_training native_batch_norm _batch_norm_no_update cudnn_batch_norm"
)
"""In evaluation mode a scale and a shift of each channel; compensation moves means into their running mean."""

INSTANCE_NORMS = _names("instance_norm")
"""Over all positions of one channel; with affine parameters a scale and a shift as well."""

CHANNEL_NORMS = BATCH_NORMS | INSTANCE_NORMS
"""Norms that scale and shift each channel by itself; arguments 1 to 4 are weight, bias, running mean and variance."""

LAYER_NORMS = _names("layer_norm native_layer_norm")
"""Layer norms proper. Over one axis they say where the channels stand (`viscircuits.model.axes`)."""

LAST_AXES_NORMS = LAYER_NORMS | _names("rms_norm _fused_rms_norm")
"""Norms over the last axes, as many as their second argument names."""

GROUP_NORMS = _names("group_norm native_group_norm")
"""Over all positions of a group of channels."""

SPACE_NORMS = GROUP_NORMS | INSTANCE_NORMS
"""Norms that read all positions of one image."""

MIXING_NORMS = LAST_AXES_NORMS | GROUP_NORMS
"""Norms that read other channels than the one they put out, so that no single filter can be silenced before them."""

ADDITIONS = _names("add sub")
"""With a constant, a shift: silencing a filter refuses it where it is one of each channel."""

SCALINGS = _names("mul div")
"""With a constant, a scale: zero stays zero, so that silencing a filter looks beyond it."""

PRELUS = _names("prelu _prelu_kernel")
"""Their second argument holds one number a channel, channels first, whatever the rank of what it is applied to."""

RELUS = _names("relu relu6 hardtanh threshold clamp_min")
"""Activations that are flat on one side, where no gradient of an objective starts (`viscircuits.optvis.start`)."""

IN_PLACE_RELUS = _names("relu_ relu6_ hardtanh_")
"""The same, written in place."""

FILLS = _names("fill")
"""One number everywhere; with another tensor's number, that of a join."""

COPIES = _names("copy")
"""What is copied takes the place of what was there."""

OVERWRITES = FILLS | COPIES
"""What they put out has nothing of their first input but its shape."""

ELEMENTWISE = (
    ADDITIONS
    | SCALINGS
    | PRELUS
    | RELUS
    | FILLS
    | _names(
        "gelu silu sigmoid hardsigmoid hardswish tanh mish elu selu celu leaky_relu softplus softsign hardshrink "
        "softshrink log_sigmoid rrelu_with_noise abs neg exp log log1p expm1 sqrt rsqrt square pow reciprocal sin cos "
        "erf clamp clamp_max sign round floor ceil rsub maximum minimum addcmul addcdiv lerp where masked_fill "
        "logaddexp atan bernoulli nan_to_num logical_not gt lt ge le eq ne clip isnan isinf isfinite isposinf isneginf "
        "log2 log10 exp2 sinh cosh tan asin acos asinh acosh atanh atan2 arctan2 remainder fmod frac trunc fix erfc "
        "erfinv hypot logit xlogy special_xlogy multiply divide true_divide subtract absolute negative positive sgn "
        "signbit rrelu logical_and logical_or logical_xor logaddexp2 lgamma digamma i0 special_i0 sinc copysign "
        "greater less greater_equal less_equal not_equal arctan float_power fmax fmin deg2rad rad2deg"
    )
)
"""Every place of the result depends on that place of the inputs, which are broadcast.

With several inputs that depend on the image they join signals: residual sums, gates.
"""

SIGNS = {"add": "+", "sub": "−", "rsub": "−", "mul": "×", "div": "÷", "maximum": "max", "minimum": "min"}
"""What a join is shown as in a diagram, where one sign says it."""

IDENTITIES = _names(
    "clone contiguous dropout feature_dropout alpha_dropout native_dropout _to_copy to detach alias lift_fresh_copy"
)
"""The same numbers in the same places; dropout because models are in evaluation mode."""

CHECKS = _names("_assert_tensor_metadata")
"""Nothing is computed; an input is compared with what the trace saw."""

CREATIONS = _names("sym_size sym_numel new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like")
"""They take only a shape from their input."""

EXTREMES = _names("max min")
"""Reductions, or element by element where they are given two tensors."""

REDUCTIONS = EXTREMES | _names(
    "mean sum amax amin var std norm linalg_vector_norm logsumexp prod var_mean std_mean median nanmedian kthvalue "
    "mode nanmean nansum any all count_nonzero"
)
"""Everything along some axes becomes one number, and the axes may be dropped."""

ALONG_ONE_AXIS = _names("softmax _softmax log_softmax _log_softmax cumsum cumprod sort topk")
"""They mix one axis, and keep it, or a part of it."""

RUNNING = _names("cummax cummin logcumsumexp")
"""Likewise, but without a rule for receptive fields: there they are probed."""

OVER_AXES = LINEAR | LAST_AXES_NORMS | SPACE_NORMS | ALONG_ONE_AXIS
"""A place reads everything along some axes and its own place along the others: what receptive fields go by."""

GATED = _names("glu")
"""The second half of an axis gates the first."""

COMPARISONS = _names("cosine_similarity pairwise_distance")
"""Two tensors are compared along one axis, which may be dropped."""

UNPOOLS = _names("max_unpool2d max_unpool3d")
"""Values are put where indices say: any place of the map."""

WARPS = _names("grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator")
"""Values are looked up where other values say: any place may reach any other."""

ADDING_PRODUCTS = _names("addmm baddbmm")
"""Matrix products that add their first argument, of three."""

MATRIX_PRODUCTS = ADDING_PRODUCTS | _names("matmul bmm mm")
"""``A @ B``: a row of A and a column of B give a place."""

VECTOR_PRODUCTS = _names("mv")
"""A product without columns; receptive fields have no rule for it."""

ATTENTION = _names("scaled_dot_product_attention")
EINSUM = _names("einsum")
"""Its equation says what reaches what."""

FLATTENING = _names("view reshape flatten")
"""Reshapes that can join channels with positions before a linear layer (`viscircuits.model.small.rewrite.flattens`)."""

RESHAPES = FLATTENING | _names("unflatten")
"""Reshapes behind which channels that stand last stay there (`viscircuits.model.axes`)."""

UNIT_AXES = _names("squeeze unsqueeze")
"""Axes of size 1 come and go."""

VIEWS = _names("view _unsafe_view")
"""Reshapes without a copy, which fail on what is laid out otherwise than the traced activation: a wire."""

REGROUPINGS = RESHAPES | UNIT_AXES | VIEWS | _names("view_as")
"""The numbers keep their order; axes are split and joined."""

PERMUTATIONS = _names("permute transpose")
"""Their arguments name the axes that they exchange."""

REVERSALS = _names("t numpy_T")
"""All axes in the opposite order, so that no argument names them."""

AXIS_SWAPS = _names("movedim swapaxes")
"""Axes change places; no rule is written for them, so the operation itself is asked."""

AXIS_SWAP_ALIASES = _names("moveaxis swapdims")
"""Other names of the same; wires have no rule for these."""

AXIS_MOVES = RESHAPES | UNIT_AXES | VIEWS | REVERSALS | AXIS_SWAPS | AXIS_SWAP_ALIASES
"""Behind them the axis of the channels is looked up, by moving numbers (`viscircuits.model.axes`)."""

EXPANSIONS = _names("expand expand_as")
"""Numbers are repeated along axes of size 1, without a copy."""

SELECTIONS = _names("select unbind")
"""One place along an axis, which is dropped."""

CUTS = SELECTIONS | _names("slice split split_with_sizes chunk")
PARTS = CUTS | _names("tensor_split")
"""Some places along one axis, in order."""

NARROWING = _names("narrow")
"""A part of an axis, for which receptive fields ask the operation itself."""

WEIGHT_PARTS = CUTS | NARROWING | PERMUTATIONS | _names("view reshape t")
"""How a part or another layout of a stored weight is taken; tracing looks through them for the weight's name."""

CONCATENATIONS = _names("cat concat")
"""Along an axis that all have."""

STACKS = _names("stack")
"""Along a new axis."""

SIDE_BY_SIDE = _names("hstack vstack")
"""Along an axis that follows from the rank."""

PATCHED = _names("slice_scatter select_scatter")
"""A part of the first input is replaced by the second."""

LOOKUPS = _names("index gather")
"""Places are chosen by a table, which may bring channels anywhere."""

SCATTERED = _names("scatter index_copy")
"""Places are written by a table; receptive fields have no rule for it."""

ASSEMBLIES = CONCATENATIONS | STACKS | SIDE_BY_SIDE | PATCHED | LOOKUPS | SCATTERED
"""They put channels of several sources, or of other places, side by side."""

CONSTANT_PADDINGS = _names("constant_pad_nd pad")
"""A border is put around a tensor: a constant, unless ``pad`` has another mode."""

ROLLS = _names("roll")
"""Axes are shifted, and go on from the other end: shifted windows."""

FOLDS = _names("col2im")
"""Patches are put side by side, and add up where they overlap."""

SHUFFLES = (
    AXIS_SWAPS
    | NARROWING
    | SIDE_BY_SIDE
    | PATCHED
    | LOOKUPS
    | _names(
        "repeat flip rot90 reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
        "replication_pad3d _pad_circular index_select pixel_shuffle pixel_unshuffle channel_shuffle "
        "native_channel_shuffle im2col unfold repeat_interleave diagonal tile tril triu"
    )
)
"""They move numbers in a way that no rule is written for: the operation itself is asked, through its adjoint."""

MOVES = (
    REGROUPINGS
    | PERMUTATIONS
    | REVERSALS
    | EXPANSIONS
    | PARTS
    | CONCATENATIONS
    | STACKS
    | CONSTANT_PADDINGS
    | ROLLS
    | SHUFFLES
    | SCATTERED
)
"""All that moves numbers and computes none, so that a wire can be moved by the operation itself."""

OVER_SPACE = POOLS | POWER_POOLS | ADAPTIVE_POOLS | RESIZES | INSTANCE_NORMS
"""They mix the axes behind the first two and leave the channels of axis 1 apart."""

KEEPS_ZERO = (IDENTITIES | CHECKS | MOVES | BATCH_NORMS | OVER_SPACE) - ASSEMBLIES
"""They leave zeros zero and apart from what else there is (norms, once silenced): no activation, no concatenation."""

KEEPS_CHANNELS = IDENTITIES | CHECKS | ELEMENTWISE | REDUCTIONS | OVER_SPACE | PERMUTATIONS
"""They treat every channel alone and in place; a reduction does only where it spares the channels."""

ONE_NUMBER_A_CHANNEL = BATCH_NORMS | _names("prelu")
"""Beside their input they take one constant a channel, whatever axis that is; else they are pointwise."""

POINTWISE = (ELEMENTWISE - ONE_NUMBER_A_CHANNEL - FILLS) | IDENTITIES | EXPANSIONS
"""A place reads that place alone of everything that is broadcast with it."""

FRESH = CONVS | LINEAR | CHANNEL_NORMS | _names("convolution add_ cat")
"""Operations whose result is a tensor of its own, which an activation may overwrite."""
