"""Loads a model by name, with the function that turns a picture into its input.

Names: ``shapesnet`` (built in, trained), a torchvision classifier (``resnet18``), ``timm:NAME``, or
``package.module:callable`` for a model of one's own. Nothing here but such a callable touches the global random state,
and torchvision is imported only when it is used. Not here: how each kind of model is made (beside this file).
"""

import weakref
from pathlib import Path
from typing import NamedTuple

from torch import nn

from viscircuits.bounds.arguments import checked
from viscircuits.bounds.places import what_is
from viscircuits.bounds.ranges import PIXELS
from viscircuits.card import Card
from viscircuits.errors import ModelError, closest
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.guard.seeded import seeded
from viscircuits.model.zoo import catalogue, code
from viscircuits.model.zoo import weights as files
from viscircuits.model.zoo.catalogue import Preparation
from viscircuits.model.zoo.fill import fill

_names: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()
"""Models that were loaded by a name of torchvision's."""

LARGEST = PIXELS
"""The largest side of an input, in pixels; a single run on a larger one fills most memories."""


class Loaded(NamedTuple):
    """A model in evaluation mode and what prepares a picture for it."""

    model: nn.Module
    prepare: Preparation

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()

    def _card(self) -> Card:
        numbers = sum(parameter.numel() for parameter in self.model.parameters())
        name = type(self.model).__name__
        return Card("Loaded", {"model": name, "parameters": f"{numbers:,}", "prepare": self.prepare})


@checked
@clean
def load(name: str, weights: str | Path | None = None, *, input_size: int | None = None) -> Loaded:
    """Returns ``(model, prepare)``; the model is in evaluation mode, on the CPU.

    ``prepare`` is the one the weights were made with (for a local file: that of the architecture's default weights);
    Resize(256), CenterCrop(224) and ImageNet normalisation for a callable that returns a model only.

    Args:
        name: ``"shapesnet"``, a name of `names`, ``"timm:NAME"``, or ``"package.module:callable"``, imported from the
            current folder too; the callable returns a module or ``(module, prepare)``.
        weights: None for random weights, always the same ones (for ``shapesnet`` and a callable: what they come with);
            ``"DEFAULT"`` or one of torchvision's names, downloaded; or a safetensors or ``torch.save`` file.
        input_size: side in pixels of the square input, in place of the usual one.

    Raises:
        ModelError: no such model or weights, no network, or a file that does not fit.
    """
    named, state, beside = _weights(weights)
    if ":" in name and not name.startswith("timm:"):
        catalogue.only_default(name, named, default=False)
        model, prepare = code.from_code(name, input_size)
    else:
        # a model without weights is the same one every time, or no run with it could be repeated
        with seeded(0):
            if name == "shapesnet":
                model, prepare = _shapesnet(named, input_size)
            elif name.startswith("timm:"):
                model, prepare = catalogue.from_timm(name.removeprefix("timm:"), named, input_size)
            else:
                _check_known(name)
                model, prepare = catalogue.from_torchvision(name, named, state, input_size)
                _names[model] = name
    check_plain(model)
    if state is not None:
        fill(model, state, name, str(weights), beside)
    return Loaded(model.eval(), prepare)


@checked
def categories(model: nn.Module) -> tuple[str, ...] | None:
    """Returns what the outputs of a loaded torchvision model stand for, by the weights of its architecture."""
    name = _names.get(model)
    return None if name is None else catalogue.categories_of(name)


def names() -> tuple[str, ...]:
    """Returns the names that need nothing installed: ``shapesnet`` and torchvision's classifiers."""
    return ("shapesnet", *catalogue.torchvision_names())


@checked
def is_foreign(name: str) -> bool:
    """Returns whether a model of this name is code, or a download, from outside of viscircuits, torchvision and timm.

    So are a callable, and a name that is not in timm's own lists, such as ``timm:hf-hub:OWNER/NAME``. Nothing is
    imported on the name's word, and what a file names is loaded only where this is False.
    """
    if not name.startswith("timm:"):
        return ":" in name
    return not catalogue.is_timms(name.removeprefix("timm:"))


@checked
def prepared_shape(prepare: Preparation) -> tuple[int, ...]:
    """Returns the shape ``(c, h, w)`` of a prepared picture, found by preparing a blank one."""
    from PIL import Image

    try:
        return tuple(prepare(Image.new("RGB", (320, 256))).shape)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise ModelError(f"prepare fails on a blank picture: {type(error).__name__}: {error}") from error


def _weights(weights: str | Path | None) -> tuple[str | None, files.State | None, list[str]]:
    """The name of weights to download, or the state in a file and the names of what else is there."""
    if weights is None:
        return None, None, []
    path = Path(weights)
    # a word without folder or ending is a name, unless there is a file of that name
    if what_is(path) or path.suffix or len(path.parts) > 1:
        return None, *files.read(path)
    return str(weights), None, []


def _shapesnet(named: str | None, input_size: int | None) -> tuple[nn.Module, Preparation]:
    from viscircuits.model.zoo.builtin import ShapesTransform, load_shapesnet

    catalogue.only_default("shapesnet", named)
    return load_shapesnet(), ShapesTransform() if input_size is None else ShapesTransform(size=input_size)


def _check_known(name: str) -> None:
    """Raises a `ModelError` where a name is not one of `names`; a file in its place is a common slip."""
    known = names()
    if name not in known and Path(name).is_file():
        raise ModelError(
            f"{name!r} is {files.described(Path(name))}; give a network's name here, and such a file with weights="
        )
    if name not in known:
        raise ModelError(
            f"no model {name!r}{closest(name, known)}; other models load as 'timm:NAME' or 'package.module:callable'"
        )
