import math

import pytest
import torch
from torch import nn

from viscircuits.model.zoo.builtin import ShapesNet
from viscircuits.train.penalties import conv_weights, hierarchical, l1, penalty


def slow_hierarchical(w):
    """Eq. 14 as it is printed, one weight at a time."""
    c_out, c_in, height, width = w.shape
    total = 0.0
    for j in range(c_in):
        inner = 0.0
        for i in range(c_out):
            size = 0.0
            for h in range(height):
                for v in range(width):
                    size += abs(float(w[i, j, h, v]))
            inner += math.sqrt(size)
        total += inner**2
    return total


def test_by_hand():
    """Two filters over two channels, kernels of 1 x 2: sizes 4 and 9 into channel 0, 1 and 0 into channel 1."""
    w = torch.tensor([[[[1.0, -3.0]], [[0.5, 0.5]]], [[[-9.0, 0.0]], [[0.0, 0.0]]]])
    assert float(hierarchical(w, eps=0.0)) == (2 + 3) ** 2 + (1 + 0) ** 2
    assert float(l1(w)) == 4 + 9 + 1
    assert float(penalty([w], lambda_1=0.1, lambda_2=0.6)) == pytest.approx(0.1 * (0.6 * 26 + 0.4 * 14), rel=1e-3)


def test_the_oracle_agrees():
    torch.manual_seed(0)
    layers = [torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(4, 5, 1, 2, dtype=torch.float64)]
    for w in layers:
        assert float(hierarchical(w, eps=0.0)) == pytest.approx(slow_hierarchical(w), rel=1e-12)
    slow = sum(0.7 * 0.01 * slow_hierarchical(w) + 0.3 * 0.01 * float(w.abs().sum()) for w in layers)
    assert float(penalty(layers, lambda_1=0.01, lambda_2=0.7)) == pytest.approx(slow, rel=1e-4)  # eps = 1e-8


def test_the_group_penalty_prefers_few_kernels_and_l1_does_not_care():
    spread, gathered = torch.full((4, 1, 1, 1), 0.25), torch.zeros(4, 1, 1, 1)
    gathered[0] = 1.0
    assert float(l1(spread)) == float(l1(gathered))
    assert float(hierarchical(gathered, eps=0.0)) == 1
    assert float(hierarchical(spread, eps=0.0)) == 4


def test_an_empty_kernel_costs_nothing_and_has_no_gradient():
    w = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    w[1, 0] = 0
    w.requires_grad_()
    hierarchical(w).backward()
    assert w.grad is not None
    assert w.grad.isfinite().all()
    assert not w.grad[1, 0].any()
    assert w.grad[0, 0].all()
    assert float(hierarchical(torch.zeros(3, 2, 3, 3))) < 1e-15  # the root of eps, rounded twice


def test_the_gradient_is_that_of_the_formula():
    w = torch.randn(2, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: penalty([x], lambda_1=0.5, lambda_2=0.3), w)


def test_the_penalised_layers_are_the_convolutions():
    assert list(conv_weights(ShapesNet())) == [f"features.{k}" for k in (0, 3, 6, 8, 10)]
    assert list(conv_weights(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 1)))) == ["1"]
