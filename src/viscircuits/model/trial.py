"""What a model does when it is run for real, before anything is believed of its graph.

Everything here relies on one picture's numbers being its own and the same in every run. So a model is run on two
pictures of noise: both together twice, one by one, and the first once more (seven forward passes of one picture, once
a model). What is found is refused with the name of the module at which it is first seen. Not here: the comparisons
(`viscircuits.model.tracing.differences`) and the search for that module (`viscircuits.model.tracing.culprit`).
"""

from collections import Counter
from contextlib import nullcontext, suppress
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.model.calls import CallKind, kernel_calls
from viscircuits.model.guard.replica import Strays, like, one_at_a_time, private, use_itself, without_replica
from viscircuits.model.guard.untouched import writing
from viscircuits.model.instrument import constants
from viscircuits.model.output import named_leaves
from viscircuits.model.tracing import culprit
from viscircuits.model.tracing.differences import MIXED, SAME, at_least_a_gpus_rounding, at_least_rounding, differ


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


def noise(model: nn.Module, n: int, shape: tuple[int, ...]) -> Float[Tensor, "n ..."]:
    """Returns pictures of noise, always the same, in the model's floating type and on its device.

    Args:
        model: the user's module.
        n: number of pictures.
        shape: of one picture, ``(c, h, w)``.
    """
    own = like(model)
    # drawn on the CPU in 32 bits and moved after that, so that every device and type sees the same pictures
    drawn = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(dtype=own.dtype, device=own.device)


def tried(model: nn.Module, shape: tuple[int, ...]) -> Tried:
    """Returns what came of running a model on noise: it may be random, mix images, or take them one by one."""
    both = noise(model, 2, shape)
    layout, joint = _settled(model, both)
    return Tried(layout, _fault(model, both.contiguous(memory_format=layout), joint), joint.called)


def again(model: nn.Module, shape: tuple[int, ...], fault: str) -> Tried:
    """Returns what comes of running a model at another size than that at which its fault was looked for.

    Args:
        model: the user's module.
        shape: of one picture, ``(c, h, w)``.
        fault: the fault that was found, empty for none.
    """
    layout, joint = _first_run(model, noise(model, 2, shape))
    return Tried(layout, fault, joint.called)


class _Run(NamedTuple):
    """What a model gave, how often it used kernels, and whose."""

    outputs: list[Tensor]
    calls: Counter[CallKind]
    called: frozenset[str]


@torch.no_grad()
def _run(model: nn.Module, images: Tensor, watch: Strays | None = None) -> _Run:
    """One forward pass; what is not of a floating type (a class number, a mask) cannot be compared by a share."""
    tensors = constants(model)
    with kernel_calls() as tally, private(model, tensors) as mine, watch or nullcontext():
        output = mine.run(images.clone())  # a forward may write to its pictures
    called = frozenset(name for name, tensor in tensors.items() if id(tensor) in tally.weights)
    return _Run([leaf for leaf in named_leaves(output).values() if leaf.is_floating_point()], tally.calls, called)


def _first_run(model: nn.Module, images: Tensor, watch: Strays | None = None) -> tuple[torch.memory_format, _Run]:
    """Channels last make convolutions up to four times as fast on a CPU; a model that calls ``view`` may refuse."""
    if images.ndim == 4:
        try:
            return torch.channels_last, _run(model, images.contiguous(memory_format=torch.channels_last), watch)
        except RuntimeError:
            pass
    return torch.contiguous_format, _run(model, images, watch)


def _settled(model: nn.Module, images: Tensor) -> tuple[torch.memory_format, _Run]:
    """The first run, in which it is seen whether a replica of the model does without the model itself."""
    if without_replica(model) or any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        use_itself(model)
        return _first_run(model, images)
    strays = Strays(model)
    try:
        first = _first_run(model, images, strays)
    except Exception:  # the model's own error, or one that only a replica makes
        use_itself(model)
        return _first_run(model, images)
    if not strays.found:
        strays.found = _strays_with_gradients(model, images)
    if strays.found:
        use_itself(model)
        return _first_run(model, images)
    return first


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


def _fault(model: nn.Module, both: Tensor, joint: _Run) -> str:
    """Why no number of a model can be trusted."""
    share = at_least_rounding(MIXED, *(dtype for _, _, dtype in joint.calls))
    share = at_least_a_gpus_rounding(share) if both.is_cuda else share
    try:
        first = _run(model, both[:1])
    except Exception:  # a model may refuse a single picture; then its company is exchanged instead
        return _in_other_company(model, both, joint, share)
    # before all others: of a random model every comparison finds something
    if differ([first.outputs], _run(model, both[:1]).outputs, SAME):
        return culprit.random(model, both[:1])
    if first.calls != joint.calls:
        return culprit.one_by_one(model, both)
    if differ([first.outputs, _run(model, both[1:]).outputs], joint.outputs, share):
        return culprit.mixing(model, both, share)
    return ""


def _in_other_company(model: nn.Module, both: Tensor, joint: _Run, share: float) -> str:
    """The same for a model that refuses a single picture: the first one with another beside it."""
    if differ([_run(model, both).outputs], joint.outputs, SAME):
        return culprit.random(model, both)
    other = _run(model, torch.cat([both[:1], both[1:].flip(-1)]))
    mixed = differ([[o[:1] for o in other.outputs if o.ndim]], [o[:1] for o in joint.outputs if o.ndim], share)
    return culprit.mixes("the model") if mixed else ""
