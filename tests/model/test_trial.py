"""Models whose numbers cannot be trusted are refused, by name; what a forward stores on a model is put back."""

import functools
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import viscircuits as vc
from model.toys import Compose
from viscircuits.errors import UnsupportedOperation
from viscircuits.model.guard.replica import use_itself
from viscircuits.model.guard.untouched import same_random_state, untouched
from viscircuits.model.trace import trace

SHAPE = (3, 12, 10)


def conv(inputs: int = 3, outputs: int = 4, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def pictures(n: int = 4) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)))


def between(operation, **more) -> Compose:
    """Two convolutions with something between them."""
    return Compose(lambda m, x: m.b(operation(m, F.relu(m.a(x)))), a=conv(), b=conv(4, 4), **more)


# ---- random in evaluation mode ---------------------------------------------------------------------------------------


class Noise(nn.Module):
    """Noise that no graph shows: it is drawn outside of torch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(np.random.standard_normal(x.shape[1:])).to(x)


@pytest.mark.parametrize(
    ("operation", "named"),
    [
        (lambda m, x: F.dropout(x, 0.3), "dropout"),
        (lambda m, x: F.dropout2d(x, 0.3), "bernoulli"),
        (lambda m, x: F.alpha_dropout(x, 0.3, training=True), "bernoulli"),
        (lambda m, x: F.rrelu(x - 0.5, training=True), "rrelu"),
        (lambda m, x: x + 0.1 * torch.randn_like(x), "randn_like"),
        (lambda m, x: x[:, torch.randperm(4)], "randperm"),
        (lambda m, x: x * F.gumbel_softmax(x.mean((2, 3)), dim=1)[:, :, None, None], "exponential"),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5), "scaled_dot_product_attention"),
    ],
)
def test_random_operations_are_named(operation, named: str):
    with pytest.raises(UnsupportedOperation, match=rf"the model is random: \w*{named}\w* in module .*toys\.py"):
        vc.score(between(operation), vc.Target("b", 1), pictures())


def test_noise_from_outside_of_torch_is_named_by_its_module():
    model = between(lambda m, x: m.noise(x), noise=Noise())
    with pytest.raises(UnsupportedOperation, match="the model is random: module 'noise' gives other numbers"):
        vc.score(model, vc.Target("b", 1), pictures())


def test_noise_of_pythons_own_that_hangs_on_nothing():
    with pytest.raises(UnsupportedOperation, match="the model is random: the model's own forward"):
        vc.score(between(lambda m, x: x * random.random()), vc.Target("b", 1), pictures())


@pytest.mark.parametrize(
    "operation",
    [
        lambda m, x: F.dropout(x, 0.3, training=m.training),
        lambda m, x: F.dropout(x, 0.0),
        lambda m, x: F.scaled_dot_product_attention(x, x, x),
        lambda m, x: (torch.rand(3), x)[1],  # drawn, and used for nothing
    ],
)
def test_what_is_switched_off_or_unused_is_not_random(operation):
    assert vc.score(between(operation), vc.Target("b", 1), pictures()).n_relevant


def test_looking_for_noise_draws_nothing_of_the_callers():
    model, images = between(lambda m, x: m.noise(x) * random.random(), noise=Noise()), pictures()
    torch.manual_seed(3), np.random.seed(3)
    wanted = torch.rand(1), np.random.random()
    torch.manual_seed(3), np.random.seed(3)
    with pytest.raises(UnsupportedOperation):
        vc.score(model, vc.Target("b", 1), images)
    assert (torch.rand(1), np.random.random()) == wanted
    random.seed(3)
    wanted = random.random()
    random.seed(3)
    with same_random_state(torch.device("cpu")):  # alone: what checks types in tests draws from it too
        random.random()
    assert random.random() == wanted


# ---- images of a batch that are mixed --------------------------------------------------------------------------------


class Mixing(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x)


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x - x[:1],  # the first image sees nothing of it
        lambda x: x - x[-1:],  # the last sees nothing of it
        lambda x: x.cumsum(0),
        lambda x: x * x.softmax(0),
        lambda x: torch.cat([x, x.std(0).mean().expand(len(x), 1, *x.shape[2:])], 1)[:, :4],  # and throws it away
        lambda x: x + x.std(0).mean(),  # minibatch standard deviation, as critics have it
        lambda x: x.flip(0),
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
    ids=["mean", "first", "last", "cumsum", "softmax", "unused", "deviation", "flip", "norm"],
)
def test_the_module_that_mixes_images_is_named(how, request):
    model = between(lambda m, x: m.mix(m.same(x)), mix=Mixing(how), same=nn.ReLU())
    if "unused" in request.node.callspec.id:
        assert vc.score(model, vc.Target("b", 1), pictures()).n_relevant
        return
    with pytest.raises(UnsupportedOperation, match=r"^module 'mix' mixes the images of a batch"):
        vc.score(model, vc.Target("b", 1), pictures())


def test_mixing_in_the_models_own_forward_and_in_a_model_that_refuses_one_image():
    def picky(m: Compose, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            raise ValueError("one image is not enough")
        return m.a(x - x.mean(0, keepdim=True))

    for model in (between(lambda m, x: x - x.mean(0, keepdim=True)), Compose(picky, a=conv())):
        with pytest.raises(UnsupportedOperation, match=r"^the model(?:'s own forward)? mixes the images of a batch"):
            vc.score(model, vc.Target("", 1), pictures())


def test_batch_norm_half_precision_and_uneven_sizes_do_not_look_like_mixing():
    deep = nn.Sequential(*(m for i in range(6) for m in (conv(3 if i == 0 else 8, 8), nn.BatchNorm2d(8), nn.ReLU())))
    for model in (deep.eval(), deep.double(), deep.bfloat16()):
        assert not trace(model, SHAPE).fault


def test_what_is_checked_costs_seven_passes_of_one_image():
    seen = []
    model = nn.Sequential(conv(), nn.ReLU(), conv(4, 2)).eval()
    model[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    trace(model, SHAPE)
    real = [len(x) for x in seen if type(x) is Tensor and x.abs().sum() > 0]
    assert sum(real) == 7
    seen.clear()
    trace(model, SHAPE, any_batch=True)
    trace(model, SHAPE)
    assert not [x for x in seen if type(x) is Tensor and x.shape[0] and not x.is_meta and float(x.abs().sum()) > 0]


# ---- images that are taken in parts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loop",
    [
        lambda m, x: torch.cat([m.n(i) for i in x.split(1)]),
        lambda m, x: torch.stack([m.n(i) for i in x]),
        lambda m, x: torch.stack([m.n(x[i : i + 1])[0] for i in range(x.shape[0])]),
        lambda m, x: torch.cat(list(map(m.n, x.chunk(x.shape[0])))),
        lambda m, x: torch.cat([m.n(i) for i in x.chunk(2)]),
    ],
)
@pytest.mark.parametrize("n", [2, 3])
def test_a_forward_that_takes_images_one_by_one(loop, n: int):
    model = Compose(loop, n=nn.Sequential(conv(), nn.ReLU(), conv(4, 2)))
    with pytest.raises(UnsupportedOperation, match=r"takes the images of a batch one by one .*give its module 'n'"):
        vc.score(model, vc.Target("", 1), pictures(n))


def test_a_forward_that_takes_a_few_at_a_time():
    inner = nn.Sequential(conv(), nn.ReLU(), conv(4, 2)).eval()
    model = Compose(lambda m, x: torch.cat([m.n(i) for i in x.split(4)]), n=inner)
    right = vc.score(inner, vc.Target("", 1), pictures(8))
    for layer, where in (("", "layer 'n.0'"), ("n.2", "layer 'n.0'")):
        target = vc.Target(layer, 1)
        with pytest.raises(UnsupportedOperation, match=f"{where} does not take the 8 images of a batch at once"):
            vc.score(model, target, pictures(8))
        few = vc.score(model, target, pictures(8), batch_size=4)  # then every batch is taken at once
        assert all(torch.allclose(few.sums[f"n.{k}"], right.sums[k]) for k in right.sums)
        with pytest.raises(UnsupportedOperation, match="does not take the 8 images of a batch at once"):
            vc.respond(model, vc.Readout(target, trace(model, SHAPE)), pictures(8))


def test_a_layer_that_is_used_twice_is_no_loop():
    model = Compose(lambda m, x: m.h(m.c(F.relu(m.c(m.a(x))))), a=conv(), c=conv(4, 4), h=conv(4, 2))
    one, many = (vc.score(model, vc.Target("", 1), pictures(6), batch_size=size) for size in (1, 6))
    assert all(torch.allclose(one.sums[k], many.sums[k]) for k in one.sums)


# ---- what a forward stores on the model ------------------------------------------------------------------------------


class Held:
    """A plain object with a cache of its own."""

    def __init__(self):
        self.grids: dict[int, Tensor] = {}

    def grid(self, width: int) -> Tensor:
        if width not in self.grids:
            self.grids[width] = torch.linspace(0, 1, width)
        return self.grids[width]


_GRIDS: dict[int, Tensor] = {}


@functools.lru_cache
def kept_grid(width: int) -> Tensor:
    return torch.linspace(0, 1, width)


def on_itself(m, x):
    if getattr(m, "grid", None) is None:
        m.grid = torch.linspace(0, 1, x.shape[-1])
    return x + m.grid


def in_a_dict(m, x):
    if x.shape[-1] not in m.cache:
        m.cache[x.shape[-1]] = torch.linspace(0, 1, x.shape[-1])
    return x + m.cache[x.shape[-1]]


def of_the_module(m, x):
    if x.shape[-1] not in _GRIDS:
        _GRIDS[x.shape[-1]] = torch.linspace(0, 1, x.shape[-1])
    return x + _GRIDS[x.shape[-1]]


def for_later(m, x):
    m.seen.append(x)
    m.last = x
    return x * 1


def counted(m, x):
    m.count += 1  # a tensor that is no buffer
    return x * 1


STORES = {
    "on itself": on_itself,
    "in a dict": in_a_dict,
    "in an object": lambda m, x: x + m.held.grid(x.shape[-1]),
    "in a cache of functools": lambda m, x: x + kept_grid(x.shape[-1]),
    "in a module": of_the_module,
    "activations": for_later,
    "a count": counted,
}


def storing(how: str) -> Compose:
    _GRIDS.clear(), kept_grid.cache_clear()
    model = between(STORES[how])
    model.cache, model.seen, model.held, model.count = {}, [], Held(), torch.zeros(())
    return model


@pytest.mark.parametrize("how", [name for name in STORES if name != "a count"])
@pytest.mark.parametrize("fails", [False, True])
def test_no_traced_tensor_stays_behind(how: str, fails: bool):
    model = storing(how)
    wanted = storing(how)(torch.ones(2, *SHAPE))
    before, attributes = dict(vars(model)), set(vars(model))
    if fails:
        model.b = nn.Conv2d(5, 4, 3).eval()  # takes other channels than it gets
        with pytest.raises(UnsupportedOperation, match="cannot be traced on images"):
            trace(model, SHAPE)
        model.b = conv(4, 4).eval()
    else:
        trace(model, SHAPE), trace(model, SHAPE, any_batch=True)
    assert set(vars(model)) == attributes
    assert (model.cache, model.seen, model.held.grids) == ({}, [], {})
    assert all(vars(model)[name] is value for name, value in before.items())
    held = [*_GRIDS.values(), kept_grid(10), model(torch.ones(2, *SHAPE))]
    assert {type(tensor) for tensor in held} == {Tensor}
    assert held[-1].shape == wanted.shape


def test_a_count_is_put_back():
    model = storing("a count")
    use_itself(model)
    with untouched(model):
        model(torch.ones(2, *SHAPE))
        assert model.count == 1
    assert model.count == 0


def test_putting_back_keeps_the_objects_themselves_and_their_order():
    model = between(lambda m, x: x)
    model.names, model.table = ["b", "a"], {"y": 1, "x": [2]}
    inner = model.table["x"]
    use_itself(model)
    with untouched(model):
        model.names.append("c"), model.table.pop("y"), inner.append(3)
        model.new, model.names = 1, None
    assert (model.names, model.table, inner) == (["b", "a"], {"y": 1, "x": [2]}, [2])
    assert list(model.table) == ["y", "x"]
    assert model.table["x"] is inner
    assert "new" not in vars(model)


def test_no_words_of_the_exporter_come_out():
    def branching(m, x):
        return x if x.sum() > 0 else x + 1

    with pytest.raises(UnsupportedOperation) as caught:
        trace(between(branching), SHAPE)
    said = str(caught.value)
    assert "test_trial.py" in said
    assert "x.sum() > 0" in said
    for word in ("GuardOnDataDependent", "symint", "torch.export", "u0", "Dynamo", "aten"):
        assert word not in said
