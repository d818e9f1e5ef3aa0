"""A network by hand: bars of four directions, rectified, and what is made of them."""

import torch
from torch import Tensor, nn

from viscircuits.probes.drawing import draw
from viscircuits.probes.patterns import Line
from viscircuits.probes.stage import Stage
from viscircuits.target import Target

ANGLES = (0.0, 45.0, 90.0, 135.0)
SIZE, FIELD = 24, 11


class Oriented(nn.Module):
    """``bars``: a filter for each of `ANGLES`; ``either``: 0 or 90 degrees (0), 45 degrees (1), nothing at all (2)."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = nn.Conv2d(1, len(ANGLES), FIELD)
        self.either = nn.Conv2d(len(ANGLES), 3, 1)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for filters, angle in zip(self.bars.weight, ANGLES, strict=True):
                bar = draw(Line(angle=angle, length=1.8, thickness=0.25), FIELD, channels=1, ground=0.0)
                filters.copy_(bar - bar.mean())
            self.bars.bias.fill_(-1.0)
            self.either.weight.zero_()
            self.either.weight[0, 0] = self.either.weight[0, 2] = self.either.weight[1, 1] = 1.0
            self.either.bias.copy_(torch.tensor([0.0, 0.0, 0.5]))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.either(torch.relu(self.bars(x)))
        return self.head(y.mean((2, 3)))


def stage(model: nn.Module, target: Target, **options: float) -> Stage:
    return Stage.of(model, target, (1, SIZE, SIZE), mean=(0.5,), std=(0.5,), **options)
