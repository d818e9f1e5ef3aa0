"""Small networks of every build, each with a description by hand of what feeds what.

`feeds[layer]` lists the blocks of input channels of a layer, in order; a block lists the layers (or "image") whose
outputs are added or multiplied there, so a channel of it is alive where one of them is. `affine[layer]` names the
module behind which a filter of the layer has its bias and its norm behind it.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Feeds = dict[str, list[list[str]]]


class Toy(nn.Module):
    """A network whose last layer is called ``head``; double precision, evaluation mode, norms that do something."""

    feeds: ClassVar[Feeds]
    affine: ClassVar[dict[str, str]] = {}
    shape: ClassVar[tuple[int, int, int]] = (3, 10, 8)

    def ready(self) -> "Toy":
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)
            if parameter.ndim == 1:
                nn.init.uniform_(parameter, 0.2, 1)  # what lives on its bias is seen behind a ReLU
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
        return self.double().eval()

    def images(self, n: int = 5) -> Tensor:
        return torch.randn(n, *self.shape, dtype=torch.float64)


class Plain(Toy):
    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "c": [["b"]], "head": [["c"]]}

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.c, self.head = nn.Conv2d(5, 4, 3, stride=2, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu_(self.c(F.relu_(self.b(F.relu(self.a(x)))))))


class Normed(Toy):
    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "head": [["b"]]}
    affine: ClassVar = {"a": "na", "b": "nb"}

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.b, self.nb = nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False)
        self.head = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.nb(self.b(F.max_pool2d(F.relu(self.na(self.a(x))), 2)))))


class Residual(Toy):
    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "c": [["b"]], "head": [["a", "c"]]}
    affine: ClassVar = {"a": "na", "b": "nb", "c": "nc"}

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.b, self.nb = nn.Conv2d(5, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.c, self.nc = nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
        self.head = nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.na(self.a(x)))
        y = self.nc(self.c(F.relu(self.nb(self.b(x)))))
        y += x
        return self.head(F.relu_(y))


class Concat(Toy):
    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "c": [["a"]], "head": [["b"], ["a"], ["c"]]}

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.head(torch.cat([F.relu(self.b(x)), x, F.relu(self.c(x))], 1))


class Dense(Toy):
    """Norm and activation before the convolution, as in DenseNet: a norm behind a concatenation is nobody's own."""

    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "c": [["a"], ["b"]], "head": [["a"], ["b"], ["c"]]}

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.b, self.nb = nn.Conv2d(4, 3, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.c, self.nc = nn.Conv2d(7, 3, 3, padding=1), nn.BatchNorm2d(7)
        self.head, self.nh = nn.Conv2d(10, 3, 1), nn.BatchNorm2d(10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.cat([x, self.b(F.relu(self.nb(x)))], 1)
        x = torch.cat([x, self.c(F.relu(self.nc(x)))], 1)
        return self.head(F.relu(self.nh(x)))


class Gated(Toy):
    """Squeeze and excitation behind a depthwise convolution."""

    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "g": [["b"]], "h": [["g"]], "head": [["b", "h"]]}
    affine: ClassVar = {"a": "na", "b": "nb"}

    def __init__(self):
        super().__init__()
        self.a, self.na = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.b, self.nb = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.g, self.h = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.nb(self.b(F.relu(self.na(self.a(x))))))
        gate = torch.sigmoid(self.h(F.relu(self.g(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(gate * x)


class Grouped(Toy):
    """Groups, a transposed convolution with groups, and a linear layer over positions."""

    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "c": [["b"]], "head": [["c"]]}

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=3)
        self.c = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))


class Classifier(Toy):
    feeds: ClassVar = {"a": [["image"]], "b": [["a"]], "head": [["b"]]}

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3), nn.Linear(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.max_pool2d(F.relu(self.a(x)), 2))).mean((2, 3)))


TOYS = (Plain, Normed, Residual, Concat, Dense, Gated, Grouped, Classifier)


class Compose(nn.Module):
    """Any modules under any names, and a function of them and the images."""

    def __init__(self, run, **modules: nn.Module):
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)
        self.eval()

    def forward(self, x: Tensor):
        return self.run(self, x)
