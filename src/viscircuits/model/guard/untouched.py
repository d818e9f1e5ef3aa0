"""Putting back what a forward stores beside a model's replica: in plain objects that hang on it, in random states.

What a replica copies (`viscircuits.model.guard.replica`) is the run's own. The rest is put back: all that a forward
wrote to where there is no replica, else what is in the objects of somebody's own class that modules hold.
"""

import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from viscircuits.model.guard.replica import PLAIN, replica, without_replica

_LIBRARIES = frozenset({"torch", "numpy", *sys.stdlib_module_names}) - {"__main__"}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """A block after which everything that hangs on the modules is what it was before, whatever a forward did.

    What counts or records the caller's own operations (a profile of its flops, say) does not see those of the block.
    """
    with put_back(model), _disable_current_modes():
        yield


@contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """The same, where the caller's own operations are still seen."""
    everything = {id(held): _kept(held) for held in _holders(model)}
    shared = {id(held) for held in _holders(replica(model, {}))}
    try:
        yield
    finally:
        for place, kept in everything.items():
            if place in shared or without_replica(model):
                kept.restore()


@dataclass
class Writing:
    """Whether a forward wrote to what a model shares with its replicas."""

    found: bool = False


@contextmanager
def writing(model: nn.Module) -> Iterator[Writing]:
    """A block at whose end it is known whether forwards of replicas write to one another's."""
    shared = [_kept(held) for held in _holders(replica(model, {}), functions=True)]
    own = {id(held) for held in _holders(model, functions=True)}
    seen = Writing()
    yield seen
    seen.found = any(kept.changed() for kept in shared if id(kept.held) in own)


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


_Container = dict[object, object] | list[object] | set[object] | deque[object]
_Holder = _Container | Tensor | np.ndarray | bytearray
_HOLDERS = (dict, list, set, deque, Tensor, np.ndarray, bytearray)


def _holders(model: nn.Module, *, functions: bool = False) -> Iterator[_Holder]:
    """All containers and arrays that can be reached from the modules, and the tensors that are no parameters there.

    Through functions (hooks, above all) only where asked: what the user's own keep is not the model's to put back.
    """
    seen: set[int] = set()
    kept = {id(t) for t in [*model.parameters(), *model.buffers()]}
    ahead: list[object] = [vars(module) for module in model.modules()]
    while ahead:
        held = ahead.pop()
        if id(held) in seen or type(held) in PLAIN:
            continue
        seen.add(id(held))
        match held:
            case dict():
                ahead += dict.copy(held).values()
            case list() | tuple() | set() | frozenset() | deque():
                ahead += list(held)
            case nn.Module():
                ahead.append(vars(held))
            case partial() if functions:
                ahead += [held.func, held.args, held.keywords]
            case MethodType() if functions:
                ahead.append(held.__self__)
            case FunctionType() if functions:
                ahead += _cells(held)
            case Tensor() if id(held) in kept:
                continue
            case _ if _plain(held):
                ahead.append(vars(held))
        if isinstance(held, _HOLDERS):
            yield held


def _cells(function: FunctionType) -> list[object]:
    """What a function has closed over."""
    contents = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            contents.append(cell.cell_contents)
    return contents


def _plain(held: object) -> bool:
    """Whether something is an object of somebody's own class, with attributes: no class, no function, no library's."""
    own = getattr(held, "__dict__", None)
    known = type(held).__module__.partition(".")[0] in _LIBRARIES | {"builtins"}
    return isinstance(own, dict) and (not known or isinstance(held, SimpleNamespace))


def _kept(held: _Holder) -> "_Entries | _Values | _Numbers":
    """What something held, for later."""
    if isinstance(held, Tensor):
        return _Values(held)
    return _Entries(held) if isinstance(held, dict | list | set | deque) else _Numbers(held)


class _Entries:
    """The entries of a container: which objects they were."""

    def __init__(self, held: _Container) -> None:
        self.held = held
        self.keys, self.values = self._now()

    def _now(self) -> tuple[list[object], list[object]]:
        if isinstance(self.held, dict):
            return list(self.held.keys()), list(self.held.values())
        return [], list(self.held)

    def changed(self) -> bool:
        keys, values = self._now()
        now, before = [*keys, *values], [*self.keys, *self.values]
        return len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True))

    def restore(self) -> None:
        if not self.changed():
            return
        self.held.clear()
        match self.held:
            case dict():  # one by one: a Counter's ``update`` would count
                for key, value in zip(self.keys, self.values, strict=True):
                    self.held[key] = value
            case set():
                self.held.update(self.values)
            case _:
                self.held.extend(self.values)


class _Values:
    """The values of a tensor."""

    def __init__(self, held: Tensor) -> None:
        self.held, self.values = held, held.detach().clone()
        self.version = 0 if held.is_inference() else held._version

    def changed(self) -> bool:
        if self.held.is_inference():  # which has no version
            return not torch.equal(self.held, self.values)
        return self.held._version != self.version

    @torch.no_grad()
    def restore(self) -> None:
        if self.changed():
            self.held.copy_(self.values)


class _Numbers:
    """The content of a numpy array or a bytearray."""

    def __init__(self, held: np.ndarray | bytearray) -> None:
        self.held, self.values = held, held.copy()

    def changed(self) -> bool:
        return _content(self.held) != _content(self.values)

    def restore(self) -> None:
        if not self.changed():
            return
        if isinstance(self.held, np.ndarray):
            self.held[...] = self.values  # an array of no axes takes no slice
        else:
            self.held[:] = self.values


def _content(held: np.ndarray | bytearray) -> bytes:
    return held.tobytes() if isinstance(held, np.ndarray) else bytes(held)
