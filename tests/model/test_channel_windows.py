"""Windows across channels reach neighbours only: relevant kernels are those with a gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import viscircuits as vc
from model.toys import Compose
from viscircuits.model.trace import trace

SHAPE = (3, 9, 8)


class ChannelAttention(nn.Module):
    """Efficient channel attention: a convolution along the channels of what is pooled over space."""

    def __init__(self, taps: int):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, taps, padding=taps // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv(x.mean((2, 3))[:, None]).sigmoid()
        return x * gate.transpose(1, 2)[..., None]


def over_channels(pool, **options):
    """A pool over a short axis of channels, the other axes left alone."""
    return lambda x: pool(x[:, None], (3, 1, 1), **options)[:, 0]


OPERATIONS = {
    "response normalisation": nn.LocalResponseNorm(3),
    "even window": nn.LocalResponseNorm(4),
    "mean of neighbours": over_channels(F.avg_pool3d, stride=1, padding=(1, 0, 0)),
    "maximum of neighbours": over_channels(F.max_pool3d, stride=1, padding=(1, 0, 0)),
    "with gaps": over_channels(F.max_pool3d, stride=1, padding=(1, 0, 0), dilation=(2, 1, 1)),
    "every other": over_channels(F.avg_pool3d, stride=(2, 1, 1)),
    "maximum beyond the end": over_channels(F.max_pool3d, stride=(2, 1, 1), ceil_mode=True),
    "channels last": lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 3, 1, 1).transpose(1, 2)[..., None],
    "to a given number": lambda x: F.adaptive_avg_pool3d(x[:, None], (3, None, None))[:, 0],
    "unequal parts": lambda x: F.adaptive_max_pool1d(x.flatten(2).transpose(1, 2), 5).transpose(1, 2)[..., None],
    "attention": ChannelAttention(3),
    "wide attention": ChannelAttention(5),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_relevant_kernels_are_those_with_a_gradient(name: str):
    operation = OPERATIONS[name]
    end = operation if isinstance(operation, nn.Module) else nn.Identity()
    model = Compose(lambda m, x: operation(F.softplus(m.a(x))), a=nn.Conv2d(3, 8, 3), end=end).double()
    graph = trace(model, SHAPE)
    images = vc.ImageSet.from_tensors(torch.rand(6, *SHAPE, dtype=torch.float64))
    for channel in range(graph.output("").n_channels):
        out = model(torch.stack([images[i] for i in range(6)]))
        axis = graph.output("").channel_axis
        (gradient,) = torch.autograd.grad(out.select(axis, channel).sum(), model.a.weight)
        wanted = gradient.abs().sum((2, 3)) > 0
        found = vc.Readout(vc.Target("", channel), graph).relevant_kernels["a"]
        if "max" in name and not bool((found == wanted).all()):  # a maximum passes a gradient to one of its window
            assert bool((found >= wanted).all())
        else:
            assert torch.equal(found, wanted), (channel, found.any(1), wanted.any(1))
        assert 0 < int(wanted.sum()) < wanted.numel()


def test_pools_over_space_reach_what_they_did():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 2), nn.AdaptiveAvgPool2d(1)).eval()
    used = vc.Readout(vc.Target("3", 1), trace(model, SHAPE)).relevant_kernels
    assert {name: int(kernels.sum()) for name, kernels in used.items()} == {"0": 12, "2": 4}


def test_a_pruned_window_ends_where_its_neighbours_end():
    """Only filters within the window of what is kept stay on a path."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LocalResponseNorm(3)).eval()
    images = vc.ImageSet.from_tensors(torch.randn(4, *SHAPE))
    scores = vc.score(model, vc.Target("1", 4), images)
    assert scores.relevant["0"].any(1).tolist() == [False] * 3 + [True] * 3 + [False] * 2
    circuit = vc.Circuit(model, vc.Target("1", 4), scores.select(density=1.0))
    batch = torch.stack([images[i] for i in range(4)])
    torch.testing.assert_close(circuit.respond(images), model(batch)[:, 4].flatten(1))
    torch.testing.assert_close(circuit.extract()(batch), model(batch)[:, 4].flatten(1))
