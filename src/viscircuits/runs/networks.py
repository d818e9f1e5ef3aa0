"""Networks, as a user names them: loaded and brought to a device. Every command that needs one gets it here.

Not here: which names there are (`viscircuits.model.zoo`), and the model of a study (`viscircuits.runs.opened`).
"""

import re

import torch
from torch import nn

from viscircuits.errors import ModelError
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.zoo import zoo
from viscircuits.store.checks import shown


def load(
    name: str, weights: str | None = None, *, input_size: int | None = None, device: str | None = None
) -> zoo.Loaded:
    """Returns a model, and what prepares its pictures.

    Args:
        name: built in, torchvision's, ``timm:NAME`` or ``package.module:callable``.
        weights: ``DEFAULT``, or a file; random ones where None.
        input_size: side of its input, in pixels; its own where None.
        device: as for `on_device`; where None the model stays where it was made.
    """
    model, prepare = zoo.load(name, weights, input_size=input_size)
    return zoo.Loaded(model if device is None else on_device(model, device), prepare)


def on_device(model: nn.Module, device: str) -> nn.Module:
    """Returns the model on the wanted device."""
    check_plain(model)
    place = device
    if device == "auto":
        place = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", place):  # torch names more, on most of which nothing here runs
        raise ModelError(f"unknown device {shown(device)}; expected cpu, cuda (or cuda:NUMBER) or auto")
    try:
        return model.to(place)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ModelError(f"cannot use device {device!r} ({reason}); expected cpu, cuda or auto") from None
