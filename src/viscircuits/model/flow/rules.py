"""Which rule an operation has: how wires pass through it, and the step from what its inputs hold to what it holds.

Kernel layers are not here but in `viscircuits.model.flow.kernels`, because only the caller knows which kernels conduct.
"""

import operator

from torch import fx

from viscircuits.errors import UnsupportedOperation
from viscircuits.model import ops
from viscircuits.model.flow import mixing, moving, pooling
from viscircuits.model.flow.operation import Operation, Rule
from viscircuits.model.flow.wires import wires_in
from viscircuits.model.nodes import Value, function, op_name, origin

_FAMILIES: dict[Rule, frozenset[str]] = {
    moving.same: ops.IDENTITIES | ops.CHECKS,
    moving.moved: ops.MOVES,
    moving.folded: ops.FOLDS,
    moving.created: ops.CREATIONS,
    moving.copied: ops.COPIES,
    pooling.pooled: ops.POOLS,
    pooling.adaptively_pooled: ops.ADAPTIVE_POOLS,
    # a power mean over windows is not followed window by window: as if it reached everything along its axes
    pooling.resized: ops.RESIZES | ops.POWER_POOLS,
    mixing.elementwise: ops.ELEMENTWISE,
    mixing.batch_norm: ops.BATCH_NORMS,
    mixing.norm_over_last_axes: ops.LAST_AXES_NORMS,
    mixing.group_norm: ops.GROUP_NORMS,
    mixing.instance_norm: ops.INSTANCE_NORMS,
    mixing.reduction: ops.REDUCTIONS,
    mixing.along_axis: ops.ALONG_ONE_AXIS | ops.RUNNING,
    mixing.gated: ops.GATED,
    mixing.compared: ops.COMPARISONS,
    mixing.unpooled: ops.UNPOOLS,
    mixing.warped: ops.WARPS,
    mixing.matrix_product: ops.MATRIX_PRODUCTS | ops.VECTOR_PRODUCTS,
    mixing.by_constant: ops.LINEAR,
    mixing.attention: ops.ATTENTION,
    mixing.einsum: ops.EINSUM,
}
RULES: dict[str, Rule] = {name: rule for rule, names in _FAMILIES.items() for name in names}


def step(node: fx.Node, args: list[Value], kwargs: dict[str, Value]) -> Value:
    """Returns what a node other than a kernel layer holds; constants are computed.

    Args:
        node: the operation.
        args: what its positional arguments hold: wires, constants, numbers.
        kwargs: what its named arguments hold.

    Raises:
        UnsupportedOperation: the operation has no rule, or is used in a way that its rule does not know.
    """
    # getitem is no operation of torch's: it has no schema to read and takes one of several outputs
    if node.target is operator.getitem:
        return args[0][args[1]]
    if not wires_in((args, kwargs)):
        return function(node)(*args, **kwargs)
    rule = RULES.get(op_name(node))
    if rule is None:
        raise UnsupportedOperation(
            f"no rule for the operation {op_name(node)!r} ({origin(node)}); which channels it connects is unknown. "
            f"If it acts on each channel alone, replace it by an equal standard operation, or report it"
        )
    try:
        return rule(Operation(node, args, kwargs))
    except (RuntimeError, IndexError, TypeError) as error:  # say an index that depends on the image
        raise UnsupportedOperation(
            f"cannot follow channels through this use of {op_name(node)!r} ({origin(node)}): {str(error)[:200]}"
        ) from error
