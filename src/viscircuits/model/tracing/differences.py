"""Whether what a model gave twice is the same, as far as rounding lets one tell.

Convention: differences count from a share of the largest value on, and the share is never less than what rounding to
the coarsest floating type on the way makes. Not here: what is run and compared (`viscircuits.model.trial`).
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

MIXED = 1e-3
"""A picture's output in company and alone may differ by this share of the largest output."""

SAME = 1e-5
"""Two runs on the same picture may differ by this share."""

_ROUNDINGS = 8
"""How many roundings of the coarsest floating type on the way a difference may be, if that is more."""

_TF32 = 2.0**-11
"""A rounding of what a GPU may make of 32-bit numbers within a convolution."""


def at_least_rounding(share: float, *dtypes: torch.dtype) -> float:
    """Returns a share, or what rounding to the coarsest of some floating types makes, if that is more."""
    return max([share, *(_ROUNDINGS * torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)])


def at_least_a_gpus_rounding(share: float) -> float:
    """Returns a share, or what the short floating type makes that a GPU may use unasked, if that is more."""
    return max(share, _ROUNDINGS * _TF32)


def differ(parts: list[list[Tensor]], whole: list[Tensor], share: float) -> bool:
    """Returns whether some tensor of the whole batch is not what its parts gave, put together.

    Args:
        parts: the tensors that each part of the batch gave.
        whole: those that the whole batch gave, in the same order.
        share: of the largest value, from which a difference counts.
    """
    # a list with an entry an image is longer for the whole batch; compared is what both have
    return any(apart(list(own), both, share) for *own, both in zip(*parts, whole, strict=False))


def apart(parts: list[Tensor], whole: Shaped[Tensor, "..."], share: float) -> bool:
    """Returns whether a tensor is not its parts put together along the axis of the pictures.

    False where there is no such axis, as nothing can be compared then.

    Args:
        parts: what each part of the batch gave.
        whole: what the whole batch gave.
        share: of the largest value, from which a difference counts.
    """
    axis = _batch_axis(parts, whole)
    if axis is None or not whole.numel():
        return False
    expected = torch.cat(parts, axis)
    known = whole.isfinite() & expected.isfinite()  # where both overflow, nothing can be told
    if bool((known != (whole.isfinite() | expected.isfinite())).any()):
        return True
    # the largest value alone is a fair measure: small ones carry the rounding of the large ones they are made from
    largest = whole[known].abs().max() if bool(known.any()) else 0
    return bool(((whole - expected)[known].abs() > share * largest).any())


def _batch_axis(parts: list[Tensor], whole: Tensor) -> int | None:
    """The axis along which the parts add up to the whole; the first for a single part of the same shape.

    It is looked for, as a module inside of a model may have its pictures anywhere (tokens first, windows).
    """
    if not whole.is_floating_point() or any(part.ndim != whole.ndim for part in parts):
        return None
    sizes = [tuple(part.shape) for part in parts]
    for axis, size in enumerate(whole.shape):  # all other axes have to agree
        others = {shape[:axis] + shape[axis + 1 :] for shape in sizes}
        if sum(shape[axis] for shape in sizes) == size and others == {(*whole.shape[:axis], *whole.shape[axis + 1 :])}:
            return axis
    return None
