"""What tells one content from another: hashes of texts, bytes and tensors, and whole texts of values.

Hashes are names, not signatures: 64 bits keep accidents apart, and do not stop somebody who seeks two of a kind.
"""

import hashlib
from dataclasses import fields, is_dataclass
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


def spelled(value: object) -> str:
    """Returns everything in a value as a text, the one that dataclasses print by themselves: for keys, not for eyes.

    ``repr`` is for eyes (`viscircuits.card`): two directions of a thousand coefficients may look the same there.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = (f"{part.name}={spelled(getattr(value, part.name))}" for part in fields(value) if part.repr)
        return f"{type(value).__qualname__}({', '.join(parts)})"
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        comma = "," if len(value) == 1 else ""
        return f"({', '.join(map(spelled, value))}{comma})"
    return repr(value)


def _bytes(tensor: "Tensor") -> bytes:
    import torch  # here, because names and texts are hashed where nobody has a tensor

    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes()  # as bytes, because numpy has no bfloat16
