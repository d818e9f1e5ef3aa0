"""SqueezeNet1.1, ResNet-20 and EfficientNet-Lite0 with their trained weights: real scores against oracles."""

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import viscircuits as vc
from oracles import Table, _Call, _Calls, force, kernel_weights, objective, oracle, weight_gradients
from saliency.test_criteria import CRITERIA, assert_close, stacked
from viscircuits.data.images import ImageSet
from viscircuits.target import Target

pytestmark = pytest.mark.data

DTYPES = (torch.float64, torch.float32)


@dataclass(frozen=True)
class Network:
    """A network and what it is asked.

    Attributes:
        name: for `vc.zoo.load`.
        weights, pictures: where they are in the folder.
        size: side of its pictures.
        middle: a target whose scores the literal oracle gives in seconds.
        behind: what runs after the middle target alone; the literal oracle does without it.
        late: a target with nearly everything before it.
        local: a layer whose positions see a part of a picture.
    """

    name: str
    weights: str
    pictures: str
    size: int
    middle: Target
    behind: tuple[str, ...]
    late: Target
    local: str
    folder: Path = Path()

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size


NETWORKS = (
    Network(
        "squeezenet1_1",
        "squeezenet1_1-imagenet",
        "imagenet-1000",
        65,  # pools of ceil mode have windows beyond the border
        middle=Target("features.6.expand3x3", 5),
        behind=(*(f"features.{i}" for i in range(7, 13)), "classifier"),
        late=Target("features.12.expand3x3", 20),
        local="features.6",
    ),
    Network(
        "cifar_resnet20:resnet20",
        "resnet20-cifar10",
        "cifar10/test",
        32,
        middle=Target("layer2.1.conv1", 5),
        behind=("layer2.2", "layer3", "linear"),
        late=Target("layer3.2.conv2", 7),
        local="layer2.0.conv2",
    ),
    Network(
        "efficientnet_lite0:efficientnet_lite0",
        "efficientnet_lite0-imagenet",
        "imagenet-1000",
        45,  # strided convolutions see odd and even sizes on the way
        middle=Target("blocks.2.0.conv_pwl", 5),
        behind=(*(f"blocks.{i}" for i in ("2.1", 3, 4, 5, 6)), "conv_head", "bn2", "clip2", "classifier"),
        late=Target("blocks.5.1.conv_dw", 500),
        local="blocks.1.1.conv_dw",
    ),
)

LARGE_IS_SLOW = [*NETWORKS[:2], pytest.param(NETWORKS[2], marks=pytest.mark.slow)]


def short(network: Network) -> str:
    return network.name.rpartition(":")[2]


@pytest.fixture(params=NETWORKS, ids=short)
def network(request: pytest.FixtureRequest, data_dir: Path) -> Network:
    return replace(request.param, folder=data_dir)


@functools.cache
def loaded(network: Network) -> tuple[nn.Module, object]:
    return vc.zoo.load(network.name, network.folder / f"weights/{network.weights}.safetensors")


@functools.cache
def model_of(network: Network, dtype: torch.dtype = torch.float64) -> nn.Module:
    return copy.deepcopy(loaded(network)[0]).to(dtype)


@functools.cache
def images_of(network: Network, n: int = 2) -> ImageSet:
    """Real pictures, prepared, then made to the size."""
    chosen = ImageSet.from_folder(network.folder / network.pictures, loaded(network)[1]).take(n, seed=1)
    scaled = F.interpolate(stacked(chosen).double(), size=(network.size,) * 2, mode="bilinear", antialias=True)
    return ImageSet.from_tensors(scaled)


@functools.cache
def settled(network: Network) -> ImageSet:
    """The two of twenty pictures whose numbers stay farthest from kinks.

    Where a ReLU's input is 1e-7, rounding to float32 opens or shuts it, and gradients with it.
    """
    images = images_of(network, 20)
    kinks = [nearest_kink(model_of(network), image[None]) for image in stacked(images)]
    return images.subset(sorted(range(len(images)), key=kinks.__getitem__)[-2:])


