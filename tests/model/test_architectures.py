"""The graph of twenty architectures against an oracle that never sees a graph: the support of a gradient.

The oracle is a *twin* of the network: every parameter positive, every activation and norm replaced by something that
has a positive derivative everywhere, max pooling by mean pooling. Nothing can cancel, so the gradient of the sum of a
channel with respect to a kernel is positive exactly where the kernel has a path to the channel.
"""

import copy
import time
from dataclasses import dataclass, field
from unittest import mock

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from cifar_resnet20 import ResNet20
from viscircuits.model.flow.reach import reach
from viscircuits.model.graph import NetGraph
from viscircuits.model.trace import trace


@dataclass(frozen=True)
class Case:
    """A network, a late layer of it, and how many kernels reach one of its channels where that is known."""

    name: str
    layer: str
    count: int | None = None
    size: int = 64
    options: dict[str, object] = field(default_factory=dict)

    def model(self) -> nn.Module:
        if self.name == "cifar_resnet20":
            return ResNet20().eval()
        if self.name.startswith(("alexnet", "vgg")):  # drawing 130 million numbers takes longer than the test
            with torch.device("meta"):
                model = torchvision.models.get_model(self.name, weights=None)
            return model.to_empty(device="cpu").eval()
        return torchvision.models.get_model(self.name, weights=None, **self.options).eval()

    @property
    def param(self):
        return pytest.param(self, id=f"{self.name}-{self.layer}")


HEADS = {"init_weights": False, "transform_input": True}  # with the auxiliary heads, which evaluation mode leaves out
CASES = [
    Case("alexnet", "features.6", 12_672),
    Case("alexnet", "features.10", 184_768),
    Case("alexnet", "classifier.4", 38_002_880),
    Case("vgg11", "features.18"),
    Case("vgg11_bn", "features.25", 762_560),
    Case("squeezenet1_1", "features.7.expand3x3", 27_872),
    Case("googlenet", "inception4c.branch2.1", 661_056, options=HEADS),
    Case("inception_v3", "Mixed_6c.branch7x7_3", 1_148_672, size=75, options=HEADS),
    Case("resnet18", "layer3.1.conv1", 213_440),
    Case("resnet50", "layer3.2.conv2"),
    Case("wide_resnet50_2", "layer2.3.conv3"),
    Case("resnext50_32x4d", "layer3.2.conv2", 3_704_528),
    Case("densenet121", "features.denseblock3.denselayer5.conv2", 1_036_608),
    Case("mobilenet_v2", "features.16.conv.2"),
    Case("mobilenet_v3_small", "features.9.block.0.0", 162_904),
    Case("efficientnet_b0", "features.5.1.block.0.0", 388_720),
    Case("shufflenet_v2_x1_0", "stage2.2.branch2.5", 13_714),
    Case("shufflenet_v2_x1_0", "stage4.1.branch2.0", 364_800),
    Case("regnet_y_400mf", "trunk_output.block3.block3-2.f.a.0", 295_536),
    Case("convnext_tiny", "features.5.2.block.0", 2_971_009),
    Case("vit_b_16", "encoder.layers.encoder_layer_3.mlp.0", 23_596_032, options={"image_size": 64}),
    Case("vit_b_16", "encoder.layers.encoder_layer_0.mlp.3", options={"image_size": 64}),
    Case("swin_t", "features.3.1.mlp.0", 885_216),
    Case("cifar_resnet20", "layer3.1.conv1", size=32),
]


@pytest.mark.parametrize("case", [case.param for case in CASES])
def test_relevant_kernels_are_the_support_of_a_positive_twins_gradient(case: Case):
    model = case.model()
    graph = trace(model, (3, case.size, case.size))
    channel = 5
    used = _relevant(graph, case.layer, channel)
    if case.count is not None:
        assert sum(int(array.sum()) for array in used.values()) == case.count
    expected = _support(model, case, channel)
    found = {graph.layers[name].weight: array for name, array in used.items() if bool(array.any())}
    assert set(found) == {name for name, array in expected.items() if bool(array.any())}
    for name, array in found.items():
        assert torch.equal(array, expected[name]), name


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet50"])
def test_tracing_takes_seconds_not_minutes(name: str):
    model = torchvision.models.get_model(name, weights=None).eval()
    before = time.process_time()
    trace(model, (3, 224, 224))
    assert time.process_time() - before < 10  # 2 s when nothing else runs


