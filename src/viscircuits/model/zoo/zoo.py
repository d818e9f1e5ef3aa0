"""Loads a model by name, with the function that turns a picture into its input.

Names: ``shapesnet`` (built in, trained), a torchvision classifier (``resnet18``), ``timm:NAME``, or
``package.module:callable`` for a model of one's own. Nothing here but such a callable touches the global random state,
and torchvision is imported only when it is used. Not here: reading weight files (`viscircuits.model.zoo.weights`).
"""

import importlib
import logging
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from viscircuits.bounds import PIXELS, checked, what_is
from viscircuits.errors import ModelError, closest
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.guard.seeded import seeded
from viscircuits.model.zoo import weights as files

log = logging.getLogger(__name__)

Prepare = Callable[[Any], Tensor]
"""RGB picture -> float tensor ``[c, h, w]``."""

_names: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()
"""Models that were loaded by a name of torchvision's."""

LARGEST = PIXELS
"""The largest side of an input, in pixels; a single run on a larger one fills most memories."""

_AUX = ("googlenet", "inception_v3")
_OFFLINE = "without a network, get the file elsewhere and give its path (--weights FILE)"


class Loaded(NamedTuple):
    """A model in evaluation mode and what prepares a picture for it."""

    model: nn.Module
    prepare: Prepare


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
        model, prepare = _callable(name, named, input_size)
    else:
        with seeded(0):
            if name == "shapesnet":
                model, prepare = _shapesnet(named, input_size)
            elif name.startswith("timm:"):
                model, prepare = _timm(name.removeprefix("timm:"), named, input_size)
            else:
                model, prepare = _torchvision(name, named, state, input_size)
                _names[model] = name
    check_plain(model)
    if state is not None:
        _fill(model, state, name, str(weights), beside)
    return Loaded(model.eval(), prepare)


@checked
def categories(model: nn.Module) -> tuple[str, ...] | None:
    """Returns what the outputs of a loaded torchvision model stand for, by the weights of its architecture."""
    name = _names.get(model)
    if name is None:
        return None
    from torchvision import models

    return tuple(models.get_model_weights(name)["DEFAULT"].meta["categories"])


def names() -> tuple[str, ...]:
    """Returns the names that need nothing installed: ``shapesnet`` and torchvision's classifiers."""
    from torchvision import models

    return ("shapesnet", *models.list_models(module=models))


@checked
def is_foreign(name: str) -> bool:
    """Returns whether a model of this name is code, or a download, from outside of viscircuits, torchvision and timm.

    So are a callable, and a name that is not in timm's own lists, such as ``timm:hf-hub:OWNER/NAME``. Nothing is
    imported on the name's word, and what a file names is loaded only where this is False.
    """
    if not name.startswith("timm:"):
        return ":" in name
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        return False  # nothing can come of the name, and `load` says what is missing
    return name.removeprefix("timm:") not in {*timm.list_models(), *timm.list_models(pretrained=True)}


@checked
def prepared_shape(prepare: Prepare) -> tuple[int, ...]:
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
    if what_is(path) or path.suffix or len(path.parts) > 1:
        return None, *files.read(path)
    return str(weights), None, []


def _shapesnet(named: str | None, input_size: int | None) -> tuple[nn.Module, Prepare]:
    from viscircuits.model.zoo.builtin import ShapesTransform, load_shapesnet

    _only_default("shapesnet", named)
    return load_shapesnet(), ShapesTransform() if input_size is None else ShapesTransform(size=input_size)


