"""Networks as people bring them: odd layouts, parts that do not matter, wrappers, what the caller switched on."""

import copy
import dataclasses
from collections import UserDict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import Normalize

import viscircuits as vc
from viscircuits.evaluate.sweep import Sweep

SHAPE = (3, 16, 16)


def _images(n: int = 3, shape: tuple[int, ...] = SHAPE) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *shape, generator=torch.Generator().manual_seed(1)))


def _plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3)
    ).eval()


class _Does(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _masked_copy(circuit: vc.Circuit, pictures: Tensor) -> Tensor:
    """The target's responses of a copy whose weights are zeroed by hand."""
    masked, target = copy.deepcopy(circuit.model), circuit.target
    assert isinstance(target, vc.Target)
    seen: list[Tensor] = []
    masked.get_submodule(target.layer).register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        for name, factor in circuit.mask.factors(circuit.graph).items():
            masked.get_parameter(name).mul_(factor)
        masked(pictures)
    axis = circuit.graph.output(target.layer).channel_axis
    return seen[-1].select(axis, target.channel or 0).reshape(len(pictures), -1)


def _agrees_with_a_masked_copy(model: nn.Module, target: vc.Target, images: vc.ImageSet) -> None:
    """At three densities, as a circuit and extracted."""
    scores = vc.score(model, target, images, criterion="random")
    pictures = torch.stack([images[i] for i in range(len(images))])
    for density in (1.0, 0.3, 0.03):
        circuit = vc.Circuit(model, target, scores.select(density=density))
        wanted = _masked_copy(circuit, pictures)
        for found in (circuit.respond(images), circuit.extract()(pictures), circuit.extract()(pictures[:1])):
            assert float((found - wanted[: len(found)]).abs().max()) <= 1e-5 * float(wanted.abs().max())


class _Frames(nn.Module):
    """Frames folded into the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.d = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.reshape(2 * x.shape[0], 3, *x.shape[2:])
        y = self.d(functional.relu(self.a(frames)) + functional.relu(self.b(frames)))
        return y.reshape(x.shape[0], 2, 2, *y.shape[2:]).mean(1)


class _Patches(nn.Module):
    """Batch and channels in one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.l = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        n, c, h, w = y.shape
        y = y.reshape(n * c * (h // 2), 2, w // 2, 2).transpose(1, 2).reshape(n, c, h * w)
        return self.l(y.transpose(1, 2))


class _TokensFirst(nn.Module):
    """Tokens before images, a mean of them in front, and attention, as some heads pool."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.q, self.k, self.v, self.c = (nn.Linear(8, n) for n in (8, 8, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.b(functional.relu(self.a(x)))).flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x])
        return functional.multi_head_attention_forward(
            x, x, x, 8, 2, None, torch.cat([self.q.bias, self.k.bias, self.v.bias]), None, None, False, 0.0,
            self.c.weight, self.c.bias, training=False, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
        )[0][0]  # fmt: skip


class _Queries(nn.Module):
    """Queries that attend to the picture: the attention's stored weight is cut in two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, padding=1)
        self.d, self.f = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 5)
        self.q = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        t = self.b(functional.relu(self.a(x))).flatten(2).transpose(1, 2)
        return self.f(self.d(self.q.expand(x.shape[0], -1, -1), t, t)[0])


def _swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=3)


def _flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("make", "target", "shape"),
    [
        (_swin, vc.Target("features.3.0.mlp.0", 1), (3, 32, 32)),
        (_swin, vc.Target("", 1), (3, 32, 32)),
        (_flat, vc.Target("3", 1), SHAPE),
        (_Patches, vc.Target("l", 1), SHAPE),
        (_Frames, vc.Target("", 1), (6, 16, 16)),
        (_TokensFirst, vc.Target("", 2), SHAPE),
        (_Queries, vc.Target("f", 1), SHAPE),
    ],
    ids=["windows", "windows to the end", "flattened pictures", "patches", "frames", "tokens first", "queries"],
)
def test_circuits_of_any_layout_agree_with_a_masked_copy(
    make: Callable[[], nn.Module], target: vc.Target, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    _agrees_with_a_masked_copy(make().eval(), target, _images(3, shape))


@pytest.mark.parametrize(
    ("make", "target", "shape"),
    [
        (_swin, vc.Target("features.3.0.mlp.0", 1), (3, 32, 32)),
        (_flat, vc.Target("3", 1), SHAPE),
        (_Patches, vc.Target("l", 1), SHAPE),
    ],
    ids=["windows", "flattened pictures", "patches"],
)
def test_a_sweep_measures_what_a_masked_copy_gives(
    make: Callable[[], nn.Module], target: vc.Target, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model, images = make().eval(), _images(8, shape)
    scoring, held_out = images.subset(range(4)), images.subset(range(4, 8))
    pictures = torch.stack([images[i] for i in range(4, 8)])
    job = Sweep(model, [target], scoring, held_out, ["actgrad"], densities=(1.0, 0.3, 0.03))
    everything = vc.Circuit(model, target, vc.score(model, target, scoring, "random").select(density=1.0))
    full = _masked_copy(everything, pictures)
    told = 0
    for measurement in job.measurements():
        own = _masked_copy(measurement.circuit, pictures)
        if float(own.std()) > 1e-3 * float(full.std()):
            told += 1
            wanted = torch.corrcoef(torch.stack([own.flatten(), full.flatten()]))[0, 1]
            assert measurement.row["pearson"] == pytest.approx(abs(float(wanted)), abs=1e-4)
    assert told >= 2  # of three


# ---- operations ------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "glu": lambda x: functional.glu(x, 1),
    "rrelu": lambda x: functional.rrelu(x, training=False),
    "clip": lambda x: x.clip(0, 6),
    "grid_sample": lambda x: functional.grid_sample(
        x, functional.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), list(x.shape), False), align_corners=False
    ),
    "max_unpool": lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
    "fold": lambda x: functional.fold(functional.unfold(x, 2, stride=2), (16, 16), 2, stride=2),
    "cosine": lambda x: functional.cosine_similarity(x[:, :, :8], x[:, :, 8:], dim=2),
    "topk": lambda x: x.flatten(2).topk(4).values,
    "isnan": lambda x: torch.where(torch.isnan(x), 0.0, x),
    "log2": lambda x: (x.abs() + 1).log2(),
    "sort": lambda x: x.sort(1).values,
    "median": lambda x: x.median(-1).values,
    "variance and mean": lambda x: torch.var_mean(x, (2, 3), correction=1, keepdim=True)[1] * x,
    "count": lambda x: x * x.max(1, keepdim=True).indices,
    "scatter": lambda x: torch.zeros_like(x).scatter(1, torch.ones(1, 8, 16, 16, dtype=torch.long).expand_as(x), x),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_connect_what_gradients_find_and_circuits_run_them(name: str) -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)]
    model, target = nn.Sequential(*body, _Does(OPERATIONS[name])).eval(), vc.Target("3", 1)
    scores = vc.score(model, target, _images())
    output = model(torch.randn(8, *SHAPE))[:, 1].abs().sum()
    for layer in ("0", "2"):
        (found,) = torch.autograd.grad(output, model.get_parameter(f"{layer}.weight"), retain_graph=True)
        assert not bool(((found.abs().sum((2, 3)) > 0) & ~scores.relevant[layer]).any())
    _agrees_with_a_masked_copy(model, target, _images())


