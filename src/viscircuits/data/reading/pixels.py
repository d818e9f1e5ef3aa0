"""Whether a value is a prepared picture, and what to do about one that is not.

Convention: a prepared picture is a dense floating tensor ``[c, h, w]`` of finite values, without gradients. Not here:
how a file becomes a picture (`viscircuits.data.reading.decoding`), and what reads one (`viscircuits.data.sources`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from viscircuits.errors import ImageError


def as_picture(image: object, name: str, by: str) -> Float[Tensor, "c h w"]:
    """Returns the value if it is a prepared picture; otherwise says what is wrong with it.

    Args:
        image: what somebody's code gave.
        name: what the picture is called in the error.
        by: who gave it, in words.

    Raises:
        ImageError: it is something else; the error says how to get a picture out of it.
    """
    # before other mappings: what is in this one has an axis too many as well
    if isinstance(image, Mapping) and "pixel_values" in image:
        raise ImageError(
            f"expected a tensor [c, h, w] from {by} for {name}, got a {type(image).__name__} with the "
            f"key 'pixel_values', "
            f"as image processors give it for a batch of one; take the tensor out of both: "
            f"lambda picture: processor(picture, return_tensors='pt')['pixel_values'][0]"
        )
    if not isinstance(image, Tensor):
        raise ImageError(f"expected a tensor [c, h, w] from {by} for {name}, got {_described(image)}")
    if image.is_meta or image.layout != torch.strided:
        what = "on the meta device, which holds no values" if image.is_meta else f"of the layout {image.layout}"
        raise ImageError(
            f"expected a tensor [c, h, w] from {by} for {name}, got one {what}; give a dense one on the CPU"
        )
    if image.ndim == 4 and len(image) == 1:
        raise ImageError(
            f"expected a tensor [c, h, w] from {by} for {name}, got shape {list(image.shape)}: a "
            f"batch of one picture; end "
            f"it in [0]"
        )
    if image.ndim != 3 or image.numel() == 0:
        raise ImageError(f"expected a tensor [c, h, w] from {by} for {name}, got shape {list(image.shape)}")
    if not image.is_floating_point():
        raise ImageError(
            f"expected float pixels from {by} for {name}, got {image.dtype}; scale them to [0, 1] as ToTensor() does"
        )
    if not image.isfinite().all():
        raise ImageError(f"expected finite pixels from {by} for {name}, got inf or nan; is a std of Normalize 0?")
    return image.detach()


def as_pictures(images: object) -> Shaped[Tensor, "n c h w"]:
    """Returns the value if it is one tensor of prepared pictures; otherwise says what is wrong with it.

    Raises:
        ImageError: it is something else, or one of the pictures is none.
    """
    if not isinstance(images, Tensor):
        raise ImageError(
            f"expected one tensor [n, c, h, w], got a {type(images).__name__}; put pictures of "
            f"one size together with "
            f"ImageSet.from_tensors(torch.stack(pictures)), read a data set with ImageSet.from_dataset(dataset)"
        )
    if images.ndim in (3, 5):
        raise ImageError(
            f"expected pictures [n, c, h, w], got shape {list(images.shape)}; "
            + ("one picture needs an axis in front (image[None]). " if images.ndim == 3 else "")
            + "For video [n, c, t, h, w] and signals [n, c, t], wrap the model, so that it takes "
            "pictures and unfolds "
            "them: nn.Sequential(nn.Unflatten(2, (t, h)), model) on video.flatten(2, 3), or nn.Sequential("
            "nn.Flatten(2), model) on signals[:, :, None]"
        )
    if images.ndim != 4:
        raise ImageError(f"expected images [n, c, h, w], got shape {list(images.shape)}")
    # a sparse tensor cannot be walked through, so that it is refused as a whole
    for i, image in enumerate(images if images.layout == torch.strided else [images]):
        as_picture(image, f"image {i}", by="the caller")
    return images.detach()


def _described(image: object) -> str:
    """What came in place of a tensor, and how to get one out of it."""
    kind = type(image).__name__
    if isinstance(image, Mapping):
        key = next((key for key, value in image.items() if isinstance(value, Tensor)), next(iter(image), "image"))
        return (
            f"a {kind} with the keys {', '.join(map(str, list(image)[:4]))}; take the tensor out of it, as in [{key!r}]"
        )
    if isinstance(image, tuple | list) and any(isinstance(part, Tensor) for part in image):
        place = [isinstance(part, Tensor) for part in image].index(True)
        return f"a {kind}; take the tensor out of it, as in [{place}]"
    if isinstance(image, np.ndarray):
        axes = "" if image.ndim != 3 or image.shape[0] in (1, 3) else ".permute(2, 0, 1)"
        scale = " / 255" if image.dtype == np.uint8 else ""
        return f"an array of numpy; make one of it: torch.from_numpy(array){axes}.float(){scale}"
    if image is None:
        return "None; does it return what it makes?"
    return f"{kind}; end it in ToTensor()"
