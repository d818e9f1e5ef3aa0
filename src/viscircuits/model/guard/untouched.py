"""Putting back what a forward stores beside a model's replica: in plain objects that hang on it, in random states.

What a replica copies (`viscircuits.model.guard.replica`) is the run's own. The rest is put back: all that a forward
wrote to where there is no replica, else what is in the objects of somebody's own class that modules hold.
"""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from viscircuits.model.guard.replica import replica, without_replica

_LIBRARIES = frozenset({"torch", "numpy", *sys.stdlib_module_names}) - {"__main__"}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A block after which everything that hangs on the modules is what it was before, whatever a forward did.

    What counts or records the caller's own operations (a profile of its flops, say) does not see those of the block.
    """
    put_back = {id(held): _remembered(held) for held in _holders(model)}
    shared = {id(held) for held in _holders(replica(model, {}))}
    try:
        with _disable_current_modes():
            yield
    finally:
        for place, restore in put_back.items():
            if place in shared or without_replica(model):
                restore()


@dataclass
class Drawn:
    """Whether random numbers that were drawn meanwhile can only be another thread's."""

    by_another: bool = False


@contextmanager
def same_random_state(device: torch.device) -> Iterator[Drawn]:
    """A block after which Python, numpy and torch draw what they would have drawn without it.

    The generators are all threads' own, so they are put back only where it is not said that none of the numbers were
    drawn here.
    """
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    drawn = Drawn()
    try:
        yield drawn
    finally:
        if not drawn.by_another:
            random.setstate(python)
            np.random.set_state(numbers)
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)


def _holders(model: nn.Module) -> Iterator[Any]:
    """All dicts, lists and sets that can be reached from the modules, and the tensors that are no parameters there."""
    seen: set[int] = set()
    kept = {id(t) for t in [*model.parameters(), *model.buffers()]}
    ahead: list[Any] = [vars(module) for module in model.modules()]
    while ahead:
        held = ahead.pop()
        if id(held) in seen:
            continue
        seen.add(id(held))
        match held:
            case dict():
                ahead += held.values()
            case list() | tuple() | set() | frozenset() | deque():
                ahead += held
            case nn.Module():
                ahead.append(vars(held))
            case Tensor() if id(held) in kept:
                continue
            case _ if _plain(held):
                ahead.append(vars(held))
        if isinstance(held, dict | list | set | deque | Tensor):
            yield held


def _plain(held: object) -> bool:
    """Whether something is an object of somebody's own class, with attributes: no class, no function, no library's."""
    own = getattr(held, "__dict__", None)
    return isinstance(own, dict) and type(held).__module__.partition(".")[0] not in _LIBRARIES | {"builtins"}


def _remembered(held: Any) -> Callable[[], None]:
    """What puts back a container's entries, where they are not the same objects any more, or a tensor's values."""
    if isinstance(held, Tensor):
        return _remembered_values(held)
    keys, before = (list(held), list(held.values())) if isinstance(held, dict) else ([], list(held))

    def restore() -> None:
        now = [*held.keys(), *held.values()] if isinstance(held, dict) else list(held)
        wanted = [*keys, *before]
        if len(now) == len(wanted) and all(a is b for a, b in zip(now, wanted, strict=True)):
            return
        held.clear()
        if isinstance(held, dict):
            held.update(zip(keys, before, strict=True))
        else:
            held.update(before) if isinstance(held, set) else held.extend(before)

    return restore


def _remembered_values(held: Tensor) -> Callable[[], None]:
    version, values = held._version if not held.is_inference() else 0, held.detach().clone()

    @torch.no_grad()
    def restore() -> None:
        if held.is_inference() or held._version != version:
            held.copy_(values)

    return restore
