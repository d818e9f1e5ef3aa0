"""Whether a picture is the same at every reading, as it must be: pictures are read again on every pass.

Convention: the random states of python, numpy and torch (CPU) are left as they were found. They belong to all threads,
so they are put back only where the reading itself draws from them.
"""

import pickle
import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from viscircuits.errors import ImageError

_TRIES = 30  # a flip with probability one half shows in all but one of 10^9 sets


def read_twice(read: Callable[[], Tensor], name: str, by: str) -> Tensor:
    """Returns the picture that ``read`` gives; one that differs at a second reading is an `ImageError`.

    Two equal readings prove nothing where something random was drawn: then it is read up to 30 times more.

    Args:
        read: reads and prepares the picture.
        name: what it is called in the error.
        by: whose code makes it, in words.

    Raises:
        ImageError: two readings differ.
    """
    start = _RandomStates()
    first = read()
    for _ in range(1 + _TRIES):
        before = _RandomStates()
        again = read()
        if again.dtype != first.dtype or not torch.equal(again, first):
            start.put_back()
            raise ImageError(
                f"{by} gives other pixels each time it makes {name}, as a random (training) transform does: "
                "expected the same ones on every pass; give the deterministic one (Resize, CenterCrop, ToTensor, "
                "Normalize)"
            )
        if _RandomStates() == before:  # it draws nothing, whoever drew while it was read first
            return first
    start.put_back()
    return first


class _RandomStates:
    """Those of all generators that belong to the whole process."""

    def __init__(self) -> None:
        self.python, self.torch = random.getstate(), torch.get_rng_state()
        self.numpy = np.random.get_state(legacy=False)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _RandomStates)
        same = self.python == other.python and pickle.dumps(self.numpy) == pickle.dumps(other.numpy)
        return same and torch.equal(self.torch, other.torch)

    def put_back(self) -> None:
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)
