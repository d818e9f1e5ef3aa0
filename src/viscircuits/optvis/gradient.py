"""The gradient of a number that a network gives, also where the network writes over what the gradient needs."""

from collections.abc import Callable

import torch
from torch import Tensor

from viscircuits.model.instrument import keeping_copies


def gradient(number: Callable[[], Tensor], parameters: Tensor) -> Tensor:
    """Returns the gradient of ``number()`` for the parameters; zero where it does not depend on them.

    Args:
        number: computes the number; called again, with copies, where in-place operations are in the way.
        parameters: what it depends on.
    """
    try:
        return _gradient(number(), parameters)
    except RuntimeError as error:
        # autograd has no class of its own for this
        if "modified by an inplace operation" not in str(error):
            raise
    # only now, because copies of all that is overwritten take memory, and most networks need none
    with keeping_copies():
        return _gradient(number(), parameters)


def _gradient(number: Tensor, parameters: Tensor) -> Tensor:
    if not number.requires_grad:
        return torch.zeros_like(parameters)
    return torch.autograd.grad(number, parameters, materialize_grads=True)[0]
