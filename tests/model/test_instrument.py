"""Running somebody's model leaves no trace on it, however the run ends."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.toys import Compose, Residual
from viscircuits.errors import ModelError
from viscircuits.model.calls import KernelCall
from viscircuits.model.graph import OUTPUT
from viscircuits.model.instrument import run
from viscircuits.model.trace import trace

SHAPE = (3, 10, 8)


class Writing(nn.Module):
    """Writes to a buffer in every forward."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 1.5


class Stumbling(nn.Module):
    """Raises when it is told to."""

    stumble = False

    def forward(self, x: Tensor) -> Tensor:
        if Stumbling.stumble:
            raise ZeroDivisionError("inside the model")
        return x.relu_()


@pytest.fixture
def model() -> nn.Module:
    body = Residual().ready()
    model = Compose(
        lambda m, x: m.head(m.stumbling(m.writing(m.body(m.body.a(x)[:, :3])))),
        body=body,
        writing=Writing(),
        stumbling=Stumbling(),
        head=nn.Conv2d(3, 4, 1).double(),
    )
    model.body.b.weight.requires_grad_(False)
    model.head.register_forward_pre_hook(lambda module, inputs: None)
    trace(model, SHAPE)
    return model


def snapshot(model: nn.Module) -> dict[str, Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "state": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "objects": {name: id(tensor) for name, tensor in [*model.named_parameters(), *model.named_buffers()]},
        "keys": {name: list(vars(module)) for name, module in model.named_modules()},
        "hooks": {(name, kind): list(getattr(m, kind)) for name, m in model.named_modules() for kind in hooks},
        "train": {name: module.training for name, module in model.named_modules()},
        "gradients": {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "random": torch.get_rng_state(),
        "mode": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.overrides._len_torch_function_stack(),
        ),
    }


def unchanged(before: dict[str, Any], after: dict[str, Any]) -> bool:
    tensors = before["state"].keys() == after["state"].keys() and all(
        torch.equal(tensor, after["state"][name]) for name, tensor in before["state"].items()
    )
    others = before.keys() - {"state", "random"}
    return tensors and torch.equal(before["random"], after["random"]) and all(before[k] == after[k] for k in others)


def images() -> Tensor:
    return torch.randn(3, *SHAPE, dtype=torch.float64)


def keep(call: KernelCall) -> Tensor:
    return call.output


def stop(call: KernelCall) -> Tensor:
    if call.layer.name == "body.c":
        raise KeyError("in see")
    return call.output


def test_the_snapshot_notices(model: nn.Module):
    def written() -> None:
        model.writing.calls += 1

    def hooked() -> None:
        model.head.register_forward_hook(lambda *args: None)

    def trained() -> None:
        model.body.train()

    def drawn() -> None:
        torch.rand(1)

    def attributed() -> None:
        model.head.extra = 1

    def thawed() -> None:
        model.body.b.weight.requires_grad_()

    for change in (written, hooked, trained, drawn, attributed, thawed):
        before = snapshot(model)
        change()
        assert not unchanged(before, snapshot(model)), change.__name__


@pytest.mark.parametrize("read", [(OUTPUT,), ("head",), ("body.nb",), ("body.b", "body"), ("body.a@0",)], ids=str)
@pytest.mark.parametrize("see", [None, keep], ids=["plain", "watched"])
def test_a_run_leaves_no_trace_and_reads_what_the_model_computes(model: nn.Module, read: tuple[str, ...], see):
    graph = trace(model, SHAPE)
    x = images()
    before = snapshot(model)
    found = run(model, graph, x, read, see=see)
    assert unchanged(before, snapshot(model))
    assert set(found) == set(read)
    seen: dict[str, Tensor] = {}
    handles = []
    for name in read:
        path = name.partition("@")[0]
        note = lambda module, inputs, output, path=path: seen.setdefault(path, output.clone())  # noqa: E731
        handles.append(model.get_submodule(path).register_forward_hook(note))
    with torch.no_grad():
        model(x)
    for name in read:
        assert torch.equal(found[name], seen[name.partition("@")[0]]), name
        assert not found[name].requires_grad


def test_it_stops_early(model: nn.Module):
    ran = []
    model.head.register_forward_hook(lambda *args: ran.append("head"))
    model.body.nb.register_forward_hook(lambda *args: ran.append("nb"))
    graph = trace(model, SHAPE)
    ran.clear()
    run(model, graph, images(), ["body.nb"])
    assert ran == ["nb"]


@pytest.mark.parametrize("see", [None, keep, stop], ids=["plain", "watched", "see raises"])
def test_an_exception_leaves_no_trace(model: nn.Module, see: Callable[[KernelCall], Tensor] | None, monkeypatch):
    graph = trace(model, SHAPE)
    monkeypatch.setattr(Stumbling, "stumble", True)
    x, zeros = images(), torch.zeros(4, 5, 3, 3, dtype=torch.float64)
    before = snapshot(model)
    with pytest.raises(KeyError if see is stop else ZeroDivisionError, match=r"in see|inside the model"):
        run(model, graph, x, ["head"], see=see, weights={"body.b.weight": zeros})
    assert unchanged(before, snapshot(model))


