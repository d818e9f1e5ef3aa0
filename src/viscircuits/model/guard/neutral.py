"""What the caller switched on for torch as a whole does not change a number: inference mode, autocast, default types.

For the thread that asks these are put aside while it works. A default floating type is all threads' own, so that it
stays, and new tensors of this thread are given 32 bits as they are made.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext

_BY_SIZE: frozenset[Callable[..., Tensor]] = frozenset({
    torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace,
})  # fmt: skip
_BY_VALUE: frozenset[Callable[..., Tensor]] = frozenset({torch.full, torch.tensor, torch.arange})

_callers = threading.local()

DEVICES = ("cpu", "cuda")
"""Those for which autocast may be on."""


class _ThirtyTwoBits(TorchFunctionMode):
    """While it is on, new tensors have 32-bit numbers where their type is not said."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        options = kwargs or {}
        if options.get("dtype") is not None:
            return func(*args, **options)
        if func in _BY_SIZE:
            return func(*args, **{**options, "dtype": torch.float32})
        made = func(*args, **options)
        # whole numbers and truth values keep their type; an array or tensor that is copied keeps its own
        plain = func in _BY_VALUE and not hasattr(args[0] if args else None, "dtype")
        return made.float() if plain and isinstance(made, Tensor) and made.dtype == torch.get_default_dtype() else made


@contextmanager
def neutral() -> Iterator[None]:
    """A block in which torch works as it does in a new process; of this thread only."""
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        # a default device stays the model's business (`callers_device`); our own tensors are made where we say
        devices = [mode for mode in _get_current_function_mode_stack() if isinstance(mode, DeviceContext)]
        if devices and devices[-1].device.type != "cpu":
            before = getattr(_callers, "device", None)
            stack.callback(setattr, _callers, "device", before)
            _callers.device = devices[-1].device
            stack.enter_context(torch.device("cpu"))
        modes = _get_current_function_mode_stack()
        if torch.get_default_dtype() != torch.float32 and not any(isinstance(mode, _ThirtyTwoBits) for mode in modes):
            stack.enter_context(_ThirtyTwoBits())
        yield


def callers_device(device: torch.device) -> AbstractContextManager[object]:
    """Returns a block in which a model finds the default device that its caller set, where that is its own."""
    given = getattr(_callers, "device", None)
    return given if given is not None and given.type == device.type else nullcontext()
