"""Ctrl-C and cancelling, wherever they fall: nothing is left behind, and the next call is right."""

import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import viscircuits as vc
from small import SHAPE, Small, small
from viscircuits.activations.top import top_activations
from viscircuits.errors import Cancelled
from viscircuits.model.trace import trace

OURS = str(Path(vc.__file__).parent)
TORCHS = ("autograd/grad_mode.py", "utils/_contextlib.py", "overrides.py", "utils/_python_dispatch.py")
"""Files of torch's that change what it keeps for a thread."""


@pytest.fixture(scope="module")
def model() -> Small:
    return small()


def pictures(n: int) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(n)))


TARGET, IMAGES = vc.Target("second", 1), pictures(6)


def score(model: nn.Module) -> Tensor:
    return vc.score(model, TARGET, IMAGES, "actgrad", batch_size=2).sums["first"]


def respond(model: nn.Module) -> Tensor:
    return vc.respond(model, vc.Readout(TARGET, trace(model, SHAPE)), IMAGES, batch_size=2).values


def render(model: nn.Module) -> Tensor:
    return torch.stack([one.image for one in vc.render(model, TARGET, size=16, steps=4).pictures])


def state(model: nn.Module) -> list[Any]:
    """All that a call could leave behind."""
    kept = [
        tensor for module in model.modules() for tensor in [*module._parameters.values(), *module._buffers.values()]
    ]
    return [
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), _get_current_function_mode_stack(),
        _get_current_dispatch_mode_stack(), list(warnings.filters), torch.get_num_threads(), sys.path.copy(),
        [id(tensor) for tensor in kept], [tensor._version for tensor in kept if tensor is not None],
        [vars(module).keys() for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [parameter.grad for parameter in model.parameters()], torch.get_rng_state().tolist(),
        str(np.random.get_state()),  # not Python's: what checks types in tests draws from it too
    ]  # fmt: skip


class Places:
    """Counts the lines that a call comes by in this thread, and raises at one of them."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.seen, self.at, self.error = 0, at, error

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        name = frame.f_code.co_filename
        return self.line if name.startswith(OURS) or name.endswith(TORCHS) else None

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.seen += 1
            if self.seen == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line


def watched(call: Callable[[], object], at: int | None = None) -> int:
    """Runs a call, with Ctrl-C at one of its places; returns how many there were."""
    places, before = Places(at), sys.gettrace()
    sys.settrace(places)
    try:
        call()
    except KeyboardInterrupt:
        assert at is not None
    finally:
        sys.settrace(before)
    return places.seen


def interrupted(model: nn.Module, call: Callable[[nn.Module], Tensor], times: int | None = None) -> None:
    """Presses Ctrl-C at so many places of a call, or at each."""
    wanted = call(model)
    n, before = watched(lambda: call(model)), state(model)
    draw = random.Random(0)
    for place in sorted(draw.sample(range(1, n + 1), min(times or n, n))):
        watched(lambda: call(model), place)
        now = state(model)
        assert now == before, f"at place {place} of {n}"
    assert torch.equal(call(model), wanted)


CALLS = (score, respond, render)


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_leaves_nothing_behind(model, call):
    interrupted(model, call, 34)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_leaves_nothing_behind_wherever_it_falls(model, call):
    interrupted(model, call)


# ---- cancelling ------------------------------------------------------------------------------------------------------


def circuit(model: nn.Module) -> vc.Circuit:
    return vc.find(model, TARGET, IMAGES, criterion="magnitude", density=0.5)


MACO, SIZES = vc.Maco(images=IMAGES), (["magnitude"], [0.5])
LONG: dict[str, Callable[..., object]] = {
    "score": lambda m, p: vc.score(m, TARGET, IMAGES, "actgrad", batch_size=2, progress=p),
    "respond": lambda m, p: vc.respond(m, vc.Readout(TARGET, trace(m, SHAPE)), IMAGES, batch_size=2, progress=p),
    "Circuit.respond": lambda m, p: circuit(m).respond(IMAGES, batch_size=2, progress=p),
    "Circuit.compensated": lambda m, p: circuit(m).compensated(IMAGES, batch_size=2, progress=p),
    "preservation": lambda m, p: vc.preservation(circuit(m), IMAGES, batch_size=2, progress=p),
    "faithfulness": lambda m, p: vc.faithfulness([circuit(m)], IMAGES, batch_size=2, progress=p),
    "respond_resampled": lambda m, p: vc.respond_resampled(circuit(m), IMAGES, batch_size=2, progress=p),
    "rescaled": lambda m, p: vc.rescaled(circuit(m), IMAGES, steps=4, progress=p),
    "render": lambda m, p: vc.render(m, TARGET, size=16, steps=4, progress=p),
    "render in a spectrum": lambda m, p: vc.render(m, TARGET, size=16, steps=4, parameterisation=MACO, progress=p),
    "top_activations": lambda m, p: top_activations(m, ["second"], IMAGES, 2, batch_size=2, progress=p),
    "in_memory": lambda m, p: pictures(130).in_memory(progress=p),
    "sweep": lambda m, p: list(vc.Sweep(m, [TARGET], IMAGES, pictures(5), *SIZES, progress=p).measurements()),
}  # fmt: skip


@pytest.mark.parametrize("call", LONG.values(), ids=LONG.keys())
def test_what_progress_raises_ends_a_call_between_two_batches(model, call):
    told: list[tuple[str, int, int]] = []
    call(model, lambda *each: told.append(each))
    assert len(told) > 1
    before = state(model)
    for at in {1, 2, len(told)}:
        left = iter([*[False] * (at - 1), True])

        def progress(what: str, done: int, total: int, left: Iterator[bool] = left) -> None:
            assert 0 <= done <= total
            if next(left):
                raise Cancelled

        with pytest.raises(Cancelled):
            call(model, progress)
        assert state(model) == before
    call(model, lambda *each: None)


def test_an_error_after_ctrl_c_is_an_error(model):
    """Of a call that somebody makes while they deal with an interrupt."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(vc.TargetError):
            vc.score(model, vc.Target("nowhere", 1), IMAGES)


def test_nobody_erred_who_cancelled():
    assert not issubclass(Cancelled, vc.ViscircuitsError)


# ---- tracing ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_a_model_is_traced_is_ctrl_c():
    class Stopped(Small):
        at: int | None = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.at == 0:
                raise KeyboardInterrupt
            return super().forward(x)

    stopped = Stopped().eval()
    before = state(stopped), nn.Module.__call__, nn.Module.__getattr__
    with pytest.raises(KeyboardInterrupt):
        trace(stopped, SHAPE)
    assert (state(stopped), nn.Module.__call__, nn.Module.__getattr__) == before
    stopped.at = None
    assert trace(stopped, SHAPE).layers
