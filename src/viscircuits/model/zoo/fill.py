"""Fills the weights of a file into a model, or says what they would fit instead.

Not here: reading the file, and whether weights fit (`viscircuits.model.zoo.weights`).
"""

import logging

from torch import nn

from viscircuits.errors import ModelError
from viscircuits.model.zoo import weights as files
from viscircuits.model.zoo.catalogue import blank, options, torchvision_names

log = logging.getLogger(__name__)

_SHOWN = 4


def fill(model: nn.Module, state: files.State, name: str, path: str, beside: list[str]) -> None:
    """Puts weights into a model; what is left out of the file is logged.

    Args:
        model: a model of that name, whose weights are overwritten.
        state: the weights in the file.
        name: what the user called the model.
        path: the file's.
        beside: names of what else stands in the file.

    Raises:
        ModelError: the weights do not fit.
    """
    wanted = model.state_dict()
    given, state = state, files.fitted(state, wanted)
    if problem := files.unlike(state, wanted):
        raise ModelError(f"{path!r} does not fit {name}: {problem}")
    if problem := files.misfit(state, wanted):
        raise ModelError(f"{path!r} does not fit {name}: {problem}{_kin(state)}")
    try:
        model.load_state_dict(state, strict=False)  # all there but, in old files, the batch counters
    except RuntimeError as error:  # sparse ones, for instance
        raise ModelError(
            f"{path!r} does not fit {name}: its tensors are of a kind that cannot be copied; save plain ones"
        ) from error
    _say_dropped([*beside, *files.dropped(given, state)], path)


def _say_dropped(dropped: list[str], path: str) -> None:
    if dropped:
        shown = ", ".join(dropped[:_SHOWN]) + (", ..." if len(dropped) > _SHOWN else "")
        log.warning("left out of %r, as the model has nothing of that name: %s", path, shown)


def _kin(state: files.State) -> str:
    """Which torchvision models the weights would fit, or what to give instead."""
    kin: list[str] = []
    for name in torchvision_names():
        wanted = blank(name, **options(name, state))
        if wanted and (classes := files.classes_to_fit(state, wanted, 1000)) is not None:
            kin.append(f"{name}(num_classes={classes})")
    if not kin:
        return "; give a file that was saved from this very model"
    advice = ""
    if "num_classes=1000" not in kin[0]:
        advice = f"; return torchvision.models.{kin[0]} from a function of your own and load it as 'module:function'"
    return f"; it fits torchvision's {' and '.join(kin)}{advice}"
