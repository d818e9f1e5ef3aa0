"""Several threads at once: what one does, no other sees."""

import copy
import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import traceback

import viscircuits as vc
from small import SHAPE, Small, small
from viscircuits.activations.top import top_activations
from viscircuits.model.guard import replica
from viscircuits.model.guard.quiet import quiet
from viscircuits.model.trace import trace


@contextmanager
def beside(*works: Callable[[], None]) -> Iterator[None]:
    """A block beside which works are done again and again, each by a thread of its own; what they raise is raised."""
    stop, raised = threading.Event(), []

    def repeat(work: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if raised:
        raise raised[0]


def at_once(*works: Callable[[], object]) -> list[object]:
    """What works return that begin at the same moment; what they raise is raised."""
    begin, found = threading.Barrier(len(works)), [None] * len(works)

    def run(place: int, work: Callable[[], object]) -> None:
        begin.wait()
        try:
            found[place] = work()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


def always_right(model: nn.Module) -> Callable[[], None]:
    """The user's own thread, which runs a model and looks at every number."""
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(images)

    @torch.no_grad()
    def run() -> None:
        assert torch.equal(model(images), wanted)

    return run


# ---- tracing ---------------------------------------------------------------------------------------------------------


def traced_at_once(times: int) -> None:
    user, calls, getattrs = small(99), nn.Module.__call__, nn.Module.__getattr__
    with beside(always_right(user)):
        for seed in range(times):
            graphs = at_once(*(lambda w=w, s=seed: trace(small(s, w), SHAPE) for w in (5, 7)))
            assert [graph.layers["second"].shape for graph in graphs] == [(5, 5), (7, 7)]
    assert nn.Module.__call__ is calls
    assert nn.Module.__getattr__ is getattrs
    assert torch.export.export(small(), (torch.zeros(2, *SHAPE),), strict=False)


def test_two_new_models_are_traced_at_once_while_a_third_is_run():
    traced_at_once(5)


@pytest.mark.slow
def test_two_new_models_are_traced_at_once_fifty_times():
    traced_at_once(50)


def test_one_new_model_that_is_asked_for_twice_at_once_is_traced_once():
    model = small()
    one, other = at_once(*[lambda: trace(model, SHAPE)] * 2)
    assert one is other


def test_random_numbers_that_another_thread_draws_meanwhile_are_its_own():
    models = [small(seed) for seed in range(4)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        drawn: list[Tensor] = []
        with beside(lambda: drawn.append(torch.rand(4))):
            for model in models:
                trace(model, SHAPE)
            trace(models[0], (3, 20, 20))
        torch.manual_seed(3)
        assert torch.equal(torch.stack(drawn), torch.stack([torch.rand(4) for _ in drawn]))


def test_only_the_thread_that_asks_is_quiet():
    heard: list[str] = []

    def warned() -> None:
        with pytest.raises(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
        heard.append("heard")

    before = list(warnings.filters)
    with quiet():
        warnings.warn("not heard", stacklevel=1)
        at_once(warned)
    assert heard
    assert warnings.filters == before


# ---- a model that several threads ask --------------------------------------------------------------------------------


def closed() -> Small:
    """A network that reaches one of its modules through a closure, which no copy of the tree can know."""
    model = small()
    second = model.second
    model.forward = lambda x: model.head(torch.relu(second(model.first(x))).mean((2, 3)))
    return model


class Holding(Small):
    """A network that reaches its modules through lists, dicts and bound methods."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = [("first", self.first), ("norm", self.norm.forward)]
        self.table = {"second": (self.second,)}

    def forward(self, x: Tensor) -> Tensor:
        for _, step in self.steps:
            x = torch.relu(step(x))
        return self.head(self.table["second"][0](x).mean((2, 3)))


@pytest.mark.parametrize("make", [small, lambda: Holding().eval()])
def test_a_run_reaches_no_module_of_the_users(make):
    model = make()
    trace(model, SHAPE)
    assert not replica.without_replica(model)
    twin = replica.replica(model, {})
    assert {id(module) for module in twin.modules()}.isdisjoint(id(module) for module in model.modules())
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in model.named_modules()]
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))
    edited, image = {"second.weight": torch.zeros(6, 6, 3, 3)}, torch.ones(1, *SHAPE)
    other = replica.replica(model, edited)
    assert torch.equal(other(image), functional_call(model, edited, image))
    assert not torch.equal(other(image), model(image))


def test_what_a_forward_stores_is_not_the_users():
    class Storing(Small):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.last, self.count = [], None, 0

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            self.last = x
            self.count += 1
            return super().forward(x)

    model = Storing().eval()
    images = vc.ImageSet.from_tensors(torch.randn(4, *SHAPE))
    vc.score(model, vc.Target("second", 1), images)
    assert (model.seen, model.last, model.count) == ([], None, 0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, second: lambda x: second(m.first(x)).mean((2, 3)),
        lambda m, second: lambda x: second.forward(m.first(x)).mean((2, 3)),
        lambda m, second: lambda x: m.second(m.first(x)).mean((2, 3)) + torch.stack([second.bias, second.bias]).sum(),
    ],
    ids=["a module", "its forward", "its tensor, in a list"],
)
def test_what_a_closure_reaches_is_seen(forward):
    model = small()
    model.forward = forward(model, model.second)
    trace(model, SHAPE)
    assert replica.without_replica(model)
    trace(other := small(), SHAPE)
    assert not replica.without_replica(other)


def test_a_model_that_a_closure_holds_is_itself_used_and_right():
    model, images = closed(), vc.ImageSet.from_tensors(torch.randn(6, *SHAPE))
    target = vc.Target("second", 1)
    circuit = vc.find(model, target, images, density=0.4)
    assert replica.without_replica(model)
    first, second = (circuit.weights[f"{name}.weight"] for name in ("first", "second"))
    with torch.no_grad():
        between = nn.functional.conv2d(images[0][None], first, model.first.bias, padding=1)
        wanted = nn.functional.conv2d(between, second, model.second.bias, padding=1)
    assert torch.allclose(circuit.respond(images)[0], wanted[0, 1].flatten(), atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())
    found = at_once(*[lambda: vc.score(model, target, images).sums["first"]] * 4)
    assert all(torch.equal(found[0], each) for each in found)


class Sharing(nn.Module):
    """Three layers, of which the second is reached, or what the first puts out kept, in some way of the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 3)
        self.through = self.middle = None
        self.kept: object = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).relu()
        if self.kept is not None:
            self.kept.last = h  # as hooks of feature extractors do
            h = self.kept.last
        through = self.through if torch.is_grad_enabled() else None
        return self.c((through or self.b)(h).relu())


def sharing() -> Sharing:
    torch.manual_seed(0)
    return Sharing().eval()


def patched(model: Sharing) -> None:
    own = model.b.forward
    model.b.forward = lambda x: own(x)


def hooked(model: Sharing) -> None:
    own = model.b
    model.a.register_forward_hook(lambda module, inputs, output: output + 0 * own(output))


def through_a_closure(model: Sharing) -> None:
    own = model.b
    model.through = lambda x: own(x)


@pytest.mark.parametrize("change", [patched, hooked, through_a_closure])
@pytest.mark.parametrize("used_before", [False, True])
def test_a_model_that_is_patched_is_right_and_untouched(change, used_before):
    plain, model, target = sharing(), sharing(), vc.Target("c", 1)
    wanted = vc.score(plain, target, pictures(4, 1), "snip").sums
    if used_before:
        vc.score(model, target, pictures(4, 1), "snip")
    change(model)
    found = vc.score(model, target, pictures(4, 1), "snip").sums
    for name in "abc":
        torch.testing.assert_close(found[name], wanted[name])
    assert all(p.grad is None for p in model.parameters())


KEPT = {"object": SimpleNamespace(), "counter": Counter(), "array": np.zeros(3), "number": np.zeros(()),
        "in order": OrderedDict(calls=0, others=1)}  # fmt: skip


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_what_forwards_share_is_written_by_one_at_a_time_and_put_back(kept):
    model, target = sharing(), vc.Target("c", 1)
    alone = [vc.score(sharing(), target, pictures(4, seed), "snip").sums["b"] for seed in range(6)]
    if isinstance(kept, SimpleNamespace):
        kept.last = None
        model.kept = kept
    else:
        model.state, own = kept, model.b.forward

        def counted(x: torch.Tensor) -> torch.Tensor:
            nonlocal kept
            if isinstance(kept, dict):
                kept["calls"] += 1
            else:
                kept += 1
            return own(x)

        model.b.forward = counted
    same, before = kept, copy.deepcopy(kept)
    found = at_once(
        *[lambda seed=seed: vc.score(model, target, pictures(4, seed), "snip").sums["b"] for seed in range(6)]
    )
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert kept is same
    assert str(kept) == str(before)


class Asking(Sharing):
    """Asks, in another thread, whether torch compiles there, and writes to torch's notes, as optimisers do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at_once(self.ask)
        here.append(torch.compiler.is_compiling())
        return super().forward(x)

    def ask(self) -> None:
        there.append(torch.compiler.is_compiling() or torch.compiler.is_exporting())
        with traceback.annotate({"theirs": True}):
            there.append("theirs" in traceback.current_meta.get("custom", {}) and any(here))


here: list[bool] = []
there: list[bool] = []


def test_optimisers_of_other_threads_do_not_notice_an_export():
    here.clear()
    there.clear()
    vc.trace(Asking().eval(), SHAPE)
    assert any(here)
    assert not any(there)


# ---- eight threads ---------------------------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed)))


SCORING, MEASURED = pictures(8, 1), pictures(8, 2)


def score(model: nn.Module, target: vc.Target) -> object:
    return [vc.score(model, target, SCORING, criterion) for criterion in ("actgrad", "snip")]


def respond(model: nn.Module, target: vc.Target) -> object:
    return vc.respond(model, vc.Readout(target, trace(model, SHAPE)), MEASURED).values


def circuit_of(model: nn.Module, target: vc.Target) -> vc.Circuit:
    return vc.find(model, target, SCORING, criterion="snip", density=0.5)


def preservation(model: nn.Module, target: vc.Target) -> object:
    return vc.preservation(circuit_of(model, target), MEASURED).pearson


def extract(model: nn.Module, target: vc.Target) -> object:
    return circuit_of(model, target).extract()(torch.ones(2, *SHAPE)).detach()


def top(model: nn.Module, target: vc.Target) -> object:
    return top_activations(model, ["first", "second"], MEASURED, 3)["second"].values


def render(model: nn.Module, target: vc.Target) -> object:
    return vc.render(model, target, size=SHAPE[1], steps=6).images


def diagram(model: nn.Module, target: vc.Target) -> object:
    return vc.diagram(circuit_of(model, target), images=MEASURED, pictures="none").svg()


QUESTIONS = (score, respond, preservation, extract, top, render, diagram)


def same(one: object, other: object) -> bool:
    match one:
        case list():
            return all(map(same, one, other))
        case vc.Scores():
            return all(torch.equal(one.sums[name], other.sums[name]) for name in one.sums)
        case Tensor():
            return torch.equal(one, other)
    return one == other


def asked_at_once(models: list[Small], n: int, *works: Callable[[], None]) -> None:
    """Asks n questions in turn, then again by eight threads, beside works; the answers must be the same to the bit."""
    places = [(QUESTIONS[i % 7], models[i // 7 % len(models)], vc.Target("second", i // 7 % 6)) for i in range(n)]
    for model in models:  # what is made once, is made
        for question in QUESTIONS:
            question(model, vc.Target("second", 0))
    before = [[*model.parameters(), *model.buffers()] for model in models]
    values = [[tensor.clone() for tensor in tensors] for tensors in before]
    wanted = [question(model, target) for question, model, target in places]

    def eighth(number: int) -> list[object]:
        return [question(model, target) for question, model, target in places[number::8]]

    with beside(*works):
        found = at_once(*(partial(eighth, number) for number in range(8)))
    for number, own in enumerate(found):
        assert all(map(same, own, wanted[number::8]))
    for model, tensors, copies in zip(models, before, values, strict=True):
        now = [*model.parameters(), *model.buffers()]
        assert all(a is b and torch.equal(a, c) for a, b, c in zip(now, tensors, copies, strict=True))
        assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("n", [21, pytest.param(200, marks=pytest.mark.slow)])
def test_eight_threads_get_the_answers_of_one_while_a_ninth_runs_the_model(n_models, n):
    models = [small(seed) for seed in range(n_models)]
    asked_at_once(models, n, always_right(models[0]))


def test_a_model_that_another_thread_runs_with_other_tensors_is_read_at_rest():
    model = sharing()
    through_a_closure(model)
    vc.trace(model, (3, 12, 12))  # tried: from now on it is used itself, its tensors exchanged
    assert replica.without_replica(model)
    inside, go_on = threading.Event(), threading.Event()

    own = model.a.forward

    def waiting(x: torch.Tensor) -> torch.Tensor:
        inside.set()
        go_on.wait(20)
        return own(x)

    def exchanged() -> None:
        meta = {name: p.to("meta") for name, p in model.named_parameters()}
        with replica.private(model, meta) as mine:
            model.a.forward = waiting
            try:
                mine.run(torch.zeros(1, 3, 12, 12, device="meta"))
            finally:
                model.a.forward = own

    other = threading.Thread(target=exchanged)
    other.start()
    inside.wait(20)
    threading.Timer(0.3, go_on.set).start()
    assert replica.like(model).device.type == "cpu"
    vc.trace(model, (3, 14, 14))  # said that weight 'a.weight' has no values
    other.join()
