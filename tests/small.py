"""A network that is traced in a moment, for tests that run it often or need many."""

import torch
from torch import Tensor, nn

SHAPE = (3, 16, 16)


class Small(nn.Module):
    """A residual network of its own, as every one that is made here."""

    def __init__(self, seed: int = 0, width: int = 6):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first = nn.Conv2d(3, width, 3, padding=1)
            self.norm = nn.BatchNorm2d(width)
            self.second = nn.Conv2d(width, width, 3, padding=1)
            self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.head((x + torch.relu(self.second(x))).mean((2, 3)))


def small(seed: int = 0, width: int = 6) -> Small:
    return Small(seed, width).eval()
