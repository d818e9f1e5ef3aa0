"""Colours: matrices and their inverses, and what a prepare is found to do."""

import pytest
import torch
from torchvision import transforms as tv

from viscircuits.data.colours import MARGIN, Colours, colour_matrix, correlate, decorrelate, latent_of, probe
from viscircuits.errors import ImageError
from viscircuits.model.zoo import zoo


def test_the_matrix_is_the_published_one_and_its_inverse_undoes_it():
    """Lucid's: the root of ImageNet's colour covariance over the longest of its columns, whose length is 0.4619."""
    matrix = colour_matrix()
    assert matrix[:, 0].tolist() == pytest.approx([0.26 / 0.4619, 0.27 / 0.4619, 0.27 / 0.4619], rel=1e-3)
    assert matrix[:, 1].tolist() == pytest.approx([0.09 / 0.4619, 0, -0.09 / 0.4619], rel=1e-3)
    assert matrix[:, 2].tolist() == pytest.approx([0.02 / 0.4619, -0.05 / 0.4619, 0.03 / 0.4619], rel=1e-3)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.allclose(decorrelate(correlate(x)), x, atol=1e-12)
    one = correlate(torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)).flatten()
    assert torch.allclose(one, matrix[:, 1].float())


def test_correlated_noise_has_the_covariance_of_the_matrix():
    x = correlate(torch.randn(1, 3, 300, 300, dtype=torch.float64)).flatten(2)[0]
    assert torch.allclose(torch.cov(x), colour_matrix() @ colour_matrix().T, atol=0.02)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_left_alone(channels: int):
    x = torch.randn(2, channels, 3, 3)
    assert correlate(x) is x
    assert decorrelate(x) is x


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_one_latent_image(channels: int):
    pictures = torch.rand(2, channels, 4, 4, dtype=torch.float64)
    back = correlate(latent_of(pictures)).sigmoid()
    assert torch.allclose(back, pictures.clamp(MARGIN, 1 - MARGIN), atol=1e-12)
    assert latent_of(torch.ones(3, 2, 2)).isfinite().all()


def test_prepared_and_back():
    colours = Colours((0.5, 0.2, 0.1), (0.5, 0.4, 2.0))
    pictures = torch.rand(2, 3, 4, 4)
    assert torch.allclose(colours.prepared(pictures)[:, 1], (pictures[:, 1] - 0.2) / 0.4)
    assert torch.allclose(colours.pictures(colours.prepared(pictures)), pictures, atol=1e-6)
    assert Colours.unchanged(1).prepared(pictures[:, :1]).equal(pictures[:, :1])
    with pytest.raises(ImageError, match=r"expected pictures of 3 channels, got shape \[2, 1, 4, 4\]"):
        colours.prepared(pictures[:, :1])


def test_probing_finds_mean_deviation_and_shape():
    colours, shape = probe(zoo.load("squeezenet1_1", input_size=96).prepare)
    assert colours.mean == pytest.approx((0.485, 0.456, 0.406), abs=1e-5)
    assert colours.std == pytest.approx((0.229, 0.224, 0.225), abs=1e-5)
    assert shape == (3, 96, 96)
    colours, shape = probe(zoo.load("shapesnet").prepare)
    assert (colours.mean[0], colours.std[0], shape) == (pytest.approx(0.54), pytest.approx(0.24), (3, 64, 64))


def test_probing_a_grey_prepare():
    grey = tv.Compose([tv.Grayscale(), tv.Resize((28, 20)), tv.ToTensor(), tv.Normalize((0.13,), (0.31,))])
    colours, shape = probe(grey)
    assert (colours.mean, colours.std, shape) == ((pytest.approx(0.13),), (pytest.approx(0.31),), (1, 28, 20))


def test_probing_what_is_no_normalisation():
    with pytest.raises(ImageError, match="normalises colours by a mean and a deviation"):
        probe(tv.Compose([tv.Resize((8, 8)), tv.ToTensor(), tv.Lambda(lambda x: x**2)]))
    with pytest.raises(ImageError, match="pass colours= instead"):
        probe(tv.Compose([tv.Resize((8, 8)), tv.ToTensor(), tv.Lambda(torch.zeros_like)]))
