"""A target at one position is computed on crops only where the model gives there what the whole picture gives."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import viscircuits as vc
from model.toys import Compose
from viscircuits.errors import ImageError
from viscircuits.model.field import crops as tried
from viscircuits.model.field.aligned import aligned_crops
from viscircuits.model.field.crops import tried_crops
from viscircuits.model.trace import trace

SHAPE = (3, 64, 64)


class SamePadding(nn.Conv2d):
    """Pads by the size of its input, as TensorFlow does: unevenly where the size is odd or the stride asks for it."""

    def forward(self, x: Tensor) -> Tensor:
        borders = []
        for size, k, s in zip(reversed(x.shape[2:]), reversed(self.kernel_size), reversed(self.stride), strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            borders += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, borders), self.weight, self.bias, self.stride)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1))


def to_multiple_of_32(m: Compose, x: Tensor) -> Tensor:
    h, w = -x.shape[2] % 32, -x.shape[3] % 32
    return m.n(F.pad(x, (w // 2, w - w // 2, h // 2, h - h // 2)))


def large_ones_only(m: Compose, x: Tensor) -> Tensor:
    if x.shape[-1] < 32:
        raise ValueError("too small")
    return m.n(x)


SIZED = {
    "padded to a multiple": lambda: Compose(to_multiple_of_32, n=net()),
    "shrunk when large": lambda: Compose(lambda m, x: m.n(x if x.shape[-1] < 48 else x * 0.5), n=net()),
    "divided by its size": lambda: Compose(lambda m, x: m.n(x) * 64 / x.shape[-1], n=net()),
    "grid of its size": lambda: Compose(lambda m, x: m.n(x + torch.linspace(0, 1, x.shape[-1])), n=net()),
    "padded within layers": lambda: Compose(lambda m, x: m.n(x), n=nn.Sequential(
        SamePadding(3, 8, 3, stride=2), nn.ReLU(), SamePadding(8, 6, 5, stride=2))),
    "refused when small": lambda: Compose(large_ones_only, n=net()),
}  # fmt: skip


def pictures(n: int = 3) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", SIZED)
@pytest.mark.parametrize("place", [(0, 0), (7, 11), (15, 15), (3, 0), "center", "max"], ids=str)
def test_a_position_has_the_value_that_the_whole_picture_gives(kind: str, place):
    model, images = SIZED[kind]().eval(), pictures()
    target = vc.Target("", 1, position=place)
    circuit = vc.Circuit(model, target, vc.score(model, target, images).select(density=1.0))
    full = vc.respond(model, circuit.readout, images)
    torch.testing.assert_close(circuit.respond(images, frozen=full.frozen), full.values, atol=1e-5, rtol=1e-5)


def test_an_ordinary_network_still_runs_on_crops_and_is_tried_once(monkeypatch):
    model, runs = net().eval(), []
    graph = trace(model, SHAPE)
    run = tried.run
    monkeypatch.setattr(tried, "run", lambda *args, **options: (runs.append(len(args[2])), run(*args, **options))[1])
    crops = tried_crops(model, graph, "2")
    assert crops == aligned_crops(graph, "2")
    assert runs == [1, 5]  # one whole picture, five crops of it
    assert tried_crops(model, graph, "2") == crops
    assert runs == [1, 5]
    target = vc.Target("2", 1, position=(20, 21))
    circuit = vc.Circuit(model, target, vc.score(model, target, pictures()).select(density=0.5))
    assert circuit.execution.on_crops is not None


def test_layers_before_the_odd_one_keep_their_crops():
    model = Compose(
        lambda m, x: m.n(F.pad(F.relu(m.first(x)), (0, -x.shape[3] % 32, 0, -x.shape[2] % 32))),
        first=nn.Conv2d(3, 3, 3, padding=1), n=nn.Conv2d(3, 4, 3, padding=1),
    )  # fmt: skip
    graph = trace(model, SHAPE)
    assert tried_crops(model, graph, "first") is not None


def test_pictures_of_another_size_are_refused_wherever_a_circuit_or_model_answers():
    model, target = net().eval(), vc.Target("2", 1)
    circuit = vc.Circuit(model, target, vc.score(model, target, pictures()).select(density=0.5))
    small = vc.ImageSet.from_tensors(torch.randn(3, 3, 32, 48))
    at_a_place = vc.Circuit(model, target.at((20, 21)), circuit.mask)
    for ask in (
        lambda: circuit.respond(small),
        lambda: at_a_place.respond(small),
        lambda: vc.respond(model, circuit.readout, small),
        lambda: vc.respond_resampled(circuit, small),
        lambda: vc.preservation(circuit, small),
    ):
        with pytest.raises(ImageError, match=r"expected pictures of .* \(3, 64, 64\), got \(3, 32, 48\)"):
            ask()
