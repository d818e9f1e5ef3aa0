"""Content hashes: short names for texts, bytes and tensors that tell one content from another.

They are names, not signatures: 64 bits keep accidents apart, and do not stop somebody who seeks two of a kind.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def digest(*parts: "bytes | str | Tensor") -> str:
    """Returns the first 16 hex digits of a SHA-256 over the parts, in order; tensors count with dtype and shape."""
    sha = hashlib.sha256()
    for part in parts:
        if not isinstance(part, bytes | str):
            # one byte string for all values of a tensor cannot tell (2, 3) from (3, 2), nor float16 from bfloat16
            sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
            part = _bytes(part)
        data = part.encode() if isinstance(part, str) else part
        # with its length, so that ("ab", "c") and ("a", "bc") differ
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()[:16]


def _bytes(tensor: "Tensor") -> bytes:
    import torch  # here, because names and texts are hashed where nobody has a tensor

    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()  # as bytes, because numpy has no bfloat16