@torch.no_grad()
def nearest_kink(model: nn.Module, image: Tensor) -> float:
    """How near any input of a ReLU or maximum comes to where its derivative jumps, against the largest of its call."""
    found: list[float] = []
    max_pool2d = F.max_pool2d

    def clipped(x: Tensor, low: float = 0.0, high: float = torch.inf, inplace: bool = False) -> Tensor:
        found.append(float(torch.minimum((x - low).abs(), (x - high).abs()).min() / x.abs().max()))
        return x.clamp(low, high)

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        return clipped(x)

    def pooled(x: Tensor, size: int, stride: int, *rest: Any, **options: Any) -> Tensor:
        windows = x.unfold(2, size, stride).unfold(3, size, stride).flatten(4)
        first, second = windows.topk(2).values.unbind(-1)
        found.append(float((first - second)[first > 0].min() / x.max()))
        return max_pool2d(x, size, stride, *rest, **options)

    with mock.patch.multiple(F, relu=relu, hardtanh=clipped, max_pool2d=pooled):
        model(image)
    return min(found)


def front_of(network: Network) -> nn.Module:
    """The network without what runs behind its middle target."""
    front = copy.deepcopy(model_of(network))
    for name in network.behind:
        front.set_submodule(name, nn.Identity())
    return front


def assert_scores(network: Network, target: Target, table: Table) -> None:
    """Every criterion, in both precisions, is what the oracle found in float64."""
    for dtype in DTYPES:
        for criterion in CRITERIA:
            images = ImageSet.from_tensors(stacked(settled(network)).to(dtype))
            got = vc.score(model_of(network, dtype), target, images, criterion)
            assert set(got.sums) <= set(table[criterion])
            assert_close(got, table[criterion], dtype)


@pytest.mark.parametrize("network", LARGE_IS_SLOW, indirect=True, ids=short)
def test_scores_of_a_middle_layer_are_their_definition(network: Network):
    found = oracle(front_of(network), network.middle, stacked(settled(network)), None, taps=False)
    assert_scores(network, network.middle, {criterion: found[criterion, "kernel"] for criterion in CRITERIA})


def test_scores_of_a_late_layer_are_their_definition(network: Network):
    tables: dict[str, Table] = {criterion: {} for criterion in CRITERIA}
    for image in stacked(settled(network)):
        for criterion, name, values in by_input_channel(model_of(network), network.late, image[None]):
            tables[criterion][name] = tables[criterion].get(name, 0) + values
    weights = kernel_weights(model_of(network))
    tables["magnitude"] = {name: means(weight.detach().abs()) for name, weight in weights.items()}
    assert_scores(network, network.late, tables)


def by_input_channel(model: nn.Module, target: Target, image: Tensor) -> Iterator[tuple[str, str, Tensor]]:
    """Criterion, layer and its scores, for one picture.

    Hundreds of thousands of kernels are not taken apart one by one: each input channel (of a group) is sent alone
    through its kernels. The maps enter their layer's output by a plain sum, so that its gradient is theirs.
    """
    seen: list[tuple[_Call, Tensor]] = []

    def call(one: _Call) -> Tensor:
        output = one.function(**one.given)
        output.retain_grad()
        seen.append((one, output))
        return output * 1  # what follows may write over it

    with _Calls({id(p): name for name, p in kernel_weights(model).items()}, call):
        objective(model, target, image, None).backward()
    model.zero_grad()
    for one, output in seen:
        if output.grad is not None:
            maps = torch.stack(list(maps_of(one)), 1)
            yield "activation", one.name, maps.abs().mean((2, 3))
            yield "actgrad", one.name, (maps * output.grad[0, :, None]).abs().mean((2, 3))
    for name, gradient in weight_gradients(model, target, image, None).items():
        yield "gradient", name, means(gradient.abs())
        yield "snip", name, means((gradient * kernel_weights(model)[name].detach()).abs())


def maps_of(call: _Call) -> Iterator[Tensor]:
    """For each column of a weight, the maps ``[out, h, w]`` that its kernels alone put out."""
    x, weight, groups = call.given["input"].detach(), call.given["weight"].detach(), call.given["groups"]
    fixed = {name: call.given[name] for name in ("stride", "padding", "dilation")}
    for column in range(weight.shape[1]):
        alone = x[:, column :: weight.shape[1]]
        yield call.function(alone, weight[:, column : column + 1], groups=groups, **fixed)[0]


def means(weights: Tensor) -> Tensor:
    return weights.flatten(2).mean(2) if weights.ndim > 2 else weights


def test_force_is_its_definition(network: Network):
    images = settled(network)
    got = vc.score(model_of(network), network.middle, images, "force,rounds=4", density=0.1)
    mask = got.select(density=0.1)
    scores, kept = force(
        front_of(network), network.middle, stacked(images), None, got.relevant, mask.n_kept, "kernel", rounds=4
    )
    assert_close(got, scores, torch.float64)
    assert all(torch.equal(mask.kept[name], kept[name]) for name in kept)
