"""A model that somebody's own code makes: ``package.module:callable``, imported from the current folder too.

Such code may do anything to what belongs to the whole process, so it runs alone and with a random state of its own.
Not here: networks of libraries (`viscircuits.model.zoo.catalogue`).
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TypeGuard

import torch
from torch import nn

from viscircuits.errors import ModelError
from viscircuits.model.zoo.catalogue import Preparation

_alone = RLock()
"""Held while somebody's own code makes a model: search path and random state are all threads'."""


def from_code(name: str, input_size: int | None) -> tuple[nn.Module, Preparation]:
    """Returns what a callable makes: the module, and its preparation, or ImageNet's usual one.

    Args:
        name: ``"package.module:callable"``.
        input_size: side of the square input in pixels, None for the usual one.

    Raises:
        ModelError: the code fails, makes something else, or prepares pictures itself where a size is given.
    """
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
    model: object
    prepare: object
    model, prepare = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not _is_prepare(prepare):
        raise ModelError(f"expected {name!r} to return a torch module or (module, prepare), got {type(made).__name__}")
    if prepare is not None and input_size is not None:
        raise ModelError(f"{name!r} brings its own prepare, so an input size of {input_size} does not apply")
    return model, _standard(input_size) if prepare is None else prepare


def _is_prepare(value: object) -> TypeGuard[Preparation | None]:
    return value is None or callable(value)


def _standard(input_size: int | None) -> Preparation:
    """ImageNet's usual preparation; a size of one's own is the whole picture's, as small networks want it."""
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    normalise = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Compose([Resize(input_size or 256), CenterCrop(input_size or 224), ToTensor(), normalise])


@contextmanager
def _current_folder() -> Iterator[None]:
    here = str(Path.cwd())
    try:
        sys.path.insert(0, here)
        importlib.invalidate_caches()  # a module written a moment ago would not be found
        yield
    finally:
        if here in sys.path:  # not all of it as it was: what other code adds meanwhile stays
            sys.path.remove(here)
