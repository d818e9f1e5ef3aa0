"""What the graph of a model depends on, as a value that can be compared: two equal states have one graph.

Convention: modules, hooks and functions enter by identity and are held weakly; settings, shapes and types by value. The
values of weights do not enter, as they do not change what reaches what. Not here: the graphs
(`viscircuits.model.trace`).
"""

import weakref
from collections.abc import Callable
from functools import partial
from types import MethodType

from torch import nn
from torch.nn.modules import module as of_all

_PLAIN = (bool, int, float, str, tuple)


def state(model: nn.Module) -> object:
    """Returns the state of a model: its modules, their settings and hooks, the shapes of its tensors, which are one."""
    # graphs are kept for as long as their model lives, so that a strong reference from here would keep it for ever
    modules = [(name, weakref.ref(module), _settings(module)) for name, module in model.named_modules()]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    # tied weights are one layer: tying or parting them makes another graph, while every shape stays
    first: dict[int, str] = {}
    tied = [first.setdefault(id(tensor), name) for name, tensor in tensors]
    hooks = [_weakly(hook) for hook in hooks_of_all()]
    return modules, hooks, tied, [(name, tuple(t.shape), t.dtype, t.device) for name, t in tensors]


def hooks_of_all() -> list[Callable[..., object]]:
    """Returns the hooks that torch runs on every module there is, save for those of our own runs."""
    hooks = (*of_all._global_forward_hooks.values(), *of_all._global_forward_pre_hooks.values())
    return [hook for hook in hooks if not _is_ours(hook)]


def _settings(module: nn.Module) -> list[tuple[str, object]]:
    """Attributes that are plain values (a stride, a flag that a forward branches on), and functions: hooks, patches."""
    settings: list[tuple[str, object]] = []
    for name, value in vars(module).copy().items():  # another thread may be writing to it
        if isinstance(value, _PLAIN):
            settings.append((name, value))
        elif callable(value) and not isinstance(value, nn.Module):
            settings.append((name, _weakly(value)))
    for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
        if not _is_ours(hook):
            settings.append(("a hook", _weakly(hook)))
    return settings


def _is_ours(hook: object) -> bool:
    """Whether a hook belongs to a run of ours.

    Such hooks stand on the user's own modules only where a model has no replica, and are gone when the run ends: the
    model is the same with them.
    """
    function = hook.func if isinstance(hook, partial) else hook
    return str(getattr(function, "__module__", "")).startswith("viscircuits.")


def _weakly(function: object) -> object:
    """A value that is equal for one function alone, and does not keep it alive."""
    if isinstance(function, MethodType):  # every look at a method makes a new object of the same two parts
        return function.__func__, _weakly(function.__self__)
    try:
        # an id by itself may be another function's after this one is gone; a dead reference is equal to nothing else
        return id(function), weakref.ref(function)
    except TypeError:  # builtin functions and objects with __slots__ take no weak references
        return id(function)
