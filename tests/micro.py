"""Networks small enough to check by hand or by brute force, one for every way in which layers can be awkward.

`MicroNet` has integer weights, so its scores can be worked out on paper. `TOYS` names the others, each with a picture
shape and a target; `toy` builds one in evaluation mode with random weights from a fixed seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import viscircuits.target as targets
from viscircuits.data.images import ImageSet

MICRO_IMAGE = torch.tensor([[[[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]]]])
"""One picture of one channel, 3x3."""


class MicroNet(nn.Module):
    """1x1 convolution to 2 channels, ReLU, 2x2 convolution to 2 channels, ReLU in place, sum over space, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 1)
        self.conv2 = nn.Conv2d(2, 2, 2)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.conv1.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
            self.conv1.bias.copy_(torch.tensor([-1.0, 2.0]))
            self.conv2.weight[0].copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]]))
            self.conv2.weight[1].copy_(torch.tensor([[[0.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, -3.0]]]))
            self.conv2.bias.copy_(torch.tensor([0.0, 1.0]))
            self.head.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu_(self.conv2(F.relu(self.conv1(x)))).sum((2, 3)))


class Plain(nn.Module):
    """A small classifier: strides, rectangular kernels, batch norm, in-place ReLU, pooling, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0))
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(5, 3, 1, stride=2, padding=1)
        self.fc1 = nn.Linear(3, 6)
        self.fc2 = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv1(x)))
        x = F.max_pool2d(self.relu(self.conv2(x)), 2, stride=1)
        x = self.relu(self.conv3(x)).mean((2, 3))
        return self.fc2(self.relu(self.fc1(x)))


class Grouped(nn.Module):
    """Grouped, dilated, reflect-padded; then a channel shuffle and a depthwise layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=2, padding_mode="reflect", dilation=2)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2, padding=2, dilation=2, padding_mode="reflect")
        self.depthwise = nn.Conv2d(6, 12, 3, groups=6, padding=1, padding_mode="circular")
        self.top = nn.Conv2d(12, 4, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.stem(x))))
        x = x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)
        return self.top(F.silu(self.depthwise(x)))


class Same(nn.Module):
    """Padding given in words, also where it is uneven."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 3, (3, 4), padding="same", dilation=(2, 1))
        self.b = nn.Conv2d(3, 4, 2, padding="same", groups=1)
        self.c = nn.Conv2d(4, 3, 3, padding="valid")

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.gelu(self.b(F.relu(self.a(x)))))


class InPlace(nn.Module):
    """ReLUs write over what convolutions put out; a sum writes over a layer's input after the layer has used it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.conv3 = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)  # the very pictures
        h = self.conv1(x)
        h += F.relu_(self.conv2(h))
        x = F.relu_(h)
        return self.conv3(x)


class InPlaceLinear(nn.Module):
    """A sum writes over a linear layer's input, which autograd itself does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 5)
        self.fc2 = nn.Linear(5, 5)
        self.fc3 = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x.mean(1))  # rows of the picture as tokens
        h += self.fc2(h)
        return self.fc3(h).mean(1)


class Reused(nn.Module):
    """One module called twice, and two modules that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.tied = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.also_tied = nn.Conv2d(3, 3, 3, padding=2, dilation=2, bias=False)
        self.also_tied.weight = self.tied.weight
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.twice(F.relu(self.twice(F.relu(self.stem(x))))))
        x = self.also_tied(F.relu(self.tied(x)))
        return self.fc(F.softplus(self.fc(x.mean((2, 3)))))


