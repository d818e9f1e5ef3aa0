"""Shape aliases and closed vocabularies, spelt once.

Axis letters, everywhere: ``n`` images, ``c`` channels, ``h w`` space, ``out in`` kernel index, ``kh kw`` inside a
kernel, ``t`` targets. Nothing here has behaviour.
"""

from collections.abc import Callable
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Pictures as the model takes them: preprocessed, one dtype, one size."""

Granularity = Literal["weight", "kernel", "filter"]
"""What one entry of a score or mask stands for."""

Reduction = Literal["sum_abs", "sum", "mean"]
"""How a target's map becomes one scalar an image before gradients are taken."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as a job goes on."""

GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
