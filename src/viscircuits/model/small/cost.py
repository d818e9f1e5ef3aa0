"""What a computation costs on a CPU, counted operation by operation: a model with two measured rates.

Which of two ways is faster must not depend on what else a machine is doing, or the same command would give other last
digits. So multiplications and bytes are counted, and their prices are constants.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

MULTIPLICATIONS = 100e9
BYTES = 10e9
"""Multiplications, and bytes written, that one core manages a second. ``benchmarks/rates.py`` measures them: on eight
networks the two together give the time within a quarter. Only their ratio decides anything."""


class Work(TorchDispatchMode):
    """Counts what is computed while it lasts; ``seconds`` is the price of it."""

    def __init__(self) -> None:
        super().__init__()
        self.multiplications = 0
        self.bytes = 0
        self.largest = 0  # of one result, in bytes

    @property
    def seconds(self) -> float:
        """The estimated time on one core."""
        return self.multiplications / MULTIPLICATIONS + self.bytes / BYTES

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.multiplications += count(*args, **(kwargs or {}), out_val=out) // 2
        if not func.is_view:
            sizes = [t.numel() * t.element_size() for t in tree_leaves(out) if isinstance(t, Tensor)]
            self.bytes += sum(sizes)
            self.largest = max(self.largest, *sizes, 0)
        return out