class Transposed(nn.Module):
    """Transposed convolutions: strided, grouped, with output padding; 1x1 too."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2)
        self.up = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.point = nn.ConvTranspose2d(6, 4, 1, groups=2)
        self.up2 = nn.ConvTranspose2d(4, 2, (3, 2), dilation=(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.up2(F.relu(self.point(F.relu(self.up(F.relu(self.down(x)))))))


class OneAndThree(nn.Module):
    """Convolutions in one and in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(2, 4, 5, stride=2, padding=1)
        self.line_up = nn.ConvTranspose1d(4, 4, 3, groups=2)
        self.cube = nn.Conv3d(2, 2, (1, 2, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.line_up(F.relu(self.line(x.flatten(2)))))
        return self.cube(x.unflatten(1, (2, 2)).unflatten(3, (-1, 3)))


class Tokens(nn.Module):
    """A convolution to patches, then linear layers on tokens, with layer norm and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 5, 4, stride=4)
        self.token = nn.Parameter(torch.empty(1, 1, 5))
        self.norm = nn.LayerNorm(5)
        self.mlp1 = nn.Linear(5, 6)
        self.mlp2 = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.mlp2(F.gelu(self.mlp1(self.norm(x))))
        return self.head(x[:, 0])


class Windows(nn.Module):
    """Linear layers on window partitions: the image axis merges with that of the windows."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 4, 2, stride=2)
        self.within = nn.Linear(4, 5)
        self.flat = nn.Linear(5, 4)
        self.across = nn.Linear(4, 4)
        self.crop = nn.Conv2d(4, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = self.patch(x).movedim(1, -1)  # n 4 4 c
        x = x.view(n, 2, 2, 2, 2, 4).transpose(2, 3).reshape(n * 4, 4, 4)  # windows of 2x2
        x = F.relu(self.within(x))
        x = self.flat(x.reshape(-1, 5)).view(n, 16, 4)
        x = F.relu(self.across(x.transpose(0, 1))).transpose(0, 1)  # tokens first, as CLIP has them
        x = x.reshape(n * 4, 2, 2, 4).movedim(-1, 1)
        return self.crop(x).reshape(n, 4, 3).mean(1)


class Gated(nn.Module):
    """Residual, concatenation and a squeeze-and-excite gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.a = nn.Conv2d(4, 2, 1)
        self.b = nn.Conv2d(4, 2, 3, padding=1)
        self.squeeze = nn.Conv2d(4, 2, 1)
        self.excite = nn.Conv2d(2, 4, 1)
        self.top = nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = torch.cat([self.a(x), self.b(x)], 1)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return self.top(F.relu(x + y * gate))


class Functional(nn.Module):
    """Layers called as functions on bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(3, 2, 3, 3))
        self.b = nn.Parameter(torch.empty(3))
        self.up = nn.Parameter(torch.empty(3, 2, 2, 2))
        self.m = nn.Parameter(torch.empty(3, 2))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(F.conv2d(x, self.w, bias=self.b, padding=(1,), dilation=1))
        x = F.relu(F.conv_transpose2d(input=x, weight=self.up, stride=2))
        return F.linear(x.mean((2, 3)), self.m)


@dataclass(frozen=True)
class Toy:
    """A network, the shape of its pictures, and the target it is scored for."""

    build: Callable[[], nn.Module]
    target: str
    shape: tuple[int, int, int] = (2, 8, 8)


TOYS: dict[str, Toy] = {
    "plain": Toy(Plain, "conv3:1"),
    "head": Toy(Plain, "logit:2"),
    "grouped": Toy(Grouped, "top:3"),
    "same": Toy(Same, "c:1@2,3"),
    "in_place": Toy(InPlace, "conv3:2"),
    "in_place_linear": Toy(InPlaceLinear, "logit:1"),
    "reused": Toy(Reused, "logit:0"),
    "reused_first": Toy(Reused, "twice@0:1"),
    "tied": Toy(Reused, "also_tied:1@max"),
    "transposed": Toy(Transposed, "up2:1", (2, 7, 7)),
    "one_and_three": Toy(OneAndThree, "cube:1", (2, 8, 8)),
    "tokens": Toy(Tokens, "mlp2:3"),
    "windows": Toy(Windows, "logit:1"),
    "gated": Toy(Gated, "top:0"),
    "functional": Toy(Functional, "logit:1"),
}


def toy(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, targets.AnyTarget, ImageSet]:
    """Returns a toy in evaluation mode, its target, and eight labelled pictures; always the same ones."""
    spec = TOYS[name]
    model = randomised(spec.build()).to(dtype)
    return model, targets.parse_target(spec.target), pictures(spec.shape, dtype=dtype)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Fills every parameter and running statistic with numbers of size one, from a seed; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
                tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values / fan_in**0.5)
    return model.eval()


def pictures(shape: tuple[int, int, int] = (2, 8, 8), n: int = 8, dtype: torch.dtype = torch.float64) -> ImageSet:
    """Returns random pictures, labelled 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(n, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return ImageSet.from_tensors(images, [i % 3 for i in range(n)])
