"""EfficientNet-Lite0: Tan and Le's EfficientNet-B0 (2019) without squeeze-and-excitation, with ReLU6 for swish.

Strided convolutions pad as TensorFlow's "same" does: by as much as the size of their input asks for, the odd pixel at
the end. Modules are named as in the weight file.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import transforms

STAGES = (
    # kernel, stride of the first block, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM, HEAD = 32, 1280


class SameConv2d(nn.Conv2d):
    """A convolution whose map has ``ceil(size / stride)`` places along each axis, whatever the size of its input."""

    def forward(self, input: Tensor) -> Tensor:
        axes = zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        missing = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size, kernel, stride in axes]
        (top, bottom), (left, right) = ((total // 2, total - total // 2) for total in missing)
        return super().forward(F.pad(input, (left, right, top, bottom)))


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """The first block, which does not expand: a depthwise convolution, then one that mixes channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.conv_dw, self.bn1 = conv(inputs, inputs, kernel, stride, inputs), norm(inputs)
        self.conv_pw, self.bn2 = conv(inputs, outputs), norm(outputs)
        self.clip = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.clip(self.bn1(self.conv_dw(x)))))


class Inverted(nn.Module):
    """More channels, a depthwise convolution, fewer channels; plus the input where the shapes are the same."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        self.conv_pw, self.bn1 = conv(inputs, width), norm(width)
        self.conv_dw, self.bn2 = conv(width, width, kernel, stride, width), norm(width)
        self.conv_pwl, self.bn3 = conv(width, outputs), norm(outputs)
        self.clip1, self.clip2 = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.clip1(self.bn1(self.conv_pw(x)))
        y = self.bn3(self.conv_pwl(self.clip2(self.bn2(self.conv_dw(y)))))
        return y + x if self.adds else y


def stage(inputs: int, kernel: int, stride: int, expansion: int, channels: int, blocks: int) -> nn.Sequential:
    found = nn.Sequential()
    for i in range(blocks):
        if expansion == 1:
            found.append(Separable(inputs, channels, kernel, stride if i == 0 else 1))
        else:
            found.append(Inverted(inputs, channels, kernel, stride if i == 0 else 1, expansion))
        inputs = channels
    return found


class EfficientNetLite0(nn.Module):
    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv_stem, self.bn1 = conv(3, STEM, 3, 2), norm(STEM)
        widths = (STEM, *(channels for *_, channels, _ in STAGES))
        self.blocks = nn.Sequential(*(stage(inputs, *spec) for inputs, spec in zip(widths, STAGES, strict=False)))
        self.conv_head, self.bn2 = conv(widths[-1], HEAD), norm(HEAD)
        self.clip1, self.clip2 = nn.ReLU6(inplace=True), nn.ReLU6(inplace=True)
        self.classifier = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.clip1(self.bn1(self.conv_stem(x))))
        return self.classifier(self.clip2(self.bn2(self.conv_head(x))).mean((2, 3)))


def prepare() -> transforms.Compose:
    resize = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    normalise = transforms.Normalize((0.5,) * 3, (0.5,) * 3)
    return transforms.Compose([resize, transforms.CenterCrop(224), transforms.ToTensor(), normalise])


def efficientnet_lite0() -> tuple[nn.Module, transforms.Compose]:
    return EfficientNetLite0(), prepare()
