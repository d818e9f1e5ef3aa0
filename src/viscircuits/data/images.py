"""`ImageSet`: an ordered, immutable set of pictures, read when needed, ready for a model.

Convention: a set is *rows of a source* (files, tensors, a torch dataset) plus names and labels; a subset is other rows
of the same source. ``prepare`` turns an upright RGB picture into a tensor and must be deterministic, as pictures are
read again on every pass, in worker threads; the first one is prepared twice, and a difference is refused. Not here:
decoding (`viscircuits.data.reading.decoding`), downloads, augmentation.
"""

import operator
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.bounds.ranges import PICTURES, within
from viscircuits.card import Card, Shown, few
from viscircuits.data import datasets, sources
from viscircuits.data.damage import all_damage, readable
from viscircuits.data.division import sides
from viscircuits.data.folder import existing, scan
from viscircuits.data.labels import Labels, check_labels, indices_of, whole_numbers
from viscircuits.data.reading.decoding import UnreadableError
from viscircuits.data.reading.pixels import as_pictures
from viscircuits.data.reading.white import White, Whites
from viscircuits.data.sources import Prepare, Source
from viscircuits.data.stream import Batch, stacked, stream
from viscircuits.errors import ImageError
from viscircuits.store import digest
from viscircuits.types import Progress

