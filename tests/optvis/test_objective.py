"""Objectives against plain indexing of the module's own outputs, and kernels' maps against convolutions by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micro import MICRO_IMAGE, MicroNet, toy
from viscircuits.data.colours import Colours
from viscircuits.errors import TargetError, UnsupportedOperation
from viscircuits.model.trace import trace
from viscircuits.optvis.network import Network
from viscircuits.optvis.objective import Activation, KernelMap, Objective, objective
from viscircuits.target import Loss, Target


def network(model: nn.Module, shape: tuple[int, int, int]) -> Network:
    return Network(model, trace(model, shape), {}, Colours.unchanged(shape[0]))


def values(model: nn.Module, images: Tensor, *objectives: Objective) -> list[float]:
    """What every objective makes of the first picture."""
    repeated = images[:1].expand(len(objectives), -1, -1, -1)
    with torch.no_grad():
        return network(model, tuple(images.shape[1:])).look(repeated, objectives).values.tolist()


@pytest.fixture(scope="module")
def plain() -> tuple[nn.Module, Tensor]:
    model, _, images = toy("plain")
    return model, torch.stack([images[0], images[1]])


def test_targets(plain):
    model, images = plain
    with torch.no_grad():
        a = model.bn(model.conv1(images))[0]
        logits = model(images)[0]
    h, w = a.shape[1:]
    direction = torch.tensor([1.0, -2.0, 0.0, 2.0]).double()
    expected = {
        "bn:2": a[2].mean(),
        "bn:2@1,3": a[2, 1, 3],
        "bn:2@center": a[2, h // 2, w // 2],
        "bn:2@max": a[2].max(),
        "logit:3": logits[3],
        "2*bn:1 - 0.5*logit:3": 2 * a[1].mean() - 0.5 * logits[3],
    }
    assert values(model, images, *map(objective, expected)) == pytest.approx([float(v) for v in expected.values()])
    along = Activation(Target("bn", direction=direction / 3))
    assert values(model, images, along) == pytest.approx([float((direction[:, None, None] / 3 * a).sum(0).mean())])


def test_every_picture_has_its_own_objective(plain):
    model, images = plain
    objectives = [objective("bn:0"), objective("logit:1")]
    with torch.no_grad():
        found = network(model, (2, 8, 8)).look(images, objectives).values.tolist()
        expected = [float(model.bn(model.conv1(images))[0, 0].mean()), float(model(images)[1, 1])]
    assert found == pytest.approx(expected)


def test_arithmetic(plain):
    model, images = plain
    a, b, k = objective("bn:0"), objective("logit:1"), KernelMap("conv2", 3, 1)
    x, y, z = values(model, images, a, b, k)
    mixed = values(model, images, a + Target.logit(1), a - b, -a, 2.0 * a, 0.5 * (a - 2.0 * b) + k, -(a - k))
    assert mixed == pytest.approx([x + y, x - y, -x, 2 * x, 0.5 * (x - 2 * y) + z, z - x])
    assert str(0.5 * (a - 2.0 * b) + k) == "0.5*bn:0 - 1*logit:1 + 1*conv2:3<1"


def test_kernel_map_by_hand():
    """conv1 makes [2x - 1, 2 - x]; kernel (1, 0) of conv2 is [[0, 2], [0, 0]]: twice the value to the right."""
    model = MicroNet().eval()
    right = torch.tensor([[2.0, 0.0], [1.0, 3.0]])  # of the picture's 2 x 2 windows, the upper right values
    expected = 2 * F.relu(2 * right - 1)
    kernels = [KernelMap("conv2", 1, 0), KernelMap("conv2", 1, 0, (1, 1)), KernelMap("conv2", 1, 0, "center")]
    found = values(model, MICRO_IMAGE, *kernels, KernelMap("conv1", 0, 0), KernelMap("head", 1, 0))
    assert found[0] == float(expected.mean())
    assert found[1] == found[2] == float(expected[1, 1]) == 10
    assert found[3] == pytest.approx(float(2 * MICRO_IMAGE.mean()))
    assert found[4] == 0  # that weight is zero


@pytest.mark.parametrize(
    ("name", "layer"),
    [("plain", "conv1"), ("plain", "conv2"), ("plain", "fc1"), ("grouped", "grouped"), ("grouped", "depthwise"),
     ("same", "a"), ("transposed", "up"), ("transposed", "point"), ("one_and_three", "cube"), ("tokens", "mlp1"),
     ("reused", "twice"), ("functional", "w")],
)  # fmt: skip
def test_kernel_maps_sum_to_the_layer(name: str, layer: str):
    """All kernels of a filter, and its bias, are the layer's own output: summed over its calls."""
    model, _, images = toy(name)
    graph = trace(model, images[0].shape)
    kernels, out = graph.layers[layer], graph.layers[layer].out_channels - 1
    parts = [KernelMap(layer, out, int(source)) for source in kernels.sources[out]]
    total = sum(values(model, images[0][None], *parts))
    bias = model.get_parameter(kernels.bias)[out].item() if kernels.bias else 0.0
    own = [f"{layer}@{i}:{out}" for i in range(kernels.calls)] if kernels.calls > 1 else [f"{layer}:{out}"]
    if name == "functional":
        with torch.no_grad():
            expected = F.conv2d(images[0][None], model.w, model.b, padding=1)[0, out].mean().item()
    else:
        expected = sum(values(model, images[0][None], *map(objective, own)))
    assert total + bias * kernels.calls == pytest.approx(expected, abs=1e-9)


def test_errors(plain):
    model, _ = plain
    graph = trace(model, (2, 8, 8))
    with pytest.raises(TargetError, match="a loss has no picture; render a class instead"):
        objective(Loss())
    with pytest.raises(TargetError, match="channel 9 is out of range: layer 'conv2' has channels 0 to 4"):
        objective("conv2:9").layers(graph)
    with pytest.raises(TargetError, match=r"layer 'conv9' has no kernels; closest: 'conv"):
        KernelMap("conv9", 0, 0).layers(graph)
    with pytest.raises(TargetError, match=r"no kernel conv2:0<7: .* 5 output and 4 input channels .* reads 0 to 3"):
        KernelMap("conv2", 0, 7).layers(graph)
    with pytest.raises(TargetError, match=r"no kernel conv2:9<0: .*no such output"):
        (objective("conv2:1") + KernelMap("conv2", 9, 0)).layers(graph)
    with pytest.raises(TargetError, match="outside the map of conv2:0<1@99,0"):
        values(model, torch.zeros(1, 2, 8, 8).double(), KernelMap("conv2", 0, 1, (99, 0)))
    windows, _, _ = toy("windows")
    with pytest.raises(UnsupportedOperation, match="'within' have no maps of single images"):
        KernelMap("within", 0, 0).layers(trace(windows, (2, 8, 8)))