def _relevant(graph: NetGraph, layer: str, channel: int) -> dict[str, Tensor]:
    wanted = torch.zeros(graph.output(layer).n_channels, dtype=torch.bool)
    wanted[channel] = True
    return dict(reach(graph, {layer: wanted}).used)


# ---- the oracle: it knows modules and functions, no graph ------------------------------------------------------------


class _Mix(nn.Module):
    """Stands in for a layer norm: every channel gets something of all others."""

    def __init__(self, axes: int):
        super().__init__()
        self.axes = tuple(range(-axes, 0))

    def forward(self, x: Tensor) -> Tensor:
        mixed = x + x.mean(self.axes, keepdim=True)
        return mixed / mixed.detach().mean()  # products of products would overflow


def _support(model: nn.Module, case: Case, channel: int) -> dict[str, Tensor]:
    """Weight name -> kernels with a positive derivative."""
    twin = _positive(model)
    image = torch.rand(1, 3, case.size, case.size, dtype=torch.float64) + 0.5
    seen: list[Tensor] = []
    handle = twin.get_submodule(case.layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with _positive_functions():
        twin(image)
    handle.remove()
    output = seen[0] if isinstance(twin.get_submodule(case.layer), nn.Linear) else seen[0].movedim(1, -1)
    weights = {name: weight for name, weight in twin.named_parameters() if weight.ndim > 1 and "relative" not in name}
    for name in ("class_token", "encoder.pos_embedding"):
        weights.pop(name, None)
    weights = {name: weight for name, weight in weights.items() if "layer_scale" not in name}
    grads = torch.autograd.grad(output[..., channel].sum(), list(weights.values()), allow_unused=True)
    found = {}
    for (name, weight), grad in zip(weights.items(), grads, strict=True):
        nonzero = torch.zeros_like(weight) if grad is None else grad
        assert bool((nonzero >= 0).all()), f"the twin is not positive at {name}"
        found[name] = (nonzero != 0).flatten(2).any(2) if nonzero.ndim > 2 else nonzero != 0
    return found


def _positive(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model).double()
    _swap(twin)
    with torch.no_grad():
        for parameter in twin.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            parameter.copy_(_uniform(parameter.shape) / fan_in)
        for module in twin.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.running_mean)
                nn.init.ones_(module.running_var)
    return twin


def _uniform(shape: torch.Size) -> Tensor:
    """Numbers in [0.5, 1.5]; a short random stretch, repeated, as large layers have tens of millions."""
    some = torch.rand(997, dtype=torch.float64) + 0.5
    return some.repeat(shape.numel() // 997 + 1)[: shape.numel()].view(shape)


def _swap(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
            setattr(module, name, mean)
        elif isinstance(child, nn.LayerNorm):
            setattr(module, name, _Mix(len(child.normalized_shape)))
        elif isinstance(child, nn.ReLU | nn.ReLU6 | nn.SiLU | nn.GELU | nn.Sigmoid | nn.Hardsigmoid | nn.Hardswish):
            setattr(module, name, nn.Identity())
        else:
            _swap(child)


def _positive_functions():
    def same(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return x

    def mean_pool(x: Tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode)

    def soft(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        return x + 200  # shifted windows add -100 to what is masked

    def attend(q: Tensor, k: Tensor, v: Tensor, *args: object, **kwargs: object) -> Tensor:
        return q @ k.transpose(-1, -2) @ v

    def mix(x: Tensor, shape, *args: object, **kwargs: object) -> Tensor:
        return _Mix(len(shape))(x)

    functions = {"relu": same, "max_pool2d": mean_pool, "softmax": soft, "layer_norm": mix}
    return mock.patch.multiple(F, scaled_dot_product_attention=attend, **functions)