__all__ = ["ImageSet", "Prepare"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class ImageSet(Shown):
    """An ordered set of pictures with names and perhaps labels; made by the ``from_...`` functions."""

    names: tuple[str, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None
    """The class of label ``i`` at place ``i``; a subset keeps all of them."""
    _source: Source
    _rows: tuple[int, ...]
    _digests: dict[int, str] = field(default_factory=dict)  # by row, shared with all subsets

    def __post_init__(self) -> None:
        count = len(self._rows)
        if not count:
            raise ImageError("expected at least one picture, got none")
        if len(self.names) != count:
            raise ImageError(f"expected one name a picture ({count}), got {len(self.names)}")
        if self.labels is not None:
            check_labels(self.labels, self.class_names, count)

    @classmethod
    @checked
    def from_folder(
        cls,
        path: str | Path,
        prepare: Prepare,
        *,
        unreadable: Literal["error", "skip"] = "error",
        white: White | None = None,
        up_to: int | None = None,
    ) -> "ImageSet":
        """Returns the pictures of a folder, in the order of their names.

        Pictures in sub-folders: each sub-folder is a class, numbered in sorted order (empty ones too, so that numbers
        stay those of the data set; names that are all numbers sort as numbers), and holds the pictures at any depth
        below it. Pictures in the folder itself: no labels. Ignored are hidden and system entries (`folder.SYSTEM`),
        files whose name does not end as in `folder.SUFFIXES`, and links to folders that are read anyway.

        Args:
            path: the folder.
            prepare: see `Prepare`.
            unreadable: ``"error"`` decodes nothing now and raises when a damaged picture is met; ``"skip"`` decodes
                every picture once now, leaves the damaged ones out and logs their names.
            white: the value that is white in pictures of more than 8 bits, such as 4095, where their header does not
                state it or states it wrongly (`viscircuits.data.reading.white`); others are not changed by it.
            up_to: for a folder that somebody else names: the search ends with an ImageError where more pictures are met
                than this, or next to none among very many files.
        """
        root = Path(path)
        files, classes = scan(root, up_to)
        source = sources.Files(tuple(files), prepare, Whites(white))
        source = readable(source) if unreadable == "skip" else source
        relative = [file.relative_to(root) for file in source.paths]
        number = {name: i for i, name in enumerate(classes)}
        labels = [number[file.parts[0]] for file in relative] if classes else None
        return _make(source, [file.as_posix() for file in relative], labels, classes or None)

    @classmethod
    @checked
    def from_files(
        cls,
        paths: str | Path | Iterable[str | Path],
        prepare: Prepare,
        labels: Labels | None = None,
        *,
        white: White | None = None,
    ) -> "ImageSet":
        """Returns the pictures in the given files (or one file), in the given order, named by their paths.

        Args:
            paths: the files.
            prepare: see `Prepare`.
            labels: one class number a file.
            white: as in `from_folder`.

        Raises:
            ImageError: there is no such file, or labels are not one a file.
        """
        source = sources.Files(existing([paths] if isinstance(paths, str | Path) else paths), prepare, Whites(white))
        return _make(source, [file.as_posix() for file in source.paths], labels)

    @classmethod
    @checked
    def from_tensors(
        cls, images: Tensor, labels: Labels | None = None, names: Iterable[str] | None = None
    ) -> "ImageSet":
        """Returns a set that holds a copy of prepared pictures.

        Args:
            images: ``[n, c, h, w]``, as the model takes them.
            labels: one class number a picture.
            names: one a picture; the index where none are given.

        Raises:
            ImageError: it is no such tensor, holds inf or nan, or names and labels are not one a picture.
        """
        pictures = as_pictures(images)
        names = map(str, range(len(pictures))) if names is None else names
        return _make(sources.Held(pictures.clone(), "tensors"), names, labels)

    @classmethod
    @checked
    def from_dataset(cls, dataset: object, prepare: Prepare | None = None, *, white: White | None = None) -> "ImageSet":
        """Returns the pictures of a map-style torch dataset that yields an image or (image, label, ...).

        Labels are those of the items: the whole dataset is read once now to collect them, save for a few of
        torchvision's own, which hold them apart. A second entry that is no class number (a caption, boxes, a map, -1)
        leaves the set without labels, and the log says so. Class names are its ``classes`` where these fit the labels.

        Args:
            dataset: anything with a length and numbered items.
            prepare: see `Prepare`; applied to Pillow pictures, while tensors are taken as they are.
            white: as in `from_folder`.

        Raises:
            ImageError: it is no such dataset, or its code fails.
        """
        items = datasets.map_style(dataset)
        count = datasets.length(items)
        labels, classes = datasets.labels_and_classes(items, count) if count else (None, None)
        return _make(sources.Items(items, prepare, Whites(white)), map(str, range(count)), labels, classes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Float[Tensor, "c h w"]:
        try:
            return self._source.first(self._rows[index])
        except UnreadableError as error:
            raise all_damage(self._source, self._rows) from error

    def _card(self) -> Card:
        numbers = sorted(set(self.labels or ()))
        names = numbers if self.class_names is None else [self.class_names[n] for n in numbers]
        facts = {
            "images": f"{len(self):,}",
            **sources.facts(self._source, self._rows[0]),
            "classes": f"{len(names):,} ({few(names)})" if names else None,
            "hash": vars(self).get("hash"),  # only where it is known: finding it reads every picture
        }
        return Card("ImageSet", facts)

    @checked
    def batches(
        self, size: int = 32, memory_format: torch.memory_format = torch.contiguous_format, *,
        progress: Progress | None = None, what: str = "pictures",
    ) -> Iterator[Batch]:  # fmt: skip
        """Yields all pictures in order, ``size`` at a time (the last may be fewer), decoding one batch ahead.

        Each batch is a new tensor, which the caller may write over.

        Args:
            size: pictures in a batch.
            memory_format: of the tensors.
            progress: called after each batch, when the next is asked for; what it raises ends the reading.
            what: what it is told that is counted.
        """
        within("size", size, PICTURES)
        pictures = stream(self._source, self._rows, self.names.__getitem__, ahead=size)
        for start, images in stacked(pictures, len(self), size, memory_format):
            end = start + len(images)
            yield Batch(images, None if self.labels is None else torch.tensor(self.labels[start:end]), start)
            if progress is not None:
                progress(what, end, len(self))
            del images  # or it would live on while the next batch is filled

    @checked
    def subset(self, indices: Iterable[int]) -> "ImageSet":
        """Returns the pictures at these indices of the set, in the given order."""
        places = [operator.index(i) for i in indices]
        if outside := [i for i in places if not 0 <= i < len(self)]:
            raise ImageError(f"expected indices from 0 to {len(self) - 1}, got {outside[0]}")
        return replace(
            self,
            names=tuple(self.names[i] for i in places),
            labels=None if self.labels is None else tuple(self.labels[i] for i in places),
            _rows=tuple(self._rows[i] for i in places),
        )

    @checked
    def take(self, n: int, seed: int = 0) -> "ImageSet":
        """Returns ``n`` pictures drawn at random without repetition, in the order of the set."""
        if not 1 <= n <= len(self):
            raise ImageError(f"expected to take from 1 to {len(self)} pictures, got {n}")
        return self.subset(sorted(random.Random(seed).sample(range(len(self)), n)))

    @checked
    def split(self, fraction: float, seed: int = 0) -> tuple["ImageSet", "ImageSet"]:
        """Returns two sets that share no picture and together are this set; the first has ``round(fraction * n)``.

        With labels, every class gives its share to within one picture (`viscircuits.data.division`). Pictures that are
        one file (links, a path or an index given twice) count as one, with the label of the first, and stay together.

        Args:
            fraction: share of the first set, in (0, 1), that leaves neither set empty.
            seed: same seed, same split.
        """
        places = [self._source.place(row) for row in self._rows]
        first, second = map(self.subset, sides(places, self.labels or (0,) * len(self), fraction, seed))
        return first, second

    @checked
    def select_classes(self, names: str | Iterable[str]) -> "ImageSet":
        """Returns the pictures of the named classes; labels keep their numbers."""
        return self.subset(indices_of([names] if isinstance(names, str) else names, self.labels, self.class_names))

    @checked
    def labelled(self, labels: Labels, class_names: Iterable[str] | None = None) -> "ImageSet":
        """Returns the same pictures with these labels."""
        classes = None if class_names is None else tuple(class_names)
        return replace(self, labels=whole_numbers(labels), class_names=classes)

    @checked
    def in_memory(self, *, progress: Progress | None = None) -> "ImageSet":
        """Returns the same set (names, labels, hashes), read once now and held as one tensor for fast later passes."""
        held = torch.empty(0)
        for images, _, start in self.batches(64, progress=progress, what="reading pictures"):
            held = images.new_empty(len(self), *images.shape[1:]) if start == 0 else held  # the first tells the size
            held[start : start + len(images)] = images
        # asked now, as files can go away; the digests stay those of the files, so that the set keeps its hash
        places = tuple(self._source.place(row) for row in self._rows)
        source = sources.Held(held, self._source.recipe, (self._source, self._rows), places)
        return replace(self, _source=source, _rows=tuple(range(len(self))), _digests={})

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """One content hash a picture (of the file's bytes, or the tensor); one in two sets is a shared picture."""
        for row in self._rows:
            if row not in self._digests:
                self._digests[row] = self._source.digest(row)
        return tuple(self._digests[row] for row in self._rows)

    @cached_property
    def hash(self) -> str:
        """The content hash of the set: its pictures in order, their labels, and the text of ``prepare``."""
        return digest(self._source.recipe, str(self.labels), *self.hashes)


def as_images(given: object) -> ImageSet:
    """Returns a set as it is, or the one that holds a tensor ``[n, c, h, w]``; an `ImageError` for anything else."""
    if isinstance(given, ImageSet):
        return given
    if isinstance(given, Tensor):
        return ImageSet.from_tensors(given)
    raise ImageError(
        f"expected an ImageSet or a tensor [n, c, h, w], got a {type(given).__name__}; make a set of it with "
        f"ImageSet.from_folder, from_files, from_tensors or from_dataset"
    )


def _make(
    source: Source, names: Iterable[str], labels: Iterable[object] | None, class_names: Iterable[str] | None = None
) -> ImageSet:
    numbers = None if labels is None else whole_numbers(labels)
    classes = None if class_names is None else tuple(class_names)
    return ImageSet(tuple(names), numbers, classes, source, tuple(range(source.count)))
