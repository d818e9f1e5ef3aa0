"""One operation as the rules of wires see it: the node of the graph, and what its inputs hold.

What a rule does with it is in `viscircuits.model.flow.pooling`, `mixing` and `moving`; which rule an operation has, in
`viscircuits.model.flow.rules`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, fx

from viscircuits.model.nodes import Value, function, has_several_outputs, op_name, shape_of


class Operation(NamedTuple):
    """An operation, and what its arguments hold: wires, constants, numbers."""

    node: fx.Node
    args: list[Value]
    kwargs: Mapping[str, Value]

    @property
    def name(self) -> str:
        """Its bare name."""
        return op_name(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what it gives, of the first where it gives several."""
        return shape_of(self.node)

    @property
    def function(self) -> Callable[..., Value]:
        """What it calls."""
        return function(self.node)

    def with_indices(self, wire: Float[Tensor, "..."]) -> Value:
        """Returns the wire, twice where the operation gives indices, or a second statistic, beside its values."""
        # indices depend on the same places as the values that they point at
        return (wire, wire) if has_several_outputs(self.node) else wire

    def with_statistics(self, wire: Float[Tensor, "..."]) -> Value:
        """Returns the wire, with two more outputs that nobody reads where a norm gives its mean and deviation."""
        return (wire, None, None) if has_several_outputs(self.node) else wire


Rule = Callable[[Operation], Value]
"""What an operation holds, given what its inputs hold."""