# ---- only what leads to the target counts ----------------------------------------------------------------------------


class _Behind(nn.Module):
    """A network with something behind it."""

    def __init__(self, behind: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.weight, self.behind = _plain(), nn.Parameter(torch.randn(5, 6)), behind

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.net(x)
        cosine = functional.linear(functional.normalize(y.mean((2, 3))), functional.normalize(self.weight))
        return cosine, torch.fft.rfft2(self.behind(y)).abs()


def test_what_is_behind_the_target_does_not_count() -> None:
    plain = vc.score(_plain(), vc.Target("4", 1), _images())
    found = vc.score(_Behind(torch.sin).eval(), vc.Target("net.4", 1), _images())
    assert all(torch.equal(found.sums[f"net.{name}"], sums) for name, sums in plain.sums.items())


@pytest.mark.parametrize(("part", "words"), [("[0]", "computes its weight"), ("[1]", "no rule for the operation")])
def test_what_leads_to_the_target_counts(part: str, words: str) -> None:
    with pytest.raises(vc.UnsupportedOperation, match=words):
        vc.score(_Behind(torch.sin).eval(), vc.Target(part, 1), _images())


def test_projections_out_of_sight_carry_signals_and_are_not_scored() -> None:
    torch.manual_seed(0)
    model = _TokensFirst().eval()
    assert set(vc.score(model, vc.Target.logit(2), _images()).sums) == {"a", "b"}
    assert set(vc.trace(model, SHAPE).not_scored) == {"q", "k", "v", "c"}


def test_a_part_of_a_stored_weight_is_named() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.both = nn.Conv2d(3, 4, 3), nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(self.conv(x).mean((2, 3)), self.both[:3])

    with pytest.raises(vc.UnsupportedOperation, match="takes a part of the stored weight 'both'"):
        vc.score(Halves().eval(), vc.Target.logit(0), _images())


# ---- wrappers --------------------------------------------------------------------------------------------------------


class _Any(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = _plain()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.module(*args, **kwargs)


@pytest.mark.parametrize(
    "wrap", [_Any, lambda: nn.DataParallel(_plain()), lambda: torch.optim.swa_utils.AveragedModel(_plain())],
    ids=["any arguments", "DataParallel", "AveragedModel"],
)  # fmt: skip
def test_wrapped_networks_give_the_plain_ones_numbers(wrap: Callable[[], nn.Module]) -> None:
    def respond(model: nn.Module, layer: str) -> Tensor:
        target = vc.Target(layer, 1)
        return vc.Circuit(model, target, vc.score(model, target, _images()).select(density=0.3)).respond(_images())

    assert torch.equal(respond(wrap().eval(), "module.4"), respond(_plain(), "4"))


def _checkpointed(reentrant: bool) -> nn.Module:
    net = _plain()
    return nn.Sequential(_Kept(net[:4], reentrant), net[4])


class _Kept(nn.Module):
    def __init__(self, part: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.part, self.reentrant = part, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant)


class _Frozen(nn.Module):
    def __init__(self, off: Callable[[], torch.no_grad | torch.inference_mode]) -> None:
        super().__init__()
        self.part, self.off = _plain(), off

    def forward(self, x: Tensor) -> Tensor:
        with self.off():
            x = self.part[:4](x)
        return self.part[4](x.clone())


class _Cast(nn.Module):
    def __init__(self, on: bool) -> None:
        super().__init__()
        self.net, self.on = _plain(), on

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.on):
            return self.net(x)


def _hooked() -> nn.Module:
    net, kept = _plain(), []
    net[2].register_forward_hook(lambda module, given, out: kept.append(out.detach().numpy()))
    return net


class _Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _plain()


class _Named(_Parts):
    def forward(self, **given: Tensor) -> Tensor:
        return self.net(given["x"])


class _WithMask(_Parts):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.net(x) * mask


class _Batch(_Parts):
    def forward(self, batch: Any) -> Tensor:
        return self.net(batch["image"])


class _Fixed(_Parts):
    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[2] == 64, f"Wrong image height! Expected 64 but got {x.shape[2]}"
        return self.net(x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "compiled": (lambda: torch.compile(_plain(), backend="eager"), "_orig_mod.4", "model._orig_mod"),
    "a compiled part": (lambda: nn.Sequential(torch.compile(_plain(), backend="eager")), "0", "model.0._orig_mod"),
    "scripted": (lambda: torch.jit.trace(_plain(), torch.rand(1, *SHAPE)), "4", "original module"),
    "exported": (lambda: torch.export.export(_plain(), (torch.rand(2, *SHAPE),)).module(), "4", "torch.export"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(8, 3)).eval(), "0", r"run model\(images\) once"),
    "checkpointed": (lambda: _checkpointed(False).eval(), "1", "switch it off"),
    "checkpointed twice": (lambda: _checkpointed(True).eval(), "1", "checkpoint"),
    "no gradients": (lambda: _Frozen(torch.no_grad).eval(), "part.4", "no_grad"),
    "no gradients at all": (lambda: _Frozen(torch.inference_mode).eval(), "part.4", "inference_mode"),
    "cast": (lambda: _Cast(True).eval(), "net.4", "autocast"),
    "not cast": (lambda: _Cast(False).eval(), "net.4", "autocast"),
    "normalised": (lambda: nn.Sequential(Normalize([0.5] * 3, [0.2] * 3), _plain()).eval(), "1.4", "prepare"),
    "hooked": (_hooked, "4", "hook on '2'"),
    "by name": (lambda: _Named().eval(), "net.4", r"give a module whose forward\(images\) calls it"),
    "with a mask": (lambda: _WithMask().eval(), "net.4", r"give a module whose forward\(images\) calls it"),
    "a batch": (lambda: _Batch().eval(), "net.4", r"give a module whose forward\(images\) calls it"),
    "another size": (lambda: _Fixed().eval(), "net.4", r"a size that the model takes \(.*--input-size\)"),
    "too small": (lambda: nn.Sequential(_plain(), nn.MaxPool2d(3), nn.MaxPool2d(6)).eval(), "0.4", "--input-size"),
}


