"""The small network that comes with the package: five convolutions that know twelve shapes.

It is there so that every example, test and tutorial runs offline in seconds. Its weights are stored as float16 and used
as float32. How it was trained stands in `viscircuits.train.shapesnet`; the pictures it knows are in
`viscircuits.data.shapes`. It has seen those of seed 0, and its options were chosen on seed 1: measure on other seeds.
"""

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from viscircuits.errors import ImageError, ModelError, StudyError
from viscircuits.model.zoo.weights import misfit
from viscircuits.store import read_tensors

WEIGHTS = "shapesnet.safetensors"
SIZE = 64


class ShapesNet(nn.Module):
    """Logits [n, classes] of 64-pixel pictures; ``features.0 .3 .6 .8 .10`` are the convolutions, AlexNet in small."""

    def __init__(self, classes: int = 12):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2),  # 64 -> 32 pixels
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # 16
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # 8
            nn.Conv2d(48, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 48, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),  # 4
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(48, 64), nn.ReLU(inplace=True), nn.Linear(64, classes))

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Returns the logits of preprocessed pictures."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def load_shapesnet() -> ShapesNet:
    """Returns the trained network in evaluation mode, in float32 on the CPU."""
    with resources.as_file(resources.files("viscircuits.model.zoo").joinpath(WEIGHTS)) as path:
        if not path.is_file():
            raise ModelError(f"no file {str(path)!r}; install viscircuits again, or run examples/train_shapesnet.py")
        try:
            tensors, _ = read_tensors(path)
        except StudyError as error:
            raise ModelError(f"{error}; install viscircuits again") from None
    model = ShapesNet()
    if wrong := misfit(tensors, model.state_dict()):
        raise ModelError(f"{WEIGHTS} does not fit the built-in network: {wrong}; install viscircuits again")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


@dataclass(frozen=True)
class ShapesTransform:
    """Pictures as `ShapesNet` takes them; a plain value, so worker processes can have it."""

    size: int = SIZE
    mean: tuple[float, float, float] = (0.54, 0.54, 0.54)
    std: tuple[float, float, float] = (0.24, 0.24, 0.24)

    def __call__(self, picture: Image.Image | Tensor) -> Float[Tensor, "*n 3 h w"]:
        """Returns one picture [3, h, w] or several [n, 3, h, w], resized to ``size`` when needed and normalised.

        Args:
            picture: A PIL picture, a uint8 tensor in [0, 255], or a floating tensor in [0, 1].
        """
        x = self._unit(picture)
        if x.ndim not in (3, 4) or x.shape[-3] != 3 or x.numel() == 0:
            raise ImageError(f"expected a picture of shape [3, h, w] or [n, 3, h, w]; got {list(x.shape)}")
        if x.shape[-2:] != (self.size, self.size):
            x = self._resize(x)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std

    def _unit(self, picture: Image.Image | Tensor) -> Tensor:
        """The values in [0, 1], channels first."""
        if isinstance(picture, Image.Image):
            picture = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        if picture.is_floating_point():
            return picture
        if picture.dtype != torch.uint8:
            raise ImageError(f"expected uint8 values in [0, 255] or floats in [0, 1]; got {picture.dtype}")
        return picture.float() / 255

    def _resize(self, x: Tensor) -> Tensor:
        batch = x if x.ndim == 4 else x[None]
        batch = nn.functional.interpolate(batch, (self.size, self.size), mode="bilinear", antialias=True)
        return batch if x.ndim == 4 else batch[0]
