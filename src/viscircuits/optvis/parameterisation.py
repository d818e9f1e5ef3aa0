"""Parameterisations: what the ascent moves, and the picture it stands for.

The family: ``at(shape, colours)`` fits one to a picture size; ``start(seed, contrast)`` draws the parameters of one
picture; ``picture(parameters)`` makes pictures in [0, 1] of a stack of them. Every picture depends on its own
parameters alone, so pictures can be made in any company.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.bounds.arguments import check_fields
from viscircuits.data.colours import MARGIN, Colours, correlate
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError
from viscircuits.optvis.spectrum import Spectrum, envelope, natural_spectrum, with_phase
from viscircuits.store import digest
from viscircuits.types import Progress

Shape = tuple[int, int, int]
"""``(c, h, w)`` of a picture."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Parameterisation(ABC):
    """How a picture is written down.

    Args:
        learning_rate: the step of Adam that suits the parameters.
    """

    learning_rate: float = 0.05
    shape: Shape = field(default=(0, 0, 0), repr=False)  # set by `at`

    def __post_init__(self) -> None:
        check_fields(self)

    def at(self, shape: Shape, colours: Colours, progress: Progress | None = None) -> "Parameterisation":
        """Returns the same for pictures of one shape.

        Args:
            shape: of the pictures that are drawn.
            colours: how the network wants its pictures.
            progress: called as the work goes on, where it takes any.
        """
        return replace(self, shape=shape)

    @property
    def recipe(self) -> str:
        """All that its pictures depend on, as a text."""
        return repr(self)

    @abstractmethod
    def start(self, seed: int, contrast: float = 1.0) -> Tensor:
        """Returns random parameters of one picture, ``contrast`` times as strong as usual (0: blank)."""

    @abstractmethod
    def picture(self, parameters: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Returns the pictures, in [0, 1]."""

    def distance(self, pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Returns what counts against each picture, as a fraction of its objective; nothing, as a rule."""
        return pictures.new_zeros(len(pictures))


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    # on the CPU, whatever the network's device: other devices draw other numbers of one seed
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, eq=False, kw_only=True)
class Pixels(Parameterisation):
    """Every pixel on its own; shows what regularisation is for.

    Args:
        spread: standard deviation of the start, in the latent image.
    """

    spread: float = 0.1

    def start(self, seed: int, contrast: float = 1.0) -> Tensor:
        """Returns white noise."""
        return _noise(self.shape, seed) * self.spread * contrast

    def picture(self, parameters: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Returns the pictures, in [0, 1]."""
        return correlate(parameters).sigmoid()


@dataclass(frozen=True, eq=False, kw_only=True)
class Fourier(Parameterisation):
    r"""Waves: latent image ``x = F^-1[z / f^decay]``, so that a step of Adam moves slow waves further than fast ones.

    Its contrast is held back smoothly, ``x / sqrt(1 + mean(x^2) / limit^2)``: colours do not saturate however long the
    ascent goes on, and it does not lose its start in the first steps.

    Source: Olah et al. (2017). Differs: the limit.

    Args:
        decay: how fast the amplitude falls with the frequency; 1 is that of natural pictures.
        spread: standard deviation of the start's real and imaginary parts ``z``.
        limit: root mean square that the latent image comes near and never exceeds; ``inf`` for none.
    """

    decay: float = 1.0
    spread: float = 0.6
    limit: float = 2.5

    @cached_property
    def _envelope(self) -> Float[Tensor, "h f"]:
        return envelope(*self.shape[1:], self.decay) / 4  # lucid's scale, for which a learning rate of 0.05 is right

    def start(self, seed: int, contrast: float = 1.0) -> Tensor:
        """Returns random waves."""
        channels, height, width = self.shape
        return _noise((channels, height, width // 2 + 1, 2), seed) * self.spread * contrast

    def latent(self, parameters: Float[Tensor, "n c h f 2"]) -> Float[Tensor, "n c h w"]:
        """Returns the images before colours and the sigmoid."""
        waves = torch.view_as_complex(parameters) * self._envelope.to(parameters)
        # "ortho", so that one learning rate suits pictures of any size
        free = torch.fft.irfft2(waves, s=self.shape[1:], norm="ortho")
        return free / (1 + free.square().mean((1, 2, 3), keepdim=True) / self.limit**2).sqrt()

    def picture(self, parameters: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Returns the pictures, in [0, 1]."""
        return correlate(self.latent(parameters)).sigmoid()


@dataclass(frozen=True, eq=False, kw_only=True)
class Maco(Parameterisation):
    """Phases alone: the magnitude of every wave is that of natural pictures and never changes.

    Source: Fel et al. (2023), magnitude constrained optimisation.
    Differs: the spectrum is that of the user's own pictures; it is held exactly, also where waves mirror themselves.

    Args:
        images: natural pictures, prepared for the network; a hundred or more.
    """

    images: ImageSet
    learning_rate: float = 0.1
    spectrum: Spectrum | None = field(default=None, repr=False)  # set by `at`

    def at(self, shape: Shape, colours: Colours, progress: Progress | None = None) -> "Maco":
        """Returns the same with the spectrum of the images at one size.

        Args:
            shape: of the pictures that are drawn.
            colours: how the network wants its pictures.
            progress: called as the images are read.
        """
        return replace(self, shape=shape, spectrum=natural_spectrum(self.images, shape[1:], colours, progress=progress))

    @property
    def recipe(self) -> str:
        """All that its pictures depend on, as a text."""
        return f"{type(self).__name__} {self.learning_rate} {self.images.hash}"

    def start(self, seed: int, contrast: float = 1.0) -> Tensor:
        """Returns the phases of white noise; ``contrast`` has no meaning where magnitudes are given."""
        assert self.spectrum is not None
        # of real noise, because phases drawn freely would not be those of a real image
        phase = torch.fft.rfft2(_noise(self.shape, seed)).angle()
        phase[:, 0, 0] = torch.where(self.spectrum.mean < 0, torch.pi, 0.0)  # the sign of the mean colour
        return phase

    def picture(self, parameters: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Returns the pictures, in [0, 1]."""
        assert self.spectrum is not None
        magnitude = self.spectrum.magnitude.to(parameters)
        return correlate(with_phase(magnitude, parameters, self.shape[2])).sigmoid()


@dataclass(frozen=True, eq=False, kw_only=True)
class Accentuation(Fourier):
    """A real picture plus waves that start at zero: what the objective would have more of in it.

    Source: Hamblin et al. (2024), feature accentuation.
    Differs: distance is measured in pixels, relative to the variance of the picture.

    Args:
        image: the picture, prepared for the network, ``[c, h, w]``.
        penalty: what a mean squared change of the picture by its own variance costs, as a fraction of the objective.
    """

    image: Tensor = field(repr=False)
    penalty: float = 1.0
    original: Float[Tensor, "1 c h w"] | None = field(default=None, repr=False)  # set by `at`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image.ndim != 3 or not self.image.numel() or not bool(self.image.isfinite().all()):
            raise ImageError(
                f"image: expected one prepared picture [c, h, w] of finite numbers, got shape {list(self.image.shape)}"
            )

    def at(self, shape: Shape, colours: Colours, progress: Progress | None = None) -> "Accentuation":
        """Returns the same with the picture in [0, 1], at one size.

        Args:
            shape: of the pictures that are drawn.
            colours: how the network wants its pictures.
            progress: not called, because this takes no time.
        """
        if self.image.ndim != 3 or self.image.shape[0] != shape[0]:
            raise ImageError(f"expected one picture of {shape[0]} channels to accentuate, got {list(self.image.shape)}")
        picture = colours.pictures(self.image.detach().cpu().float())[None]
        resized = torch.nn.functional.interpolate(picture, shape[1:], mode="bilinear", antialias=True)
        # 0 and 1 are infinitely far away behind the sigmoid
        return replace(self, shape=shape, original=resized.clamp(MARGIN, 1 - MARGIN))

    @property
    def recipe(self) -> str:
        """All that its pictures depend on, as a text."""
        return f"{self!r} of {digest(self.image)}"

    def start(self, seed: int, contrast: float = 1.0) -> Tensor:
        """Returns zeros, the picture as it is; random waves where more contrast than usual is asked for."""
        return super().start(seed, max(0.0, contrast - 1))

    def picture(self, parameters: Float[Tensor, "n ..."]) -> Float[Tensor, "n c h w"]:
        """Returns the pictures, in [0, 1]."""
        assert self.original is not None
        return (self.original.to(parameters).logit() + correlate(self.latent(parameters))).sigmoid()

    def distance(self, pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Returns the penalty times each picture's mean squared change, over the variance of the original."""
        assert self.original is not None
        original = self.original.to(pictures)
        # relative to the variance: the same change matters more in a picture of low contrast, and one may have none
        return self.penalty * (pictures - original).square().mean((1, 2, 3)) / original.var().clamp(min=1e-4)
