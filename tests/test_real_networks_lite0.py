"""The EfficientNet-Lite0 of these tests is the published one: its padding, its parts, and its accuracy."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import viscircuits as vc
from efficientnet_lite0 import SameConv2d, efficientnet_lite0
from model.test_zoo import accuracy
from viscircuits.data.images import ImageSet

LITE0 = "efficientnet_lite0:efficientnet_lite0"
WEIGHTS = "weights/efficientnet_lite0-imagenet.safetensors"


@pytest.mark.parametrize(
    ("size", "kernel", "starts"),
    [
        (4, 3, [0, 2]),
        (5, 3, [-1, 1, 3]),
        (6, 3, [0, 2, 4]),
        (1, 3, [-1]),
        (4, 5, [-1, 1]),
        (5, 5, [-2, 0, 2]),
        (2, 5, [-1]),
        (7, 2, [0, 2, 4, 6]),
        (5, 1, [0, 2, 4]),
    ],
)
def test_strided_convolutions_start_where_tensorflow_has_them_start(size: int, kernel: int, starts: list[int]):
    conv = SameConv2d(1, 1, kernel, 2, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[..., 0, 0] = 1.0  # so that each place puts out the first pixel of its window
    picture = torch.arange(1.0, 1 + size * (size + 1)).view(size, size + 1)[:, :size]
    with torch.no_grad():
        found = conv(picture[None, None])[0, 0]
    assert found.tolist() == [[float(picture[y, x]) if y >= 0 and x >= 0 else 0.0 for x in starts] for y in starts]


def test_its_parts():
    model, _ = efficientnet_lite0()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 49
    assert sum(conv.groups > 1 for conv in convolutions) == 16
    assert [conv.kernel_size[0] for conv in convolutions if isinstance(conv, SameConv2d)] == [3, 3, 5, 3, 5]
    assert sum(module.inplace for module in model.modules() if isinstance(module, nn.ReLU6)) == 33
    assert {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008


@pytest.mark.data
def test_its_names_are_those_of_the_weight_file(data_dir):
    state = vc.zoo.load(LITE0, data_dir / WEIGHTS).model.state_dict()
    stored = load_file(data_dir / WEIGHTS)
    assert state.keys() == stored.keys()
    for name, tensor in stored.items():
        assert state[name].dtype in (torch.float32, torch.int64)
        assert torch.equal(state[name], tensor.to(state[name].dtype)), name


@pytest.mark.slow
@pytest.mark.data
def test_its_accuracy_is_that_of_the_weights(data_dir):
    model, prepare = vc.zoo.load(LITE0, data_dir / WEIGHTS)
    images = ImageSet.from_folder(data_dir / "imagenet-1000", prepare)
    assert accuracy(model, images.subset(range(0, len(images), 4))) == pytest.approx(0.872, abs=0.01)
