"""Shapes of tensors that many files speak of, spelt once.

Axis letters, everywhere: ``n`` images, ``c`` channels, ``h w`` space, ``out in`` kernel index, ``kh kw`` inside a
kernel, ``t`` targets. Not here: words with a few values (`viscircuits.types`), which are read without torch.
"""

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "n c h w"]
"""Pictures as the model takes them: preprocessed, one dtype, one size."""