@pytest.mark.filterwarnings("ignore:.*jit:FutureWarning", "ignore:None of the inputs:UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_named_with_what_to_give(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, layer, words = REFUSED[name]
    model = make()
    capfd.readouterr()
    with pytest.raises(vc.ViscircuitsError, match=words):
        vc.score(model, vc.Target(layer, 1), _images())
    assert not capfd.readouterr().err


# ---- what the caller switched on -------------------------------------------------------------------------------------


@pytest.fixture
def _default_type() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_default_type")
@pytest.mark.parametrize("switch", ["inference", "autocast", "type", "device"])
def test_what_the_caller_switched_on_changes_no_number(switch: str) -> None:
    def numbers(model: nn.Module, images: vc.ImageSet) -> list[Tensor]:
        target, found = vc.Target("4", 1), list[Tensor]()
        for criterion in ("actgrad", "snip", "random", "magnitude"):
            scores = vc.score(model, target, images, criterion=criterion)
            circuit = vc.Circuit(model, target, scores.select(density=0.3))
            found += [*scores.sums.values(), circuit.respond(images)]
        return found

    wanted, images = numbers(_plain(), _images()), _images()
    match switch:
        case "inference":
            with torch.inference_mode():
                found = numbers(_plain(), _images())
        case "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = numbers(_plain(), images)
        case "type":
            model = _plain()
            torch.set_default_dtype(torch.float64)
            found = numbers(model, images)
        case _:
            model = _plain()
            with torch.device("meta"):
                found = numbers(model, images)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, wanted, strict=True))


