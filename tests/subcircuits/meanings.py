"""A layer whose channels have known meanings: one answers to two kinds of pictures, the others to one each."""

import torch
from torch import nn

import viscircuits as vc

EITHER, FIRST, SECOND, BOTH = range(4)


def layer() -> nn.Module:
    """A 1x1 convolution: first or second colour, first, second, and a channel that both kinds excite alike."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).view(4, 3, 1, 1))
        model[0].bias.zero_()
    return model.eval()


def pictures(n: int = 80, seed: int = 0) -> vc.ImageSet:
    """A bright dot of the first colour in even pictures, of the second in odd ones; the third is noise."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 0.1 * torch.rand(n, 3, 5, 5, generator=generator)
    for i, place in enumerate(torch.randint(25, (n,), generator=generator).tolist()):
        drawn[i, i % 2].view(-1)[place] = 4 + 0.3 * float(torch.rand((), generator=generator))
    return vc.ImageSet.from_tensors(drawn, [i % 2 for i in range(n)])
