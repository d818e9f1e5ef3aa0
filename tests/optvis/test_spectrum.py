"""Spectra against NumPy's definitions and slow loops."""

import numpy as np
import pytest
import torch

from viscircuits.data.colours import Colours, latent_of
from viscircuits.data.images import ImageSet
from viscircuits.optvis.spectrum import envelope, frequencies, natural_spectrum, with_phase

SIZES = [(8, 8), (7, 8), (8, 7), (5, 9)]


@pytest.mark.parametrize("size", SIZES)
def test_frequencies_are_cycles_a_pixel(size: tuple[int, int]):
    height, width = size
    expected = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, : width // 2 + 1])
    assert frequencies(height, width).numpy() == pytest.approx(expected, abs=1e-12)


def test_envelope_falls_as_one_over_the_frequency():
    scale = envelope(16, 16)
    assert scale[0, 1:].tolist() == pytest.approx([16 / k for k in range(1, 9)])
    assert scale[0, 0] == scale[0, 1]  # the mean counts as the slowest wave
    assert envelope(16, 16, decay=2.0)[0, 3] == pytest.approx((16 / 3) ** 2)


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_its_magnitude_and_phase(size: tuple[int, int]):
    image = torch.randn(2, *size, dtype=torch.float64)
    spectrum = torch.fft.rfft2(image, norm="ortho")
    back = with_phase(spectrum.abs(), spectrum.angle()[None], size[1])[0]
    assert torch.allclose(back, image, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_any_phase_gives_exactly_the_magnitude(size: tuple[int, int]):
    """Of a real image; `irfft2` alone would change it in the columns that mirror themselves."""
    magnitude = torch.fft.rfft2(torch.randn(2, *size, dtype=torch.float64), norm="ortho").abs()
    phase = torch.randn(3, *magnitude.shape, dtype=torch.float64) * 3
    images = with_phase(magnitude, phase, size[1])
    found = torch.fft.rfft2(images, norm="ortho")
    assert torch.allclose(found.abs(), magnitude.expand_as(found), atol=1e-10)
    free = (slice(None), slice(None), slice(None), slice(1, (size[1] - 1) // 2 + 1))  # columns without a mirror
    assert torch.allclose(torch.polar(torch.ones_like(phase), phase)[free], (found / magnitude)[free], atol=1e-10)


def test_natural_spectrum_is_the_mean_magnitude():
    images = torch.rand(5, 3, 12, 10, dtype=torch.float64) * 0.8 + 0.1
    colours = Colours((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    found = natural_spectrum(ImageSet.from_tensors(colours.prepared(images)), (12, 10), colours)
    latents = latent_of(images).numpy()
    expected = np.mean([np.abs(np.fft.rfft2(x, norm="ortho")) for x in latents], axis=0)
    expected[:, 0, 0] = np.abs(latents.mean((0, 2, 3))) * np.sqrt(120)
    assert found.magnitude.numpy() == pytest.approx(expected, abs=1e-9)
    assert found.mean.numpy() == pytest.approx(latents.mean((0, 2, 3)), abs=1e-9)


def test_natural_spectrum_at_another_size():
    """Pictures are resized, so the slow waves stay what they are in cycles a picture."""
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(32) / 32)[None, None, None, :].expand(1, 1, 32, 32)
    images = ImageSet.from_tensors(0.5 + 0.3 * wave)
    small = natural_spectrum(images, (16, 16), Colours.unchanged(1)).magnitude[0]
    assert small.shape == (16, 9)
    assert small[0].argmax() == 2