@dataclasses.dataclass
class Toolbox:
    """What a toolbox's models return."""

    logits: Tensor
    features: object = None


@pytest.mark.parametrize("returned", [Toolbox, lambda x: UserDict(logits=x)], ids=["dataclass", "user dict"])
def test_outputs_of_a_toolbox_are_read(returned: Any) -> None:
    def made(kind: Any) -> nn.Module:
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: Tensor) -> Any:
                return kind(self.inner(x).mean((2, 3)))

        return Network().eval()

    pictures = torch.randn(3, 3, 8, 8)
    for target in ("inner.2:1", "logit:2"):
        found, plain = (vc.score(made(kind), target, pictures).sums for kind in (returned, lambda x: x))
        assert all(torch.equal(found[name], plain[name]) for name in plain)
    with pytest.raises(vc.ModelError, match="no tensor was found in the SimpleNamespace that the model returns"):
        vc.trace(made(lambda x: SimpleNamespace(logits=x)), (3, 8, 8))


def test_gradients_that_are_cut_off_are_named() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu().detach())

    model, pictures = Cut().eval(), torch.randn(2, 3, 8, 8)
    for criterion in ("actgrad", "snip", "gradient"):
        with pytest.raises(vc.UnsupportedOperation, match=r"layer 'a' leads to the target, but no gradient comes back"):
            vc.score(model, "b:1", pictures, criterion)
    assert vc.score(model, "b:1", pictures, "activation").sums["a"].sum() > 0


_CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "positives": lambda y: y[y > 0],
    "some pictures": lambda y: y[y.mean((1, 2, 3)) > 0],
    "where": lambda y: y.nonzero(),
    "masked": lambda y: torch.masked_select(y, y > 0),
    "kinds": lambda y: torch.unique(y.argmax(1)),
    "boxes": lambda y: torchvision.ops.nms(
        torch.cat([y.flatten(1)[:, :2], y.flatten(1)[:, :2].abs() + 5], 1), y.flatten(1)[:, 0], 0.1
    ),
}


@pytest.mark.parametrize("name", _CHOICES)
def test_how_many_come_out_behind_the_target_may_depend_on_the_values(name: str) -> None:
    whole, pictures = nn.Sequential(_plain(), _Does(_CHOICES[name])).eval(), _images()
    expected = vc.score(nn.Sequential(_plain()).eval(), "0.4:1", pictures)
    assert all(torch.equal(vc.score(whole, "0.4:1", pictures).sums[name], e) for name, e in expected.sums.items())
    _agrees_with_a_masked_copy(whole, vc.Target("0.4", 1), pictures)


def test_before_the_target_it_may_not() -> None:
    chosen = nn.Sequential(_plain()[:2], _Does(lambda y: y[y.mean((1, 2, 3)) > 0]), nn.Conv2d(8, 4, 3)).eval()
    with pytest.raises(vc.TargetError, match="its output is not one map an image"):
        vc.score(chosen, "2:1", _images())


def test_hooks_on_every_module_are_seen_and_named() -> None:
    model, kept = _plain(), []
    vc.score(model, "4:1", _images())
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, out: kept.append(out.detach().numpy()))
    try:
        with pytest.raises(vc.UnsupportedOperation, match="hook on every module"):
            vc.score(model, "4:1", _images())
    finally:
        hook.remove()
    vc.score(model, "4:1", _images())


def test_an_extracted_circuit_is_not_scored_again() -> None:
    model = _plain()
    circuit = vc.Circuit(model, vc.Target("4", 1), vc.score(model, "4:1", _images()).select(density=0.5))
    with pytest.raises(vc.ModelError, match=r"give the network that the circuit was found in"):
        vc.score(circuit.extract(), "logit:0", _images())
