"""The control of a probe: the same network with its weights in random order, so that nothing it learned is left."""

import copy

import torch
from torch import nn

from viscircuits.model.guard.clean import clean


@clean
@torch.no_grad()
def shuffled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Returns a copy of a model in which the numbers of each parameter stand in another order.

    Sizes, signs and sparsity of every layer are those of the model; what stands where is chance. What the copy does
    with a stimulus is due to the architecture and these sizes alone.
    """
    # drawn on the CPU, so that one seed gives one control on any device
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other
