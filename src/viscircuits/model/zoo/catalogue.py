"""The networks of torchvision and timm, by name, each with the preparation that its weights were made with.

Both libraries are imported when one of their networks is asked for, not before. Not here: weights from a file
(`viscircuits.model.zoo.weights`), and networks of one's own (`viscircuits.model.zoo.code`).
"""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from viscircuits.errors import ModelError, closest
from viscircuits.model.zoo import weights as files

Preparation = Callable[..., Tensor]
"""RGB picture -> float tensor ``[c, h, w]``; some take tensors, or several pictures, as well."""

_AUX = ("googlenet", "inception_v3")
"""Networks with auxiliary heads, which are there in training alone."""
_OFFLINE = "without a network, get the file elsewhere and give its path (--weights FILE)"


def torchvision_names() -> tuple[str, ...]:
    """Returns the names of torchvision's classifiers."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def categories_of(name: str) -> tuple[str, ...]:
    """Returns what the outputs of one of torchvision's networks stand for, by its default weights."""
    from torchvision import models

    return tuple(models.get_model_weights(name)["DEFAULT"].meta["categories"])


def is_timms(name: str) -> bool:
    """Returns whether a name, without ``timm:``, is in timm's own lists; True where timm is not there to ask."""
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        return True  # nothing can come of the name, and `from_timm` says what is missing
    return name in {*timm.list_models(), *timm.list_models(pretrained=True)}


def only_default(name: str, named: str | None, *, default: bool = True) -> None:
    """Raises a `ModelError` where weights are named that a network does not have.

    Args:
        name: the network's.
        named: name of the weights, None for none.
        default: whether ``"DEFAULT"`` is one.
    """
    if named is not None and not (default and named == "DEFAULT"):
        raise ModelError(f"no file {named!r}; {name!r} takes {'DEFAULT or ' if default else ''}a weight file")


def from_torchvision(
    name: str, named: str | None, state: files.State | None, input_size: int | None
) -> tuple[nn.Module, Preparation]:
    """Returns one of torchvision's networks and its preparation.

    Args:
        name: one of `torchvision_names`.
        named: name of weights to download, None for random ones.
        state: weights that will be filled in, which say what heads the network needs.
        input_size: side of the square input in pixels, None for the usual one.

    Raises:
        ModelError: no such weights, or no way to get them.
    """
    from torchvision import models

    known = models.get_model_weights(name)
    if named is None:
        return models.get_model(name, weights=None, **options(name, state)), _resized(
            known["DEFAULT"].transforms, input_size
        )
    if named not in known.__members__:
        raise ModelError(
            f"no file and no weights {named!r} of {name}{closest(named, known.__members__)}; "
            f"expected a file or {', '.join(known.__members__)}"
        )
    try:
        model = models.get_model(name, weights=known[named], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot download {known[named].url} ({error}); {_OFFLINE}") from error
    return model, _resized(known[named].transforms, input_size)


def options(name: str, state: files.State | None) -> dict[str, bool]:
    """Returns what torchvision itself passes to the two networks whose options depend on having weights."""
    if name not in _AUX:
        return {}
    # a network without weights starts with its heads; files that torchvision's own code saved have lost them
    heads = state is None or any("aux" in key.lower() for key in state)
    return {"init_weights": False, "transform_input": state is not None, "aux_logits": heads}


def _resized(transforms: Callable[..., Any], input_size: int | None) -> Preparation:
    """The transform of torchvision weights, at another size in the same proportion of crop to picture."""
    preset = transforms()
    if input_size is None:
        return preset
    resize = round(input_size * preset.resize_size[0] / preset.crop_size[0])
    return transforms(crop_size=input_size, resize_size=resize)


def from_timm(name: str, named: str | None, input_size: int | None) -> tuple[nn.Module, Preparation]:
    """Returns one of timm's networks and its preparation.

    Args:
        name: as timm has it.
        named: ``"DEFAULT"`` for its own weights, None for random ones.
        input_size: side of the square input in pixels, None for the usual one.

    Raises:
        ModelError: timm is not installed, has no such network, or cannot get the weights.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ModelError(f"'timm:{name}' needs the package timm: pip install 'viscircuits[timm]'") from None
    only_default(f"timm:{name}", named)
    try:
        model = timm.create_model(name, pretrained=named is not None)
    except Exception as error:  # unknown names, and a dozen kinds of network failure
        near = closest(name, timm.list_models())
        raise ModelError(f"timm cannot load {name!r} ({error}){near}; {_OFFLINE}") from error
    config = timm.data.resolve_model_data_config(model)
    if input_size is not None:
        config = {**config, "input_size": (3, input_size, input_size)}
    return model, timm.data.create_transform(**config, is_training=False)


@cache
def blank(name: str, **options: bool) -> files.State:
    """Returns the state dict of a torchvision model, without storage.

    Empty for RegNets, which can only be built with real tensors.
    """
    from torchvision import models

    try:
        with torch.device("meta"):
            return models.get_model(name, weights=None, **options).state_dict()
    except NotImplementedError:
        return {}
