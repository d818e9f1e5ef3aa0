"""What torch keeps for a thread (gradients on or off, modes) is after a call what it was before, however it ends.

Every block that changes it puts it back. But Ctrl-C may fall into the few lines between a change and the block that
watches over it, and torch's own blocks are made of such lines.
"""

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from inspect import isgeneratorfunction, unwrap
from traceback import clear_frames
from typing import Any, ParamSpec, TypeVar

import torch
import torch.utils._python_dispatch as dispatch
from torch._C import _autograd  # pyright: ignore[reportAttributeAccessIssue]
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

from viscircuits.model.guard.neutral import DEVICES, neutral

P = ParamSpec("P")
T = TypeVar("T")


def clean(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function that leaves its thread as it was, after success, an error and Ctrl-C.

    Meanwhile it finds the thread as a new process would (`viscircuits.model.guard.neutral`). One that yields has its
    own state only between two of its values.
    """
    if isgeneratorfunction(unwrap(function)):  # what checks types wraps functions
        return _step_by_step(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        before, earlier = _State(), sys.exception()
        try:
            try:
                with neutral():
                    return function(*args, **kwargs)
            except KeyboardInterrupt as interrupt:
                clear_frames(interrupt.__traceback__)  # half-opened blocks would put back their state as they are freed
                raise
            except Exception as error:  # a block of torch's that Ctrl-C has broken may fail as it ends
                if not _interrupted(error, earlier):
                    raise
                clear_frames(error.__traceback__)
                raise KeyboardInterrupt from error
            finally:
                before.put_back()
        finally:
            before.put_back()  # Ctrl-C may have fallen into the first

    return call


def _step_by_step(function: Callable[P, Any]) -> Callable[P, Any]:
    step = clean(next)

    @wraps(function)
    def each(*args: P.args, **kwargs: P.kwargs) -> Iterator[object]:
        values = function(*args, **kwargs)
        while (value := step(values, _END)) is not _END:
            yield value

    return each


_END = object()


def _interrupted(error: BaseException | None, earlier: BaseException | None) -> bool:
    """Whether an error arose while Ctrl-C was on its way out of this call; its caller may have had one earlier."""
    while error is not None and error is not earlier and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return isinstance(error, KeyboardInterrupt) and error is not earlier


class _State:
    """What one thread has in torch."""

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.autocast = {device: torch.is_autocast_enabled(device) for device in DEVICES}
        self.functions = _get_current_function_mode_stack()
        self.dispatches = dispatch._get_current_dispatch_mode_stack()
        self.saved = saved_tensor_hooks()

    def put_back(self) -> None:
        torch._C._set_grad_enabled(self.gradients)
        for device, enabled in self.autocast.items():
            torch.set_autocast_enabled(device, enabled)
        if (now := _get_current_function_mode_stack()) != self.functions:
            for _ in now:
                _pop_mode()
            for mode in self.functions:
                _push_mode(mode)
        if (now := dispatch._get_current_dispatch_mode_stack()) != self.dispatches:
            for _ in now:
                dispatch._pop_mode()
            for mode in self.dispatches:
                dispatch._push_mode(mode)
        while saved_tensor_hooks() not in (self.saved, None):
            _autograd._pop_saved_tensors_default_hooks()


def saved_tensor_hooks() -> object:
    """Returns the innermost hooks on what autograd keeps, a pair of functions, or None."""
    return _autograd._top_saved_tensors_default_hooks(True)
