"""The module at which a fault of a model is first seen, and what is said of it.

Everything that goes into and comes out of the modules is written down in two or three runs and compared in order. Not
here: whether there is a fault (`viscircuits.model.trial`); nothing is run here for a model that has none.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.model.guard.replica import private
from viscircuits.model.instrument import constants
from viscircuits.model.output import named_leaves
from viscircuits.model.tracing.differences import SAME, differ


def random(model: nn.Module, images: Float[Tensor, "n c h w"]) -> str:
    """Returns what is said of a model that gives other numbers when it runs again on the same pictures."""
    module = _first_seen([_events(model, images)], _events(model, images), SAME)
    return (
        f"the model is random: {_named(module)} gives other numbers for the same picture when it runs again (dropout "
        f"or noise that is left on in evaluation mode); switch it off"
    )


def mixing(model: nn.Module, both: Float[Tensor, "n c h w"], share: float) -> str:
    """Returns what is said of a model that gives two pictures other numbers together than one by one.

    Args:
        model: the user's module.
        both: the two pictures.
        share: of the largest value, from which a difference counts.
    """
    parts = [_events(model, both[:1]), _events(model, both[1:])]
    return mixes(_named(_first_seen(parts, _events(model, both), share)))


def mixes(where: str) -> str:
    """Returns what is said of a module that mixes the images of a batch."""
    return (
        f"{where} mixes the images of a batch: what it gives for one image depends on the others (a mean over the "
        f"batch, say), so that no number is one image's own; give the part of the model before it, or make it work "
        f"image by image"
    )


def one_by_one(model: nn.Module, both: Float[Tensor, "n c h w"]) -> str:
    """Returns what is said of a model that uses its kernels once for each picture of a batch."""
    together, alone = _calls(_events(model, both)), _calls(_events(model, both[:1]))
    # in the order of first calls, so that of several modules within each other the outermost is named
    inner = next((name for name, count in together.items() if count != alone[name]), None)
    what = f"its module {inner!r}" if inner else "a model that takes a whole batch"
    return (
        f"the model takes the images of a batch one by one ({_named(inner or '')} runs once an image), so that their "
        f"gradients cannot be told from those of a layer that is used several times; give {what} instead"
    )


@dataclass(frozen=True)
class _Event:
    """What a module was given, or what it gave."""

    kind: Literal["given", "gave"]
    module: str
    inside: str  # the module whose forward was running
    tensors: list[Tensor]


@torch.no_grad()
def _events(model: nn.Module, images: Tensor) -> list[_Event]:
    """Everything that goes into and comes out of the modules during one run, in order."""
    events: list[_Event] = []
    running: list[str] = [""]

    def given(name: str, module: nn.Module, inputs: object) -> None:
        events.append(_Event("given", name, running[-1], _copies(inputs)))
        running.append(name)

    def gave(name: str, module: nn.Module, inputs: object, output: object) -> None:
        running.pop()
        events.append(_Event("gave", name, running[-1], _copies(output)))

    with private(model, constants(model)) as mine, _hooked(mine.module, given, gave):
        mine.run(images.clone())  # a forward may write to its pictures
    return events


@contextmanager
def _hooked(model: nn.Module, given: Callable[..., None], gave: Callable[..., None]) -> Iterator[None]:
    handles = []
    try:  # around the first hook too: Ctrl-C may fall between two, and a model without a replica is the user's own
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(given, name)))
            handles.append(module.register_forward_hook(partial(gave, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copies(value: object) -> list[Tensor]:
    """The tensors in a value as they are now: a later in-place operation may overwrite them."""
    return [leaf.detach().clone() for leaf in named_leaves(value).values()]


def _first_seen(parts: list[list[_Event]], whole: list[_Event], share: float) -> str:
    """The module where a difference is first seen: what it was given agrees, what it gives or hands on does not."""
    # runs may go different ways and have different numbers of events; compared is what they have in common
    for *own, event in zip(*parts, whole, strict=False):
        if differ([one.tensors for one in own], event.tensors, share):
            # what a module is given was made by the forward that calls it
            return event.module if event.kind == "gave" else event.inside
    return ""


def _named(module: str) -> str:
    return f"module {module!r}" if module else "the model's own forward"


def _calls(events: list[_Event]) -> Counter[str]:
    return Counter(event.module for event in events if event.kind == "given")
