"""A model of one's own for a while: what a run does to it, nobody else's run sees.

A *replica* is a private copy of a module tree that shares its tensors, or has others in their places: edited weights,
copies of buffers. Hooks and weights are put on it, never on the user's modules, so that several threads may run one
model, the user's own among them. Copied are modules, and what hangs on them as dicts, lists, tuples, sets and bound
methods; a forward that reaches the user's own modules in another way (through a closure, an object of somebody's
class) would run them, with weights that no mask has edited. A model is tried for that once. Where it does so, there is
no replica: the model itself is used, by one thread at a time, with its tensors exchanged for as long as a run lasts.
Where replicas write to something that they share, they run one at a time, and what they wrote is put back.
"""

import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import RLock
from types import FrameType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from viscircuits.model.guard.neutral import callers_device

T = TypeVar("T")

_originals: "weakref.WeakKeyDictionary[nn.Module, AbstractContextManager[object]]" = weakref.WeakKeyDictionary()
"""The models that have no replica, each with the lock under which it is used."""

_writers: "weakref.WeakKeyDictionary[nn.Module, AbstractContextManager[object]]" = weakref.WeakKeyDictionary()
"""The models whose replicas write to what they share (an object that keeps features, say), each with its lock."""


@dataclass(frozen=True)
class Private:
    """A model to run and to put hooks on.

    Attributes:
        module: the model, or its replica; its modules have the same names.
        run: ``images -> output``, with the tensors that were asked for.
    """

    module: nn.Module
    run: Callable[[Tensor], Any]


@contextmanager
def private(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[Private]:
    """Yields the model to use within a block, with tensors of one's own for some of its parameters and buffers.

    Args:
        model: the user's module.
        tensors: by full name (of a tied tensor, the first).
    """
    lock = _originals.get(model)
    if lock is None:
        with _writers.get(model, nullcontext()):
            module = replica(model, tensors)
            yield Private(module, partial(_run, module))
        return
    with lock:
        yield Private(model, partial(_run, lambda *inputs: functional_call(model, dict(tensors), inputs)))


def _run(model: Callable[[Tensor], T], images: Tensor) -> T:
    with callers_device(images.device):
        return model(images)


def without_replica(model: nn.Module) -> bool:
    """Returns whether a model is used itself, by one thread at a time."""
    return model in _originals


def use_itself(model: nn.Module) -> None:
    """Makes `private` give the model itself from now on."""
    _originals.setdefault(model, RLock())


def at_rest(model: nn.Module) -> AbstractContextManager[object]:
    """Returns a block in which a model has its own tensors, and not those that another thread runs it with."""
    return _originals.get(model, nullcontext())


def like(model: nn.Module) -> Tensor:
    """Returns an empty tensor on a model's device and of its floating type; of torch's own where it has no weights."""
    with at_rest(model):
        # the first floating parameter: quantised weights and counters say nothing of the type that images need
        own = next((p for p in model.parameters() if p.is_floating_point()), None)
    return torch.empty(0) if own is None else torch.empty(0, dtype=own.dtype, device=own.device)


def own_parameter(model: nn.Module, name: str) -> Tensor:
    """Returns a parameter of a model, without gradients, whatever other threads run it with."""
    with at_rest(model):
        return model.get_parameter(name).detach()


def one_at_a_time(model: nn.Module) -> None:
    """Makes `private` give one thread at a time its replica from now on."""
    _writers.setdefault(model, RLock())


def leaves_traces(model: nn.Module) -> bool:
    """Returns whether a run of the model, or of a replica, may write to what is the user's."""
    return model in _originals or model in _writers


def replica(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Returns a copy of a module tree: its own modules and containers; all parameters and buffers but those given."""
    named = [*model.named_parameters(), *model.named_buffers()]
    given = {id(tensor): tensors[name] for name, tensor in named if name in tensors}
    shared = {id(tensor) for _, tensor in named} - given.keys()
    twin = _Copying(given, shared).copy(model)
    assert isinstance(twin, nn.Module)
    return twin


class _Copying:
    """Copies of what hangs on a module, each once."""

    def __init__(self, given: Mapping[int, Tensor], shared: set[int]) -> None:
        self.made: dict[int, object] = dict(given)
        self.shared = shared

    def copy(self, held: object) -> object:
        # exact types: of a subclass nobody knows what else its objects hold, or what making one does
        kind = type(held)
        if kind in PLAIN:
            return held
        known = self.made.get(id(held))
        if known is not None:
            return known
        if isinstance(held, nn.Module):
            return self._module(held)
        if isinstance(held, dict) and kind in (dict, OrderedDict):
            return self._mapping(held)
        if isinstance(held, list | deque) and kind in (list, deque):
            return self._sequence(held)
        if isinstance(held, tuple) and kind is tuple:
            return tuple(map(self.copy, held))
        if isinstance(held, set) and kind is set:
            return set(map(self.copy, held.copy()))
        if isinstance(held, MethodType) and isinstance(held.__self__, nn.Module):
            return MethodType(held.__func__, self.copy(held.__self__))
        if isinstance(held, Tensor) and id(held) not in self.shared and not isinstance(held, nn.Parameter):
            made = self.made[id(held)] = held.detach().clone()  # a forward may write to it
            return made
        return held

    # what may hold itself is noted before its parts are copied; another thread may write to it meanwhile, so that
    # its entries are taken in one go

    def _module(self, held: nn.Module) -> nn.Module:
        made = object.__new__(type(held))  # past ``__init__``, which would draw weights
        self.made[id(held)] = made
        own = vars(made)
        for name, value in vars(held).copy().items():
            own[name] = value if type(value) in PLAIN or name in _AS_THEY_ARE else self.copy(value)
        return made

    def _mapping(self, held: dict[object, object]) -> dict[object, object]:
        made = type(held)()
        self.made[id(held)] = made
        for key, value in held.copy().items():
            made[key] = value if type(value) in PLAIN else self.copy(value)
        return made

    def _sequence(self, held: list[object] | deque[object]) -> list[object] | deque[object]:
        made = [] if isinstance(held, list) else deque(maxlen=held.maxlen)
        self.made[id(held)] = made
        made.extend(map(self.copy, held.copy()))
        return made


PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
"""Types of which a value never changes."""

_AS_THEY_ARE = frozenset({
    "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_non_persistent_buffers_set",
})  # fmt: skip
"""Containers of every module to which no forward writes; copying them would take half of the time."""


class Strays(TorchFunctionMode):
    """While it is on, notices whether the modules or the tensors of a model are used; its replica's do not count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = False
        self._base = 0
        self._known = {id(module) for module in model.modules()}
        self._tensors = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}

    def __enter__(self) -> "Strays":
        self._base = id(sys._getframe(1))
        return super().__enter__()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if not self.found:
            given = tree_leaves((args, kwargs))
            self.found = any(id(value) in self._tensors for value in given) or self._running(sys._getframe(1))
        return func(*args, **(kwargs or {}))

    def _running(self, frame: FrameType | None) -> bool:
        """Whether a method of one of the modules is running."""
        # only up to the block: the caller's own methods run above it, perhaps one of the model's
        while frame is not None and id(frame) != self._base:
            if frame.f_code.co_varnames[:1] == ("self",) and id(frame.f_locals.get("self")) in self._known:
                return True
            frame = frame.f_back
        return False
