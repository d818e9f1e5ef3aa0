"""What a model does when it is run for real, before anything is believed of its graph.

Everything here relies on one picture's numbers being its own and the same in every run. So a model is run on two
pictures of noise: both together twice, one by one, and the first once more (seven forward passes of one picture, once
a model). What is found is refused with the name of the module at which it is first seen.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from viscircuits.model.guard.replica import Strays, one_at_a_time, private, use_itself, without_replica
from viscircuits.model.guard.untouched import writing
from viscircuits.model.instrument import constants, kernel_calls
from viscircuits.model.output import named_leaves

MIXED = 1e-3
"""A picture's output in company and alone may differ by this share of the largest output."""

_SAME = 1e-5
"""Two runs on the same picture may differ by this share."""

_ROUNDINGS = 8
"""How many roundings of the coarsest floating type on the way a difference may be, if that is more."""

_TF32 = 2.0**-11
"""A rounding of what a GPU may make of 32-bit numbers within a convolution."""


def noise(model: nn.Module, n: int, shape: tuple[int, ...]) -> Tensor:
    """Returns pictures of noise, always the same, in the model's floating type and on its device."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    drawn = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(dtype=like.dtype, device=like.device)


def at_least_rounding(share: float, *dtypes: torch.dtype) -> float:
    """Returns a share, or what rounding to the coarsest of some floating types makes, if that is more."""
    return max([share, *(_ROUNDINGS * torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)])


@torch.no_grad()
def forward(
    model: nn.Module, images: Tensor, watch: Strays | None = None, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """Returns what the model gives, on a copy of the pictures: a forward may write to them."""
    with private(model, constants(model) if tensors is None else tensors) as mine, watch or nullcontext():
        return mine.run(images.clone())


def again(model: nn.Module, shape: tuple[int, ...], fault: str) -> "Tried":
    """Returns what comes of running a model at another size than that at which its fault was looked for."""
    layout, found = _first_run(model, noise(model, 2, shape))
    return Tried(layout, fault, found.called)


def _first_run(model: nn.Module, images: Tensor, watch: Strays | None = None) -> tuple[torch.memory_format, "_Run"]:
    """Channels last make convolutions up to four times as fast on a CPU; a model that calls ``view`` may refuse."""
    if images.ndim == 4:
        try:
            return torch.channels_last, _run(model, images.contiguous(memory_format=torch.channels_last), watch)
        except RuntimeError:
            pass
    return torch.contiguous_format, _run(model, images, watch)


def _settled(model: nn.Module, images: Tensor) -> tuple[torch.memory_format, "_Run"]:
    """The first run, in which it is seen whether a replica of the model does without the model itself."""
    if without_replica(model) or any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        use_itself(model)
        return _first_run(model, images)
    strays = Strays(model)
    try:
        found = _first_run(model, images, strays)
    except Exception:  # the model's own error, or one that only a replica makes
        use_itself(model)
        return _first_run(model, images)
    if not strays.found:
        strays.found = _strays_with_gradients(model, images)
    if strays.found:
        use_itself(model)
        return _first_run(model, images)
    return found


def _strays_with_gradients(model: nn.Module, images: Tensor) -> bool:
    """The same where gradients are on, as a forward may ask; notices too whether replicas write to what they share.

    It is the second run at this size: what a first one makes and keeps for later ones is there.
    """
    strays = Strays(model)
    with writing(model) as shared, suppress(Exception):  # errors are those of scoring, which tells them
        tensors = constants(model)
        with private(model, tensors) as mine, torch.enable_grad(), strays:
            mine.run(images.clone())
    if shared.found:
        one_at_a_time(model)
    return strays.found


class Tried(NamedTuple):
    """What came of a trial.

    Attributes:
        layout: the faster layout of images.
        fault: why no number of the model can be trusted, if so.
        called: the weights of which a call was seen; those used out of sight (within attention) carry signals.
    """

    layout: torch.memory_format
    fault: str = ""
    called: frozenset[str] = frozenset()


def tried(model: nn.Module, shape: tuple[int, ...]) -> Tried:
    """Returns what came of running a model on noise: it may be random, mix images, or take them one by one."""
    both = noise(model, 2, shape)
    layout, joint = _settled(model, both)
    return Tried(layout, _fault(model, both.contiguous(memory_format=layout), joint), joint.called)


def _fault(model: nn.Module, both: Tensor, joint: "_Run") -> str:
    share = at_least_rounding(MIXED, *(dtype for _, _, dtype in joint.calls))
    share = max(share, _ROUNDINGS * _TF32) if both.is_cuda else share
    try:
        first = _run(model, both[:1])
    except Exception:  # a model may refuse a single picture; then its company is exchanged instead
        return _in_other_company(model, both, joint, share)
    if _differ([first.outputs], _run(model, both[:1]).outputs, _SAME):
        return _random(model, both[:1])
    if first.calls != joint.calls:
        return _one_by_one(model, both)
    if _differ([first.outputs, _run(model, both[1:]).outputs], joint.outputs, share):
        return _mixing(model, both, share)
    return ""


class _Run(NamedTuple):
    """What a model gave, how often it used kernels, and whose."""

    outputs: list[Tensor]
    calls: Counter[Any]
    called: frozenset[str]


def _run(model: nn.Module, images: Tensor, watch: Strays | None = None) -> _Run:
    tensors = constants(model)
    with kernel_calls() as (calls, weights):
        output = forward(model, images, watch, tensors)
    called = frozenset(name for name, tensor in tensors.items() if id(tensor) in weights)
    return _Run([leaf for leaf in named_leaves(output).values() if leaf.is_floating_point()], calls, called)


def _in_other_company(model: nn.Module, both: Tensor, joint: _Run, share: float) -> str:
    """The same for a model that refuses a single picture: the first one with another beside it."""
    if _differ([_run(model, both).outputs], joint.outputs, _SAME):
        return _random(model, both)
    other = _run(model, torch.cat([both[:1], both[1:].flip(-1)]))
    mixes = _differ([[o[:1] for o in other.outputs if o.ndim]], [o[:1] for o in joint.outputs if o.ndim], share)
    return _MIXES.format(where="the model") if mixes else ""


# ---- whether outputs differ ------------------------------------------------------------------------------------------


def _differ(parts: list[list[Tensor]], whole: list[Tensor], share: float) -> bool:
    """Whether some tensor of the whole batch is not what its parts gave, put together."""
    return any(apart(list(own), both, share) for *own, both in zip(*parts, whole, strict=False))


def apart(parts: list[Tensor], whole: Tensor, share: float) -> bool:
    """Whether a tensor is not its parts put together along the axis of the pictures; False where there is none.

    A difference counts from a share of the largest value on.
    """
    axis = _batch_axis(parts, whole)
    if axis is None or not whole.numel():
        return False
    expected = torch.cat(parts, axis)
    known = whole.isfinite() & expected.isfinite()  # where both overflow, nothing can be told
    if bool((known != (whole.isfinite() | expected.isfinite())).any()):
        return True
    largest = whole[known].abs().max() if bool(known.any()) else 0
    return bool(((whole - expected)[known].abs() > share * largest).any())


def _batch_axis(parts: list[Tensor], whole: Tensor) -> int | None:
    """The axis along which the parts add up to the whole; the first for a single part of the same shape."""
    if not whole.is_floating_point() or any(part.ndim != whole.ndim for part in parts):
        return None
    sizes = [tuple(part.shape) for part in parts]
    for axis, size in enumerate(whole.shape):
        others = {shape[:axis] + shape[axis + 1 :] for shape in sizes}
        if sum(shape[axis] for shape in sizes) == size and others == {(*whole.shape[:axis], *whole.shape[axis + 1 :])}:
            return axis
    return None


# ---- where it is first seen ------------------------------------------------------------------------------------------


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

    def given(name: str, module: nn.Module, inputs: Any) -> None:
        events.append(_Event("given", name, running[-1], _copies(inputs)))
        running.append(name)

    def gave(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        running.pop()
        events.append(_Event("gave", name, running[-1], _copies(output)))

    with private(model, constants(model)) as mine, _hooked(mine.module, given, gave):
        mine.run(images.clone())
    return events


@contextmanager
def _hooked(model: nn.Module, given: Callable[..., None], gave: Callable[..., None]) -> Iterator[None]:
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(given, name)))
            handles.append(module.register_forward_hook(partial(gave, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copies(value: Any) -> list[Tensor]:
    return [leaf.detach().clone() for leaf in named_leaves(value).values()]


def _first_seen(parts: list[list[_Event]], whole: list[_Event], share: float) -> str:
    """The module where a difference is first seen: what it was given agrees, what it gives or hands on does not."""
    for *own, event in zip(*parts, whole, strict=False):
        if _differ([one.tensors for one in own], event.tensors, share):
            return event.module if event.kind == "gave" else event.inside
    return ""


def _named(module: str) -> str:
    return f"module {module!r}" if module else "the model's own forward"


def _random(model: nn.Module, images: Tensor) -> str:
    module = _first_seen([_events(model, images)], _events(model, images), _SAME)
    return (
        f"the model is random: {_named(module)} gives other numbers for the same picture when it runs again (dropout "
        f"or noise that is left on in evaluation mode); switch it off"
    )


_MIXES = (
    "{where} mixes the images of a batch: what it gives for one image depends on the others (a mean over the batch, "
    "say), so that no number is one image's own; give the part of the model before it, or make it work image by image"
)


def _mixing(model: nn.Module, both: Tensor, share: float) -> str:
    parts = [_events(model, both[:1]), _events(model, both[1:])]
    return _MIXES.format(where=_named(_first_seen(parts, _events(model, both), share)))


def _one_by_one(model: nn.Module, both: Tensor) -> str:
    calls = _calls(_events(model, both)), _calls(_events(model, both[:1]))
    inner = next((name for name, count in calls[0].items() if count != calls[1][name]), None)
    what = f"its module {inner!r}" if inner else "a model that takes a whole batch"
    return (
        f"the model takes the images of a batch one by one ({_named(inner or '')} runs once an image), so that their "
        f"gradients cannot be told from those of a layer that is used several times; give {what} instead"
    )


def _calls(events: list[_Event]) -> Counter[str]:
    return Counter(event.module for event in events if event.kind == "given")
