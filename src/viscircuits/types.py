"""Closed vocabularies, spelt once: what an option or a field of a file may say. Nothing here has behaviour.

No torch: studies are read with these words and without it. Shapes of tensors stand in `viscircuits.arrays`.
"""

from collections.abc import Callable
from typing import Literal, get_args

Granularity = Literal["weight", "kernel", "filter"]
"""What one entry of a score or mask stands for."""

Biases = Literal["masked", "pruned"]
"""What becomes of a filter without kernels: it keeps its bias, or it is silent."""

Reduction = Literal["sum_abs", "sum", "mean"]
"""How a target's map becomes one scalar an image before gradients are taken."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as a job goes on."""

# for checks at run time, where a Literal can only be looked at through its arguments
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
