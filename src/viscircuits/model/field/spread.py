"""How receptive fields spread through one operation, backwards: which rule an operation has.

A rule is given what is asked of an operation's output (`viscircuits.model.field.places.Call`) and says what that asks
of its inputs. Weights and activations play no part, so nothing can cancel or be dead. The rules stand in `sliding`,
`mixing` and `moving`. Operations that move values about in a less common way are asked themselves (`moved`), and so are
those that have no rule (`probed`).
"""

from collections.abc import Callable

from viscircuits.model import ops
from viscircuits.model.field import mixing, moving, sliding
from viscircuits.model.field.places import Call, Requests, moved

Spread = Callable[[Call], Requests]
"""What an operation asks of its inputs, given what is asked of it."""

_FAMILIES: dict[Spread, frozenset[str]] = {
    sliding.windowed: ops.WINDOWED,
    sliding.adaptive_pool: ops.ADAPTIVE_POOLS,
    # constants of one number a channel are not broadcast like activations, but depend on no image either
    mixing.pointwise: ops.POINTWISE | ops.ONE_NUMBER_A_CHANNEL,
    mixing.overwritten: ops.OVERWRITES,
    mixing.over_axes: ops.OVER_AXES,
    mixing.reduction: ops.REDUCTIONS,
    mixing.gated: ops.GATED,
    mixing.compared: ops.COMPARISONS,
    mixing.matrix_product: ops.MATRIX_PRODUCTS,
    mixing.attention: ops.ATTENTION,
    mixing.einsum: ops.EINSUM,
    moving.permuted: ops.PERMUTATIONS | ops.REVERSALS,
    moving.reshaped: ops.REGROUPINGS,
    moving.concatenated: ops.CONCATENATIONS,
    moving.stacked: ops.STACKS,
    moving.part: ops.PARTS,
    moving.rolled: ops.ROLLS,
    moving.padded: ops.CONSTANT_PADDINGS,
    # Their adjoint says exactly what they read, at the price of running each once in double precision. A rule would be
    # faster, and one more place to be wrong about an option.
    moved: ops.SHUFFLES | ops.RESIZES | ops.FOLDS,
}
RULES: dict[str, Spread] = {name: rule for rule, names in _FAMILIES.items() for name in names}
