"""Frequencies of a picture, and how strong each is in the user's own pictures.

Spectra are half spectra ``[c, h, w // 2 + 1]`` as `torch.fft.rfft2` gives them, with ``norm="ortho"``, so that a value
does not depend on the size of the picture. Two columns of a half spectrum hold their own mirror images: those are where
a phase cannot be chosen freely, and `with_phase` respects that.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.card import Card, Shown, sized
from viscircuits.data.colours import Colours, latent_of
from viscircuits.data.images import ImageSet
from viscircuits.model.guard.clean import clean
from viscircuits.types import Progress


def frequencies(height: int, width: int) -> Float[Tensor, "h f"]:
    """Returns the frequency of every place of a half spectrum, in cycles a pixel."""
    down = torch.fft.fftfreq(height, dtype=torch.float64)
    across = torch.fft.rfftfreq(width, dtype=torch.float64)
    return torch.hypot(down[:, None], across[None, :])


def envelope(height: int, width: int, decay: float = 1.0) -> Float[Tensor, "h f"]:
    """Returns ``1 / f ** decay``, with the mean of a picture counted as its slowest wave.

    Args:
        height, width: of the picture, in pixels.
        decay: how fast it falls; 1 is the amplitude of natural pictures.
    """
    # at frequency 0 the formula has no value
    slowest = 1 / max(height, width)
    return frequencies(height, width).clamp(min=slowest) ** -decay


def with_phase(
    magnitude: Float[Tensor, "c h f"], phase: Float[Tensor, "n c h f"], width: int
) -> Float[Tensor, "n c h w"]:
    """Returns the images whose spectra have exactly this magnitude, and these phases where they are free.

    A real image has ``X[-y, -x] = conj X[y, x]``: in the columns that mirror onto themselves the lower half follows the
    upper, and the four values that mirror onto themselves are real, with the sign that the phase gives them.

    Args:
        magnitude: of every frequency.
        phase: in radians.
        width: of the images; half a spectrum does not tell an even one from an odd one.
    """
    spectrum = torch.polar(magnitude.expand_as(phase), phase)
    height = phase.shape[-2]
    # detached: the sign of a real value is no slope that an ascent could follow
    own = torch.where(phase.detach().cos() < 0, -1.0, 1.0) * magnitude
    # irfft2 would silently take what it likes of a spectrum that no real image has, and change the magnitudes
    columns = list(spectrum.unbind(-1))
    for x in {0, width // 2} if width % 2 == 0 else {0}:
        upper = columns[x][..., 1 : (height + 1) // 2]
        real = own[..., x].to(spectrum.dtype)
        middle = [real[..., height // 2 : height // 2 + 1]] if height % 2 == 0 else []
        columns[x] = torch.cat([real[..., :1], upper, *middle, upper.flip(-1).conj()], -1)
    return torch.fft.irfft2(torch.stack(columns, -1), s=(height, width), norm="ortho")


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Shown):
    """How strong every frequency is in natural pictures of one size, and their mean colour.

    Attributes:
        magnitude: mean over pictures of the magnitude of the latent image's spectrum; for the mean colour (frequency
            0) the magnitude of the mean.
        mean: the latent mean colour, which has a sign.
    """

    magnitude: Float[Tensor, "c h f"]
    mean: Float[Tensor, " c"]

    def _card(self) -> Card:
        return Card("Spectrum", {"frequencies": sized(self.magnitude.shape)})


@clean
@torch.no_grad()
def natural_spectrum(
    images: ImageSet, size: tuple[int, int], colours: Colours, *, progress: Progress | None = None
) -> Spectrum:
    """Returns the spectrum of pictures resized to one size, averaged over the set in float64.

    Args:
        images: the pictures, prepared for the network.
        size: height and width.
        colours: how the network wants its pictures.
        progress: called after every batch.
    """
    total, mean = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for batch in images.batches(16, progress=progress, what="spectrum"):
        pictures = colours.pictures(batch.images.double())
        resized = torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        latent = latent_of(resized)
        total = total + torch.fft.rfft2(latent, norm="ortho").abs().sum(0)
        mean = mean + latent.mean((2, 3)).sum(0)
    magnitude, mean = total / len(images), mean / len(images)
    # phases at frequency 0 are signs: a mean of magnitudes would count colours that cancel
    magnitude[:, 0, 0] = mean.abs() * (size[0] * size[1]) ** 0.5
    return Spectrum(magnitude, mean)
