"""Where the pictures of an `ImageSet` come from: files, tensors in memory, or a torch dataset.

A source is numbered pictures: ``read(row)`` gives the prepared, checked tensor, ``digest(row)`` its content hash. What
Pillow decodes is decoded here. Not here: names, labels, subsets, batches (`viscircuits.data.images`).

How a file becomes RGB: the first frame of an animation; turned upright by its EXIF orientation; transparent pixels
stand on white, as on a page, because the colour stored beneath them is arbitrary; 16-bit grey is scaled from 0..65535
to 0..255 (Pillow alone would clip it); CMYK, palette, grey and the rest go through Pillow's own conversion.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Subset

from viscircuits.errors import ImageError
from viscircuits.store import digest

Prepare = Callable[[Image.Image], Tensor]
"""Upright RGB picture -> float tensor ``[c, h, w]``, the same size for every picture."""

_SHOWN = 5
_T = TypeVar("_T")
_R = TypeVar("_R")


class UnreadableError(ImageError):
    """One picture that cannot be decoded."""


@runtime_checkable
class Source(Protocol):
    """Numbered pictures."""

    @property
    def count(self) -> int:
        """Number of pictures."""
        ...

    @property
    def workers(self) -> int:
        """Threads that may read at once; 0 = read in the caller's thread."""
        ...

    @property
    def recipe(self) -> str:
        """What was done to the pictures, for provenance."""
        ...

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture."""
        ...

    def digest(self, row: int) -> str:
        """Returns the content hash of one picture."""
        ...


@final
@dataclass(frozen=True)
class Files:
    """Picture files, decoded at every reading."""

    paths: tuple[Path, ...]
    prepare: Prepare
    workers: int = 2

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.paths)

    @property
    def recipe(self) -> str:
        """The text of ``prepare``, without memory addresses."""
        return _describe(self.prepare)

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture; an undecodable file is an `UnreadableError`."""
        path = self.paths[row]
        return _prepared(self.prepare, decode(path), str(path))

    def digest(self, row: int) -> str:
        """Returns the hash of the file's bytes."""
        return digest(self.paths[row].read_bytes())


@final
@dataclass(frozen=True)
class Held:
    """Prepared pictures ``[n, c, h, w]`` in memory, checked before."""

    images: Tensor
    recipe: str
    origin: tuple[Source, tuple[int, ...]] | None = None
    """Where the pictures were read from: a source and its rows."""
    workers: int = 0

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns a copy of one picture."""
        return self.images[row].clone()

    def digest(self, row: int) -> str:
        """Returns the hash of the picture at its origin, or of its values."""
        if self.origin is not None:
            source, rows = self.origin
            return source.digest(rows[row])
        return _digest(self.images[row])


@final
@dataclass(frozen=True)
class Items:
    """The items of a map-style torch dataset: an image, or (image, label, ...)."""

    dataset: Dataset
    prepare: Prepare | None
    workers: int = 0  # a dataset need not be safe to read from several threads

    @property
    def count(self) -> int:
        """Length of the dataset."""
        return len(self.dataset)  # pyright: ignore[reportArgumentType] (torch's base class declares no length)

    @property
    def recipe(self) -> str:
        """The text of ``prepare``, without memory addresses."""
        return _describe(self.prepare)

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one picture, prepared when it comes as a Pillow picture."""
        item, name = self.dataset[row], f"item {row} of the dataset"
        image = item[0] if isinstance(item, tuple | list) else item
        if not isinstance(image, Image.Image):
            return checked(image, name, by="the dataset")
        if self.prepare is None:
            raise ImageError(f"{name} is a Pillow picture; give ImageSet.from_dataset a prepare")
        return _prepared(self.prepare, rgb(image), name)

    def digest(self, row: int) -> str:
        """Returns the hash of the prepared picture's values."""
        return _digest(self.read(row))


def dataset_labels(dataset: Dataset, count: int) -> list[object] | None:
    """Returns the labels of a dataset, from its ``targets`` if those are what it yields, else item by item."""
    first = dataset[0]
    if not isinstance(first, tuple | list) or len(first) < 2:
        return None
    owner, rows = (dataset.dataset, dataset.indices) if isinstance(dataset, Subset) else (dataset, range(count))
    targets = getattr(owner, "targets", None)
    if targets is None or getattr(owner, "target_transform", None) is not None:
        return [dataset[row][1] for row in range(count)]  # pyright: ignore[reportIndexIssue] (seen above)
    return [targets[row] for row in rows]


def rgb(image: Image.Image) -> Image.Image:
    """Returns the picture upright, in 8-bit RGB, over white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.int64)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise ValueError("32-bit grey has no fixed white; convert the file to 8 or 16 bits")
        image = Image.fromarray((grey / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point grey has no fixed white; convert the file to 8 or 16 bits")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


def decode(path: Path) -> Image.Image:
    """Returns the file's picture in upright RGB, with the file closed again."""
    try:
        if path.stat().st_size == 0:
            raise ValueError("the file is empty")
        with Image.open(path) as image:
            return rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        raise UnreadableError(f"{path}: more pixels than {limit} allows; make it smaller, or raise the limit") from None
    except Image.UnidentifiedImageError:
        raise UnreadableError(f"{path}: not a picture in a known format") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise almost anything
        raise UnreadableError(f"{path}: {error}") from error


def damage(paths: Sequence[Path], workers: int = 2) -> dict[Path, str]:
    """Returns the files that cannot be decoded, with the complaint that names each; decodes them all."""

    def complaint(path: Path) -> str:
        try:
            decode(path)
        except UnreadableError as error:
            return str(error)
        return ""

    found = in_order(complaint, paths, workers, ahead=64)
    return {path: text for path, text in zip(paths, found, strict=True) if text}


def listed(broken: dict[Path, str], total: int) -> str:
    """Returns ``"2 of 10 pictures cannot be read: ..."`` with the first few complaints."""
    shown = "; ".join(list(broken.values())[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    return f"{len(broken)} of {total} pictures cannot be read: {shown}{more}"


def unreadable(broken: dict[Path, str], total: int) -> ImageError:
    """Returns the one error that lists all files found unreadable, and the fix."""
    skip = ', or leave them out with from_folder(..., unreadable="skip")' if len(broken) < total else ""
    return ImageError(f"{listed(broken, total)}. Repair or remove them{skip}")


def checked(image: object, name: str, by: str) -> Float[Tensor, "c h w"]:
    """Returns the value if it is a finite float tensor [c, h, w]; otherwise says what is wrong with it."""
    if not isinstance(image, Tensor):
        raise ImageError(
            f"expected a tensor [c, h, w] from {by} for {name}, got {type(image).__name__}; end it in ToTensor()"
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


def _prepared(prepare: Prepare, image: Image.Image, name: str) -> Tensor:
    try:
        tensor = prepare(image)
    except Exception as error:
        size = f"{image.width} x {image.height} pixels"
        raise ImageError(f"prepare failed on {name} ({size}): {type(error).__name__}: {error}") from error
    return checked(tensor, name, by="prepare")


def _digest(image: Tensor) -> str:
    return digest(f"{image.dtype}{list(image.shape)}", image.contiguous().view(torch.uint8))  # numpy has no bfloat16


def _describe(prepare: Prepare | None) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(prepare))


def in_order(function: Callable[[_T], _R], items: Sequence[_T], workers: int, ahead: int) -> Iterator[_R]:
    """Yields ``function(item)`` for each item, in order, at most ``ahead`` of them computed early by worker threads."""
    if not workers:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[_R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
