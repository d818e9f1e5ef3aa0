"""Parameterisations: the start's spectrum, exact magnitudes, a start at the given picture, and no saturation."""

import pytest
import torch

from micro import pictures as random_pictures
from viscircuits.data.colours import MARGIN, Colours, decorrelate, latent_of
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError
from viscircuits.optvis.parameterisation import Accentuation, Fourier, Maco, Parameterisation, Pixels
from viscircuits.optvis.spectrum import frequencies, natural_spectrum

GREY = Colours.unchanged(3)
SHAPE = (3, 12, 10)


def natural(n: int = 4, channels: int = 3) -> ImageSet:
    return ImageSet.from_tensors(torch.rand(n, channels, 12, 10) * 0.9 + 0.05)


def every(channels: int) -> list[Parameterisation]:
    images = natural(channels=channels)
    return [Pixels(), Fourier(), Maco(images=images), Accentuation(image=images[0])]


def started(what: Parameterisation, *seeds: int, contrast: float = 1.0) -> torch.Tensor:
    return torch.stack([what.start(seed, contrast) for seed in seeds])


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", range(4))
def test_family(kind: int, channels: int):
    """The same seed gives the same start, another one another; each picture is what it is alone; values in [0, 1]."""
    shape = (channels, 12, 10)
    what = every(channels)[kind].at(shape, Colours.unchanged(channels))
    drawn = what.picture(started(what, 0, 1, 0, contrast=2.0))
    assert drawn.shape == (3, *shape)
    assert torch.allclose(drawn[0], drawn[2], atol=1e-6)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)
    assert torch.allclose(drawn[1:2], what.picture(started(what, 1, contrast=2.0)), atol=1e-6)
    assert 0 <= drawn.min() < drawn.max() <= 1


def test_fourier_starts_with_the_spectrum_of_natural_pictures():
    """Amplitude 1 / f: its logarithm falls by one for every one of the frequency's."""
    fourier = Fourier(limit=float("inf")).at((3, 64, 64), GREY)
    latents = fourier.latent(started(fourier, *range(20)))
    power = torch.fft.rfft2(latents.double()).abs().square().mean((0, 1))
    f = frequencies(64, 64)
    inner = (f > 0.05) & (f < 0.45)
    inner[:, [0, -1]] = False  # where waves mirror themselves half of them are dropped
    x, y = f[inner].log(), power[inner].log() / 2
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(-1, abs=0.03)


def test_fourier_limit():
    free, held = Fourier(limit=float("inf")).at(SHAPE, GREY), Fourier(limit=2.5).at(SHAPE, GREY)
    for strength in (0.01, 1.0, 1e4):
        z = started(free, 0, 1) * strength
        x = free.latent(z)
        rms = x.square().mean((1, 2, 3), keepdim=True).sqrt()
        expected = x / (1 + rms**2 / 2.5**2).sqrt()
        assert torch.allclose(held.latent(z), expected, rtol=1e-4, atol=1e-7)
        assert (held.latent(z).square().mean((1, 2, 3)).sqrt() <= 2.5).all()


def test_fourier_reaches_any_picture():
    """Every latent image has waves that give it, so nothing cannot be drawn."""
    fourier = Fourier(limit=float("inf")).at(SHAPE, GREY)
    picture = torch.rand(1, *SHAPE, dtype=torch.float64) * 0.9 + 0.05
    z = torch.fft.rfft2(latent_of(picture), norm="ortho") / fourier._envelope
    assert torch.allclose(fourier.picture(torch.view_as_real(z)), picture, atol=1e-9)


def test_magnitudes_never_change():
    images = natural()
    maco = Maco(images=images).at(SHAPE, GREY)
    phases = started(maco, 0, 1).double().requires_grad_()
    adam = torch.optim.Adam([phases], lr=0.5)
    weights = torch.randn(2, *SHAPE, dtype=torch.float64)
    values = []
    for _ in range(5):
        drawn = maco.picture(phases)
        values.append(float((drawn * weights).detach().sum()))
        adam.zero_grad()
        (-(drawn * weights).sum()).backward()
        adam.step()
    assert values[-1] > values[0] + 1
    latent = decorrelate(maco.picture(phases.detach()).logit())
    expected = natural_spectrum(images, SHAPE[1:], GREY)
    found = torch.fft.rfft2(latent, norm="ortho").abs()
    assert torch.allclose(found, expected.magnitude.expand_as(found), atol=1e-6)
    assert torch.allclose(latent.mean((2, 3)), expected.mean.expand(2, 3), atol=1e-6)


def test_accentuation_starts_at_the_picture():
    images = random_pictures((3, 24, 20))
    colours = Colours((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    whole = Accentuation(image=images[0]).at((3, 24, 20), colours)
    expected = colours.pictures(images[0].float()).clamp(MARGIN, 1 - MARGIN)
    assert torch.allclose(whole.picture(started(whole, 0, 1)), expected.expand(2, 3, 24, 20), atol=1e-5)
    assert whole.distance(expected[None]).tolist() == [0]
    change = torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    cost = whole.distance(expected + change)
    assert cost.tolist() == pytest.approx([float(d**2 / expected.var()) for d in (0.1, 0.2)], rel=1e-4)
    half = Accentuation(image=images[0]).at((3, 12, 10), colours)
    assert half.picture(started(half, 0)).shape == (1, 3, 12, 10)
    with pytest.raises(ImageError, match=r"expected one picture of 3 channels to accentuate, got \[1, 8, 8\]"):
        Accentuation(image=torch.zeros(1, 8, 8)).at(SHAPE, GREY)
    with pytest.raises(ImageError, match=r"expected one prepared picture \[c, h, w\] .* got shape \[1, 3, 8, 8\]"):
        Accentuation(image=torch.zeros(1, 3, 8, 8))


def test_recipes_tell_them_apart():
    other = natural(5)
    kinds = [*every(3), Fourier(decay=1.5), Maco(images=other), Accentuation(image=other[1]), Pixels(learning_rate=0.1)]
    assert len({kind.recipe for kind in kinds}) == len(kinds)
    assert (
        Fourier().recipe
        == Fourier().at(SHAPE, GREY).recipe
        == "Fourier(learning_rate=0.05, decay=1.0, spread=0.6, limit=2.5)"
    )
