"""A content hash of a model's weights, for provenance: equal weights, equal fingerprint, on any device.

Not here: the hash of anything else (`viscircuits.store.digest`).
"""

import hashlib

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module) -> str:
    """Returns the first 16 hex digits of a SHA-256 over the state dict: names, dtypes, shapes, bytes; sorted by name.

    Device, memory format and training mode do not enter; the code of the model does not either.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):  # a module may add values of its own kind
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]