def _torchvision(
    name: str, named: str | None, state: files.State | None, input_size: int | None
) -> tuple[nn.Module, Prepare]:
    from torchvision import models

    if name not in names() and Path(name).is_file():
        raise ModelError(
            f"{name!r} is {files.described(Path(name))}; give a network's name here, and such a file with weights="
        )
    if name not in names():
        raise ModelError(
            f"no model {name!r}{closest(name, names())}; other models load as 'timm:NAME' or 'package.module:callable'"
        )
    known = models.get_model_weights(name)
    if named is None:
        return models.get_model(name, weights=None, **_options(name, state)), _resized(known["DEFAULT"], input_size)
    if named not in known.__members__:
        raise ModelError(
            f"no file and no weights {named!r} of {name}{closest(named, known.__members__)}; "
            f"expected a file or {', '.join(known.__members__)}"
        )
    try:
        model = models.get_model(name, weights=known[named], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:
        raise ModelError(f"cannot download {known[named].url} ({error}); {_OFFLINE}") from error
    return model, _resized(known[named], input_size)


def _options(name: str, state: files.State | None) -> dict[str, bool]:
    """What torchvision itself passes to the two networks whose options depend on having weights."""
    if name not in _AUX:
        return {}
    heads = state is None or any("aux" in key.lower() for key in state)
    return {"init_weights": False, "transform_input": state is not None, "aux_logits": heads}


def _resized(weights: Any, input_size: int | None) -> Prepare:
    """The transform of torchvision weights, at another size in the same proportion of crop to picture."""
    preset = weights.transforms()
    if input_size is None:
        return preset
    resize = round(input_size * preset.resize_size[0] / preset.crop_size[0])
    return weights.transforms(crop_size=input_size, resize_size=resize)


def _timm(name: str, named: str | None, input_size: int | None) -> tuple[nn.Module, Prepare]:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ModelError(f"'timm:{name}' needs the package timm: pip install 'viscircuits[timm]'") from None
    _only_default(f"timm:{name}", named)
    try:
        model = timm.create_model(name, pretrained=named is not None)
    except Exception as error:  # unknown names, and a dozen kinds of network failure
        near = closest(name, timm.list_models())
        raise ModelError(f"timm cannot load {name!r} ({error}){near}; {_OFFLINE}") from error
    config = timm.data.resolve_model_data_config(model)
    if input_size is not None:
        config = {**config, "input_size": (3, input_size, input_size)}
    return model, timm.data.create_transform(**config, is_training=False)


def _callable(name: str, named: str | None, input_size: int | None) -> tuple[nn.Module, Prepare]:
    _only_default(name, named, default=False)
    where, _, what = name.partition(":")
    try:
        with _alone, _current_folder(), torch.random.fork_rng(devices=[]):
            # its code may seed and draw as it likes; torch.manual_seed here would reseed the CUDA generators too
            torch.default_generator.manual_seed(0)
            made = getattr(importlib.import_module(where), what)
            made = made if isinstance(made, nn.Module) else made()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's own code raises; scripts end with sys.exit
        raise ModelError(f"cannot make a model with {name!r}: {type(error).__name__}: {error}") from error
    model, prepare = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not (prepare is None or callable(prepare)):
        raise ModelError(f"expected {name!r} to return a torch module or (module, prepare), got {type(made).__name__}")
    if prepare is not None and input_size is not None:
        raise ModelError(f"{name!r} brings its own prepare, so an input size of {input_size} does not apply")
    return model, _standard(input_size) if prepare is None else prepare  # pyright: ignore[reportReturnType]


def _standard(input_size: int | None) -> Prepare:
    """ImageNet's usual preparation; a size of one's own is the whole picture's, as small networks want it."""
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    normalise = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Compose([Resize(input_size or 256), CenterCrop(input_size or 224), ToTensor(), normalise])


_alone = RLock()
"""Held while somebody's own code makes a model: search path and random state are all threads'."""


@contextmanager
def _current_folder() -> Iterator[None]:
    here = str(Path.cwd())
    try:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
        yield
    finally:
        if here in sys.path:  # not all of it as it was: what other code adds meanwhile stays
            sys.path.remove(here)


def _only_default(name: str, named: str | None, *, default: bool = True) -> None:
    if named is not None and not (default and named == "DEFAULT"):
        raise ModelError(f"no file {named!r}; {name!r} takes {'DEFAULT or ' if default else ''}a weight file")


def _fill(model: nn.Module, state: files.State, name: str, path: str, beside: list[str]) -> None:
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
        shown = ", ".join(dropped[:4]) + (", ..." if len(dropped) > 4 else "")
        log.warning("left out of %r, as the model has nothing of that name: %s", path, shown)


def _kin(state: files.State) -> str:
    """Which torchvision models the weights would fit, or what to give instead."""
    from torchvision import models

    found: list[str] = []
    for name in models.list_models(module=models):
        wanted = _blank(name, **_options(name, state))
        if wanted and (classes := files.classes_to_fit(state, wanted, 1000)) is not None:
            found.append(f"{name}(num_classes={classes})")
    if not found:
        return "; give a file that was saved from this very model"
    advice = ""
    if "num_classes=1000" not in found[0]:
        advice = f"; return torchvision.models.{found[0]} from a function of your own and load it as 'module:function'"
    return f"; it fits torchvision's {' and '.join(found)}{advice}"


@cache
def _blank(name: str, **options: bool) -> files.State:
    """The state dict of a torchvision model, without storage; empty for RegNets, which are built with real tensors."""
    from torchvision import models

    try:
        with torch.device("meta"):
            return models.get_model(name, weights=None, **options).state_dict()
    except NotImplementedError:
        return {}
