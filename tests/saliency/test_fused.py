"""The fused loop against one convolution an input channel, over odd geometries."""

import pytest
import torch

from viscircuits.saliency.engine import fused
from viscircuits.saliency.engine.fused import TOGETHER, weighted_absolute_maps
from viscircuits.saliency.engine.loops import MOST_TAPS

GEOMETRIES = [  # in, out, kernel, stride, padding, dilation, picture
    (3, 5, (3, 3), (1, 1), (1, 1), (1, 1), (9, 11)),
    (4, 7, (5, 3), (2, 3), (2, 0), (1, 2), (14, 17)),
    (2, 3, (5, 5), (4, 4), (2, 2), (1, 1), (23, 18)),
    (2, 2, (3, 3), (2, 2), (0, 0), (3, 3), (15, 16)),
    (3, 4, (1, 5), (3, 1), (0, 2), (1, 1), (8, 9)),
    (2, 1, (2, 2), (3, 3), (0, 0), (1, 1), (10, 10)),
    (3, 5, (7, 7), (2, 2), (3, 3), (1, 1), (21, 22)),
    (18, 3, (11, 11), (4, 4), (2, 2), (1, 1), (27, 31)),
    (17, 4, (9, 10), (1, 3), (5, 1), (1, 1), (12, 30)),
]


def by_convolution(x, weight, m, stride, padding, dilation):
    sums = torch.empty(weight.shape[:2], dtype=x.dtype)
    for j in range(weight.shape[1]):
        a = torch.conv2d(x[:, j : j + 1], weight[:, j : j + 1], None, stride, padding, dilation)
        sums[:, j] = (a.abs() * m.abs()).sum((0, 2, 3))
    return sums


@pytest.mark.parametrize("targets", [1, 3, TOGETHER + 1])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_equals_convolution(targets, layout, dtype, tolerance, geometry):
    channels, filters, kernel, stride, padding, dilation, size = geometry
    assert kernel[0] * kernel[1] <= MOST_TAPS
    x, weight = torch.randn(5, channels, *size, dtype=dtype), torch.randn(filters, channels, *kernel, dtype=dtype)
    output = torch.conv2d(x, weight, None, stride, padding, dilation)
    m = [torch.randn_like(output).contiguous(memory_format=layout) for _ in range(targets)]
    expected = torch.stack([by_convolution(x, weight, one, stride, padding, dilation) for one in m])
    got = weighted_absolute_maps(x.contiguous(memory_format=layout), weight, m, stride, padding, dilation)
    assert float((got - expected).abs().max()) <= tolerance * float(expected.max())


def test_the_number_of_threads_changes_no_bit():
    x, weight, m = torch.randn(4, 6, 12, 12), torch.randn(8, 6, 3, 3), [torch.rand(4, 8, 12, 12)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_blocks_of_pictures_change_nothing_but_rounding(monkeypatch):
    x, weight, m = torch.randn(7, 3, 9, 9), torch.randn(4, 3, 3, 3), [torch.rand(7, 4, 9, 9)]
    whole = weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1))
    monkeypatch.setattr("viscircuits.saliency.engine.fused._CACHE_BYTES", 1)
    assert torch.allclose(weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1)), whole, rtol=1e-5)


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("dead", [(0, 2, 3, 4, 6), range(8), (5,), ()])
def test_filters_without_a_gradient_are_left_out(monkeypatch, targets, dead):
    x, weight = torch.randn(3, 4, 9, 9, dtype=torch.float64), torch.randn(8, 4, 3, 3, dtype=torch.float64)
    m = [torch.randn(3, 8, 9, 9, dtype=torch.float64) for _ in range(targets)]
    for one in m:
        one[:, list(dead)] = 0
    computed = []
    compiled = fused.compiled

    def counting(kind, dtype, n_taps=0):
        loop = compiled(kind, dtype, n_taps)
        return loop if kind == "lay" else lambda *arrays: computed.append(len(arrays[1])) or loop(*arrays)

    monkeypatch.setattr(fused, "compiled", counting)
    got = weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1))
    expected = torch.stack([by_convolution(x, weight, one, (1, 1), (1, 1), (1, 1)) for one in m])
    assert torch.allclose(got, expected, rtol=1e-12, atol=0)
    alive = 8 - len(dead) if len(dead) > 0 else 8
    assert all(n <= alive + alive % 2 for n in computed)
