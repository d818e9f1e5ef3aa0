"""Whether a picture is the same at every reading, as it must be: pictures are read again on every pass.

Convention: the random states of python, numpy and torch (CPU) are left as they were found.
"""

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from viscircuits.errors import ImageError

_TRIES = 30  # a flip with probability one half shows in all but one of 10^9 sets


def read_twice(read: Callable[[], Tensor], name: str, by: str) -> Tensor:
    """Returns the picture that ``read`` gives; one that differs at a second reading is an `ImageError`.

    Two equal readings prove nothing where something random was drawn: then it is read up to 30 times more.
    """
    with _undisturbed() as moved:
        first = read()
        for _ in range(1 + _TRIES):
            again = read()
            if again.dtype != first.dtype or not torch.equal(again, first):
                raise ImageError(
                    f"{by} gives other pixels each time it makes {name}, as a random (training) transform does: "
                    "expected the same ones on every pass; give the deterministic one (Resize, CenterCrop, ToTensor, "
                    "Normalize)"
                )
            if not moved():
                break
    return first


@contextmanager
def _undisturbed() -> Iterator[Callable[[], bool]]:
    """Puts the random states back at the end; yields a function that says whether one has moved."""
    python, numpy, torchs = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    before = pickle.dumps(numpy)

    def moved() -> bool:
        same = random.getstate() == python and pickle.dumps(np.random.get_state(legacy=False)) == before
        return not (same and torch.equal(torch.get_rng_state(), torchs))

    try:
        yield moved
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torchs)
