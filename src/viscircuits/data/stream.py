"""Pictures of a source one after another, read ahead, all of one size; and several of them in one tensor.

Not here: names and labels beyond what an error needs (`viscircuits.data.images`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from viscircuits.arrays import Images
from viscircuits.card import Card, sized
from viscircuits.data.damage import all_damage
from viscircuits.data.reading.decoding import UnreadableError
from viscircuits.data.reading.queue import in_order
from viscircuits.data.sources import Source
from viscircuits.errors import ImageError


class Batch(NamedTuple):
    """Neighbouring pictures of a set."""

    images: Images
    labels: Int[Tensor, "n"] | None
    start: int
    """Index in the set of the first picture."""

    def __repr__(self) -> str:
        shape = sized(self.images.shape[1:])
        return Card("Batch", {"images": len(self.images), "size": shape, "start": self.start}).text()


def stream(
    source: Source, rows: Iterable[int], name: Callable[[int], str], ahead: int
) -> Iterator[Float[Tensor, "c h w"]]:
    """Yields prepared pictures in order.

    Args:
        source: where they come from.
        rows: which of them.
        name: place among these rows -> what the picture is called in errors.
        ahead: how many may be read before they are asked for.

    Raises:
        ImageError: a file cannot be read, or a picture has another size than the first.
    """
    first: torch.Size | None = None
    for index, image in enumerate(_read(source, rows, ahead)):
        first = first or image.shape
        if image.shape != first:
            raise ImageError(
                f"expected pictures of one size after prepare; {name(0)!r} is {list(first)} but "
                f"{name(index)!r} is {list(image.shape)}; prepare needs CenterCrop or Resize((h, w))"
            )
        yield image


def stacked(
    pictures: Iterable[Float[Tensor, "c h w"]], total: int, size: int, memory_format: torch.memory_format
) -> Iterator[tuple[int, Float[Tensor, "n c h w"]]]:
    """Yields batches, each a new tensor, with the index of its first picture.

    Args:
        pictures: one after another, all of one size.
        total: how many there will be.
        size: pictures in a batch; the last may hold fewer.
        memory_format: of the batches.
    """
    batch = torch.empty(0)
    for index, image in enumerate(pictures):
        start = index - index % size
        if index == start:
            shape = min(size, total - start), *image.shape
            batch = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=memory_format)
        # written where it belongs, as to stack a list of pictures would hold the batch twice
        batch[index - start] = image
        if index + 1 in (start + size, total):
            yield start, batch


def _read(source: Source, rows: Iterable[int], ahead: int) -> Iterator[Tensor]:
    every = rest = tuple(rows)
    try:
        if not source.settled:
            # in this thread, before others read: whether it draws random numbers is seen in states of the process
            yield source.first(rest[0])
            rest = rest[1:]
        yield from in_order(source.read, rest, source.workers, ahead)
    except UnreadableError as error:
        raise all_damage(source, every) from error
