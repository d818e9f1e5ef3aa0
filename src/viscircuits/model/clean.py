"""What torch keeps for a thread (gradients on or off, modes) is after a call what it was before, however it ends.

Every block that changes it puts it back. But Ctrl-C may fall into the few lines between a change and the block that
watches over it, and torch's own blocks are made of such lines.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.utils._python_dispatch as dispatch
from torch._C import _autograd  # pyright: ignore[reportAttributeAccessIssue]
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode

from viscircuits.model.neutral import neutral

P = ParamSpec("P")
T = TypeVar("T")


def clean(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function that leaves its thread as it was, after success, an error and Ctrl-C.

    Meanwhile it finds the thread as a new process would (`viscircuits.model.neutral`).
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        before = _State()
        try:
            try:
                with neutral():
                    return function(*args, **kwargs)
            finally:
                before.put_back()
        finally:
            before.put_back()  # Ctrl-C may have fallen into the first

    return call


class _State:
    """What one thread has in torch."""

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.functions = _get_current_function_mode_stack()
        self.dispatches = dispatch._get_current_dispatch_mode_stack()
        self.saved = _saved_tensors()

    def put_back(self) -> None:
        torch._C._set_grad_enabled(self.gradients)
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
        while _saved_tensors() not in (self.saved, None):
            _autograd._pop_saved_tensors_default_hooks()


def _saved_tensors() -> object:
    """The innermost hooks on what autograd keeps, or None."""
    return _autograd._top_saved_tensors_default_hooks(True)
