"""The fused loop against one convolution an input channel, over odd geometries."""

import pytest
import torch

from viscircuits.saliency.fused import MOST_TAPS, weighted_absolute_maps
from viscircuits.saliency.maps import _unfolded

GEOMETRIES = [  # in, out, kernel, stride, padding, dilation, picture
    (3, 5, (3, 3), (1, 1), (1, 1), (1, 1), (9, 11)),
    (4, 7, (5, 3), (2, 3), (2, 0), (1, 2), (14, 17)),
    (2, 3, (5, 5), (4, 4), (2, 2), (1, 1), (23, 18)),
    (2, 2, (3, 3), (2, 2), (0, 0), (3, 3), (15, 16)),
    (3, 4, (1, 5), (3, 1), (0, 2), (1, 1), (8, 9)),
    (2, 1, (2, 2), (3, 3), (0, 0), (1, 1), (10, 10)),
]


def by_convolution(x, weight, m, stride, padding, dilation):
    sums = torch.empty(weight.shape[:2], dtype=x.dtype)
    for j in range(weight.shape[1]):
        a = torch.conv2d(x[:, j : j + 1], weight[:, j : j + 1], None, stride, padding, dilation)
        sums[:, j] = (a.abs() * m).sum((0, 2, 3))
    return sums


@pytest.mark.parametrize("path", [weighted_absolute_maps, _unfolded])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_equals_convolution(path, dtype, tolerance, geometry):
    channels, filters, kernel, stride, padding, dilation, size = geometry
    assert kernel[0] * kernel[1] <= MOST_TAPS
    x, weight = torch.randn(5, channels, *size, dtype=dtype), torch.randn(filters, channels, *kernel, dtype=dtype)
    m = torch.rand_like(torch.conv2d(x, weight, None, stride, padding, dilation))
    expected = by_convolution(x, weight, m, stride, padding, dilation)
    got = path(x.contiguous(memory_format=torch.channels_last), weight, m, stride, padding, dilation)
    assert float((got - expected).abs().max()) <= tolerance * float(expected.max())


def test_the_number_of_threads_changes_no_bit():
    x, weight, m = torch.randn(4, 6, 12, 12), torch.randn(8, 6, 3, 3), torch.rand(4, 8, 12, 12)
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
    x, weight, m = torch.randn(7, 3, 9, 9), torch.randn(4, 3, 3, 3), torch.rand(7, 4, 9, 9)
    whole = weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1))
    monkeypatch.setattr("viscircuits.saliency.fused._CACHE_BYTES", 1)
    assert torch.allclose(weighted_absolute_maps(x, weight, m, (1, 1), (1, 1), (1, 1)), whole, rtol=1e-5)
