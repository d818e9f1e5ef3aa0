"""Where the pictures of an `ImageSet` come from: files, tensors in memory, or a torch dataset.

A source is numbered pictures: ``read(row)`` gives the prepared, checked tensor, ``digest(row)`` its content hash. The
first reading of all, in the caller's thread, is done by ``first(row)``, which also sees to it that a picture is the
same when it is read again. Not here: names, labels, subsets, batches (`viscircuits.data.images`), what a prepared
picture is (`viscircuits.data.reading.pixels`), and how a file becomes RGB (`viscircuits.data.reading.decoding`).
"""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from viscircuits.card import sized
from viscircuits.data import datasets
from viscircuits.data.reading.decoding import UnreadableError, content, decode, opened, rgb
from viscircuits.data.reading.depth import Depth, depth_of
from viscircuits.data.reading.pixels import as_picture
from viscircuits.data.reading.queue import in_order
from viscircuits.data.reading.steady import read_twice
from viscircuits.data.reading.white import Whites
from viscircuits.errors import ImageError
from viscircuits.store import digest

Prepare = Callable[[Image.Image], Tensor]
"""Upright RGB picture -> float tensor ``[c, h, w]``, the same size for every picture and the same at every call."""


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

    @property
    def settled(self) -> bool:
        """Whether ``first`` was asked before, or need not be."""
        ...

    def first(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture; of a source that is not settled, having read it twice."""
        ...

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture, in any thread."""
        ...

    def place(self, row: int) -> Hashable:
        """Returns where the picture lies: the same value for rows that are one file or one item."""
        ...

    def digest(self, row: int) -> str:
        """Returns the content hash of one picture."""
        ...


@final
class _Once:
    """Whether something is done: a value that all subsets of a source share, which are copies of it otherwise."""

    done = False


@final
@dataclass(frozen=True)
class Files:
    """Picture files, decoded at every reading."""

    paths: tuple[Path, ...]
    prepare: Prepare
    whites: Whites = field(default_factory=Whites, repr=False, compare=False)
    workers: int = 2
    _once: _Once = field(default_factory=_Once, repr=False, compare=False)

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self.paths)

    @property
    def recipe(self) -> str:
        """The text of ``prepare``, without memory addresses, and the white that was given."""
        return _recipe(self.prepare, self.whites.given)

    @property
    def settled(self) -> bool:
        """Whether a picture was read twice."""
        return self._once.done

    def first(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture; a random ``prepare`` is an ImageError at the first reading."""
        return _first(self._once, partial(self.read, row), str(self.paths[row]), by="prepare")

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one prepared picture; an undecodable file is an `UnreadableError`."""
        path = self.paths[row]
        return _prepared(self.prepare, decode(path, self.whites, self._survey), str(path))

    def place(self, row: int) -> Hashable:
        """Returns the file behind the path, the same for links and hard links."""
        return datasets.file_place(self.paths[row])

    def digest(self, row: int) -> str:
        """Returns the hash of the file's bytes."""
        return digest(content(self.paths[row]))

    def damage(self, rows: Sequence[int]) -> dict[Path, str]:
        """Returns the files that cannot be decoded, with the complaint that names each; decodes them all."""

        def complaint(path: Path) -> str:
            try:
                decode(path, self.whites, self._survey)
            except UnreadableError as error:
                return str(error)
            return ""

        paths = [self.paths[row] for row in rows]
        complaints = in_order(complaint, paths, self.workers, ahead=64)
        return {path: text for path, text in zip(paths, complaints, strict=True) if text}

    def _survey(self, like: Depth) -> Iterator[tuple[str, float]]:
        for path in self.paths:
            shown = None
            with suppress(UnreadableError), opened(path) as image:  # a damaged file complains when it is read itself
                if (depth := depth_of(image)) is not None and depth.question == like.question:
                    shown = path.name, depth.shown(image)
            if shown is not None:
                yield shown


@final
@dataclass(frozen=True)
class Held:
    """Prepared pictures ``[n, c, h, w]`` in memory, checked before."""

    images: Tensor
    recipe: str
    origin: tuple[Source, tuple[int, ...]] | None = None
    """Where the pictures were read from: a source and its rows."""
    places: tuple[Hashable, ...] | None = None
    """Where they lay then, as files can go away."""
    workers: int = 0
    settled: bool = True

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def first(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns a copy of one picture."""
        return self.read(row)

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns a copy of one picture."""
        return self.images[row].clone()  # whoever gets a picture may write over it

    def place(self, row: int) -> Hashable:
        """Returns where the picture lay, or its number."""
        return row if self.places is None else self.places[row]

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

    dataset: datasets.MapStyle
    prepare: Prepare | None
    whites: Whites = field(default_factory=Whites, repr=False, compare=False)
    workers: int = 0  # a dataset need not be safe to read from several threads
    _once: _Once = field(default_factory=_Once, repr=False, compare=False)

    @property
    def count(self) -> int:
        """Length of the dataset."""
        return len(self.dataset)

    @property
    def recipe(self) -> str:
        """The text of ``prepare``, without memory addresses, and the white that was given."""
        return _recipe(self.prepare, self.whites.given)

    @property
    def settled(self) -> bool:
        """Whether a picture was read twice."""
        return self._once.done

    def first(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one picture; a random transform or ``prepare`` is an ImageError at the first reading."""
        by = "the dataset" if self.prepare is None else "the dataset, or prepare,"
        return _first(self._once, partial(self.read, row), _item(row), by)

    def read(self, row: int) -> Float[Tensor, "c h w"]:
        """Returns one picture, prepared when it comes as a Pillow picture."""
        image, name = self._image(row), _item(row)
        if not isinstance(image, Image.Image):
            return as_picture(image, name, by="the dataset")
        if self.prepare is None:
            raise ImageError(f"{name} is a Pillow picture; give ImageSet.from_dataset a prepare")
        try:
            upright = rgb(image, self.whites, self._survey)
        except (OSError, ValueError) as error:
            raise ImageError(f"{name}: {error}") from error
        return _prepared(self.prepare, upright, name)

    def place(self, row: int) -> Hashable:
        """Returns the item below all subsets, or its file where the dataset is one of files."""
        return datasets.place(self.dataset, row)

    def digest(self, row: int) -> str:
        """Returns the hash of the prepared picture's values."""
        return _digest(self.first(row))

    def _image(self, row: int) -> object:
        item = datasets.item(self.dataset, row)
        return item[0] if isinstance(item, tuple | list) else item

    def _survey(self, like: Depth) -> Iterator[tuple[str, float]]:
        for row in range(self.count):
            image = self._image(row)
            if not isinstance(image, Image.Image):
                continue
            if (depth := depth_of(image)) is not None and depth.question == like.question:
                yield _item(row), depth.shown(image)


def facts(source: Source, row: int) -> Mapping[str, str | None]:
    """Returns where the picture of a row lies, and the size of pictures where that is known without reading one."""
    if isinstance(source, Held):
        size = sized(source.images.shape[1:])
        if source.origin is None:
            return {"size": size, "from": "tensors"}
        first, rows = source.origin
        return {**facts(first, rows[row]), "size": size, "held": "in memory"}
    if isinstance(source, Files):
        return {"first file": str(source.paths[row])}
    return {"from": type(source.dataset).__name__ if isinstance(source, Items) else type(source).__name__}


def _prepared(prepare: Prepare, image: Image.Image, name: str) -> Tensor:
    try:
        tensor = prepare(image)
    except (Exception, SystemExit) as error:  # scripts end with sys.exit
        size = f"{image.width} x {image.height} pixels"
        raise ImageError(f"prepare failed on {name} ({size}): {type(error).__name__}: {error}") from error
    return as_picture(tensor, name, by="prepare")


def _digest(image: Tensor) -> str:
    return digest(f"{image.dtype}{list(image.shape)}", image.contiguous().view(torch.uint8))  # numpy has no bfloat16


def _recipe(prepare: Prepare | None, white: float | None) -> str:
    # the text of a function holds its address, which is another in every process; the hash of a set must not be
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(prepare))
    return text if white is None else f"{text}, white={white!r}"


def _item(row: int) -> str:
    return f"item {row} of the dataset"


def _first(once: _Once, read: Callable[[], Tensor], name: str, by: str) -> Tensor:
    if once.done:
        return read()
    image = read_twice(read, name, by)
    once.done = True  # after an error the next reading looks again
    return image