def test_a_model_that_swallows_exceptions_is_stopped_all_the_same():
    def forgiving(m: Compose, x: Tensor) -> Tensor:
        try:
            return m.b(m.a(x))
        except Exception:
            return m.b(torch.cat([x, x[:, :1]], 1))

    model = Compose(forgiving, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 3, 1))
    graph = trace(model, SHAPE)
    ran = []
    model.b.register_forward_hook(lambda *args: ran.append(1))
    assert run(model, graph, torch.randn(2, *SHAPE), ["a"])["a"].shape == (2, 4, 10, 8)
    assert not ran


def test_edited_weights_and_buffers_are_used_and_gone(model: nn.Module):
    graph = trace(model, SHAPE)
    x = images()
    edits = {
        "body.b.weight": torch.randn(4, 5, 3, 3, dtype=torch.float64),
        "body.nb.running_mean": torch.randn(4, dtype=torch.float64),
        "head.bias": torch.randn(4, dtype=torch.float64),
    }
    twin = copy.deepcopy(model)
    twin.load_state_dict(twin.state_dict() | edits)
    before = snapshot(model)
    found = run(model, graph, x, [OUTPUT], weights=edits)[OUTPUT]
    assert unchanged(before, snapshot(model))
    with torch.no_grad():
        assert torch.equal(found, twin(x))
        assert not torch.equal(found, model(x))


def test_an_output_that_is_overwritten_later_is_copied():
    model = Compose(lambda m, x: m.b(F.relu_(m.a(x))), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 3, 1))
    found = run(model, trace(model, SHAPE), torch.randn(2, *SHAPE), ["a", "b"])
    assert float(found["a"].min()) < 0


def test_users_hooks_still_run_and_count():
    model = Compose(lambda m, x: m.b(m.a(x)), a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 3, 1))
    graph = trace(model, SHAPE)
    ran = []
    model.a.register_forward_hook(lambda module, inputs, output: output * 0)
    model.b.register_forward_pre_hook(lambda module, inputs: ran.append(float(inputs[0].abs().max())))
    found = run(model, graph, torch.randn(2, *SHAPE), ["a", "b"])
    assert float(found["a"].abs().max()) == 0
    assert ran == [0.0]


def test_runs_nest(model: nn.Module):
    graph = trace(model, SHAPE)
    x = images()
    inner: list[Tensor] = []
    depth: list[str] = []

    def see(call: KernelCall) -> Tensor:
        depth.append(call.layer.name)
        if call.layer.name == "body.b" and not inner:
            inner.append(run(model, graph, x, ["body.b"])["body.b"])
        return call.output

    before = snapshot(model)
    outer = run(model, graph, x, ["body.b", "head"], see=see)
    assert unchanged(before, snapshot(model))
    assert torch.equal(inner[0], outer["body.b"])
    assert torch.equal(outer["head"], run(model, graph, x, ["head"])["head"])


def test_see_sees_every_call_and_may_replace_it(model: nn.Module):
    graph = trace(model, SHAPE)
    x = images()
    calls: list[KernelCall] = []

    def see(call: KernelCall) -> Tensor:
        calls.append(call)
        torch.testing.assert_close(
            call.function(call.x, call.weight, **call.options), call.output - bias(call), rtol=1e-9, atol=1e-9
        )
        return call.output * 0 if call.layer.name == "head" else call.output

    state = dict(model.state_dict())

    def bias(call: KernelCall) -> Tensor:
        assert call.layer.bias is not None
        return state[call.layer.bias].view(1, -1, 1, 1)

    found = run(model, graph, x, [OUTPUT], see=see)
    assert [call.layer.name for call in calls] == ["body.a", "body.a", "body.b", "body.c", "body.head", "head"]
    assert bool((found[OUTPUT] == 0).all())


def test_gradients_reach_edited_weights_and_nothing_else(model: nn.Module):
    graph = trace(model, SHAPE)
    weight = model.get_parameter("body.b.weight").detach().clone().requires_grad_()
    found = run(model, graph, images(), ["head"], weights={"body.b.weight": weight})["head"]
    before = snapshot(model)
    found.sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad != 0).any())
    assert unchanged(before, snapshot(model))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_is_kept(model: nn.Module, mode):
    graph = trace(model, SHAPE)
    x = images()
    expected = run(model, graph, x, ["head"])["head"]
    with mode():
        before = snapshot(model)
        assert torch.equal(run(model, graph, x, ["head"], see=keep)["head"], expected)
        assert unchanged(before, snapshot(model))


def test_an_output_that_is_no_tensor_is_named():
    class Text(nn.Module):
        def forward(self, x: Tensor):
            return ("a text", x)

    model = Compose(lambda m, x: m.b(m.text(m.a(x))[1]), a=nn.Conv2d(3, 4, 1), text=Text(), b=nn.Conv2d(4, 3, 1))
    graph = trace(model, SHAPE)
    with pytest.raises(ModelError, match="layer 'text' must output a tensor"):
        run(model, graph, torch.randn(2, *SHAPE), ["text"])
    assert not any(module._forward_hooks for module in model.modules())
