"""One thread at a time in `torch.export`, without the other threads noticing.

While it exports, torch exchanges methods of `torch.nn.Module` for all threads, switches its fast kernels off (lest the
choice of a kernel limit the number of images), and afterwards puts the global random state back to what it was before:
another thread's modules would land in the graph, its results have other last digits, and its random numbers come twice.
It also says to all threads that one compiles, whereupon optimisers take another way, and lets them write to its notes.
Here the exchange holds in the exporting thread only. On a CPU its fast kernels stay on and are not chosen between. The
random state is left alone; exporting draws nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import wraps
from threading import RLock, get_ident
from unittest.mock import patch

import torch
from torch import nn

lock = RLock()
"""Held while a model is traced: torch.export is not made for two threads."""


@contextmanager
def exporting(device: torch.device) -> Iterator[None]:
    """A block in which one thread exports a model on a device; the others' modules and random numbers are theirs."""
    from torch._functorch import aot_autograd
    from torch.export import _trace
    from torch.fx import _symbolic_trace, traceback

    here = _in_this_thread
    with lock, ExitStack() as stack:
        # torch may be interrupted while it puts these back
        for name in ("__call__", "__getattr__"):
            stack.callback(setattr, nn.Module, name, getattr(nn.Module, name))
        replaced = [(aot_autograd, "preserve_rng_state", nullcontext)]
        if device.type == "cpu":
            replaced += [
                (torch._C, "_select_conv_backend", lambda *_, **__: None),
                (torch._C, "_conv_determine_backend_memory_format", lambda *_: torch.contiguous_format),
                (_trace, "_ignore_backend_decomps", nullcontext),
            ]
        for owner, name, new in replaced:
            stack.enter_context(patch.object(owner, name, here(new, getattr(owner, name))))
        compiling = torch.compiler.is_compiling()
        for name in ("is_compiling", "is_exporting"):
            theirs = here(getattr(torch.compiler, name), lambda: compiling)
            stack.enter_context(patch.object(torch.compiler, name, theirs))
        noting = here(traceback.annotate, lambda *_: nullcontext())
        stack.enter_context(patch.object(traceback, "annotate", noting))
        # what cannot be exported is printed, a thousand lines of it
        stack.enter_context(patch.object(_trace, "print", here(lambda *_, **__: None, print), create=True))
        exchange = _symbolic_trace._Patcher.patch_method

        def exchange_here(
            self: _symbolic_trace._Patcher, owner: type, name: str, new: Callable[..., object], **options: bool
        ) -> None:
            exchange(self, owner, name, here(new, getattr(owner, name)), **options)

        stack.enter_context(patch.object(_symbolic_trace._Patcher, "patch_method", exchange_here))
        yield


def _in_this_thread(new: Callable[..., object], usual: Callable[..., object]) -> Callable[..., object]:
    """A function that is a new one in the thread that asks now, and the usual one in all others."""
    thread = get_ident()

    @wraps(new)
    def either(*args: object, **kwargs: object) -> object:
        return (new if get_ident() == thread else usual)(*args, **kwargs)

    return either
