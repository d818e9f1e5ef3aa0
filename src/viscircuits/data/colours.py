"""Colours: from pictures in [0, 1] to what a network takes, and axes along which natural colours vary independently.

A picture is made as a *latent* image of any real values. ``sigmoid(correlate(latent))`` is the picture; `latent_of` is
the inverse. `correlate` turns three independent channels into red, green and blue as natural pictures have them, so
that a step of equal length along each is equally natural. Networks with another number of channels go without.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.data.images import Prepare
from viscircuits.errors import ImageError

MARGIN = 0.02
"""How near to black and white a picture comes that has a latent image; at the ends themselves it would be infinite."""

_PROBE = (256, 320)  # height and width of the blank pictures that a prepare is asked about
_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


def colour_matrix() -> Float[Tensor, "3 3"]:
    """Returns the matrix from decorrelated channels to RGB, its longest column of length 1; float64.

    Source: the square root of the covariance of ImageNet's colours, by singular values, as Olah et al. (2017) give it:
    brightness, blue against red, green against magenta.
    """
    root = torch.tensor(_ROOT, dtype=torch.float64)
    return root / root.norm(dim=0).max()


def correlate(latent: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Returns natural colours of decorrelated ones; the same where there are not three channels."""
    if latent.shape[-3] != 3:
        return latent
    return torch.einsum("rk,...khw->...rhw", colour_matrix().to(latent), latent)


def decorrelate(latent: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Returns the inverse of `correlate`."""
    if latent.shape[-3] != 3:
        return latent
    return torch.einsum("kr,...rhw->...khw", torch.linalg.inv(colour_matrix()).to(latent), latent)


def latent_of(pictures: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Returns the latent image of a picture in [0, 1], kept `MARGIN` away from both ends."""
    return decorrelate(pictures.clamp(MARGIN, 1 - MARGIN).logit())


@dataclass(frozen=True)
class Colours:
    """How a network wants its pictures: ``(x - mean) / std`` a channel, of values in [0, 1]."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def unchanged(cls, channels: int) -> "Colours":
        """Returns the colours of a network that takes values in [0, 1] as they are."""
        return cls((0.0,) * channels, (1.0,) * channels)

    def prepared(self, pictures: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Returns pictures in [0, 1] as the network takes them."""
        mean, std = self._columns(pictures)
        return (pictures - mean) / std

    def pictures(self, prepared: Float[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
        """Returns the inverse of `prepared`, kept in [0, 1]."""
        mean, std = self._columns(prepared)
        return (prepared * std + mean).clamp(0, 1)

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if like.shape[-3] != len(self.mean):
            raise ImageError(f"expected pictures of {len(self.mean)} channels, got shape {list(like.shape)}")
        mean, std = (
            torch.tensor(v, dtype=like.dtype, device=like.device)[:, None, None] for v in (self.mean, self.std)
        )
        return mean, std


def probe(prepare: Prepare) -> tuple[Colours, tuple[int, ...]]:
    """Returns the colours and the shape ``(c, h, w)`` that ``prepare`` makes, found on a black and a white picture.

    Raises:
        ImageError: ``prepare`` does more to colours than subtracting a mean and dividing by a deviation.
    """
    black, grey, white = (_blank(prepare, level) for level in (0, 51, 255))
    low, middle, high = (levels.flatten(1).double().mean(1) for levels in (black, grey, white))
    if not torch.allclose(middle, low + (high - low) * 0.2, atol=1e-4) or bool((high - low).abs().min() < 1e-6):
        raise ImageError(
            "expected a prepare that normalises colours by a mean and a deviation a channel; this one maps black, a "
            f"fifth of grey and white to {low.tolist()}, {middle.tolist()} and {high.tolist()}; pass colours= instead"
        )
    std = 1 / (high - low)
    return Colours(tuple((-low * std).tolist()), tuple(std.tolist())), tuple(black.shape)


def _blank(prepare: Prepare, level: int) -> Float[Tensor, "c h w"]:
    from torchvision.transforms.functional import to_pil_image

    return prepare(to_pil_image(torch.full((3, *_PROBE), level, dtype=torch.uint8)))
