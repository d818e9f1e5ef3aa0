"""`ImageSet`: an ordered, immutable set of pictures, read when needed, ready for a model.

Convention: a set is *rows of a source* (files, tensors, a torch dataset) plus names and labels; a subset is other rows
of the same source. ``prepare`` turns an upright RGB picture into a tensor and must be deterministic, as pictures are
read again on every pass, in worker threads; the first one is prepared twice, and a difference is refused. Not here:
decoding (`viscircuits.data.reading.decoding`), downloads, augmentation.
"""

import logging
import operator
import random
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, SupportsIndex, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from viscircuits.bounds import PICTURES, checked, within
from viscircuits.data import datasets, sources
from viscircuits.data.folder import scan
from viscircuits.data.reading.decoding import UnreadableError
from viscircuits.data.reading.white import Number, Whites
from viscircuits.data.sources import Prepare, Source
from viscircuits.errors import ImageError, closest
from viscircuits.store import digest
from viscircuits.types import Images, Progress

__all__ = ["Batch", "ImageSet", "Prepare"]

Labels = Iterable[SupportsIndex]
"""Class numbers: a list, an array or a 1-D tensor."""

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Neighbouring pictures of a set."""

    images: Images
    labels: Int[Tensor, "n"] | None
    start: int
    """Index in the set of the first picture."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
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
        if self.labels is None:
            return
        if len(self.labels) != count:
            raise ImageError(f"expected one label a picture ({count}), got {len(self.labels)}")
        low, high = min(self.labels), max(self.labels)
        if low < 0:
            raise ImageError(f"expected labels from 0 up, got {low}")
        if self.class_names is not None and high >= len(self.class_names):
            raise ImageError(f"expected labels below {len(self.class_names)} (the number of class names), got {high}")

    @classmethod
    @checked
    def from_folder(
        cls,
        path: str | Path,
        prepare: Prepare,
        *,
        unreadable: Literal["error", "skip"] = "error",
        white: Number | None = None,
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
        if unreadable == "skip" and (broken := source.damage(range(len(files)))):
            if len(broken) == len(files):
                raise sources.unreadable(broken, len(files), len(files))
            log.warning("skipped: %s", sources.listed(broken, len(files)))
            files = [file for file in files if file not in broken]
            source = sources.Files(tuple(files), prepare, source.whites)
        relative = [file.relative_to(root) for file in files]
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
        white: Number | None = None,
    ) -> "ImageSet":
        """Returns the pictures in the given files (or one file), in the given order, named by their paths.

        ``white`` is that of `from_folder`.
        """
        files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        for file in files:
            if file.is_dir():
                raise ImageError(f"expected picture files, got the folder {str(file)!r}; use ImageSet.from_folder")
            if not file.is_file():
                raise ImageError(f"no file {str(file)!r}")
        source = sources.Files(tuple(files), prepare, Whites(white))
        return _make(source, [file.as_posix() for file in files], labels)

    @classmethod
    @checked
    def from_tensors(
        cls, images: Tensor, labels: Labels | None = None, names: Iterable[str] | None = None
    ) -> "ImageSet":
        """Returns a set holding a copy of ``images`` ``[n, c, h, w]``, already prepared; names default to the index."""
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
        for i, image in enumerate(images if images.layout == torch.strided else [images]):
            sources.as_picture(image, f"image {i}", by="the caller")
        names = map(str, range(len(images))) if names is None else names
        return _make(sources.Held(images.detach().clone(), "tensors"), names, labels)

    @classmethod
    @checked
    def from_dataset(cls, dataset: Any, prepare: Prepare | None = None, *, white: Number | None = None) -> "ImageSet":
        """Returns the pictures of a map-style torch dataset that yields an image or (image, label, ...).

        Tensors are taken as they are; ``prepare`` is applied to Pillow pictures, and ``white`` is that of
        `from_folder`. Labels are those of the items: the whole dataset is read once now to collect them, save for a few
        of torchvision's own, which hold them apart. A second entry that is no class number (a caption, boxes, a map,
        -1) leaves the set without labels, and the log says so. The names of the classes are the dataset's ``classes``
        where these belong to the labels.
        """
        datasets.check_map_style(dataset)
        count = datasets.length(dataset)
        labels, classes = datasets.labels_and_classes(dataset, count) if count else (None, None)
        source = sources.Items(dataset, prepare, Whites(white))
        return _make(source, map(str, range(count)), labels, classes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Float[Tensor, "c h w"]:
        with self._all_damage():
            return self._source.first(self._rows[index])

    def __repr__(self) -> str:
        classes = "" if self.labels is None else f", {len(set(self.labels))} classes"
        return f"ImageSet({len(self)} images{classes})"

    @checked
    def batches(
        self, size: int = 32, memory_format: torch.memory_format = torch.contiguous_format, *,
        progress: Progress | None = None, what: str = "pictures",
    ) -> Iterator[Batch]:  # fmt: skip
        """Yields all pictures in order, ``size`` at a time (the last may be fewer), decoding one batch ahead.

        Each batch is a new tensor in this memory format, which the caller may write over. ``progress`` is told ``what``
        after each, when the next is asked for.
        """
        within("size", size, PICTURES)
        images = torch.empty(0)
        for index, image in enumerate(self._sized(ahead=size)):
            start = index - index % size
            if index == start:
                shape = min(size, len(self) - start), *image.shape
                images = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=memory_format)
            images[index - start] = image
            if index + 1 in (start + size, len(self)):
                labels = None if self.labels is None else torch.tensor(self.labels[start : index + 1])
                yield Batch(images, labels, start)
                if progress is not None:
                    progress(what, index + 1, len(self))

    def _sized(self, ahead: int) -> Iterator[Tensor]:
        first: torch.Size | None = None
        for index, image in enumerate(self._read(ahead)):
            first = first or image.shape
            if image.shape != first:
                raise ImageError(
                    f"expected pictures of one size after prepare; {self.names[0]!r} is {list(first)} but "
                    f"{self.names[index]!r} is {list(image.shape)}; prepare needs CenterCrop or Resize((h, w))"
                )
            yield image

    def _read(self, ahead: int) -> Iterator[Tensor]:
        source, rows = self._source, self._rows
        with self._all_damage():
            if not source.settled:
                yield source.first(rows[0])  # in this thread, before others read
                rows = rows[1:]
            yield from sources.in_order(source.read, rows, source.workers, ahead)

    @contextmanager
    def _all_damage(self) -> Iterator[None]:
        """Where one picture cannot be read, all that cannot are named at once."""
        try:
            yield
        except UnreadableError as error:
            assert isinstance(self._source, sources.Files)
            raise sources.unreadable(self._source.damage(self._rows), len(self), self._source.count) from error

    @checked
    def subset(self, indices: Iterable[int]) -> "ImageSet":
        """Returns the pictures at these indices of the set, in the given order."""
        chosen = [operator.index(i) for i in indices]
        if outside := [i for i in chosen if not 0 <= i < len(self)]:
            raise ImageError(f"expected indices from 0 to {len(self) - 1}, got {outside[0]}")
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels=None if self.labels is None else tuple(self.labels[i] for i in chosen),
            _rows=tuple(self._rows[i] for i in chosen),
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

        With labels, every class gives its share to within one picture: the classes stand in a row in random order,
        their pictures shuffled, and k of the n places, evenly spaced, go to the first set. Pictures that are one file
        (links, a path or an index given twice) count as one of the n, with the label of the first, and stay together.

        Args:
            fraction: share of the first set, in (0, 1), that leaves neither set empty.
            seed: same seed, same split.
        """
        if not 0 < fraction < 1:
            raise ImageError(f"expected a fraction between 0 and 1, got {fraction}")
        leads: dict[Hashable, int] = {}
        lead = [leads.setdefault(self._source.place(row), i) for i, row in enumerate(self._rows)]
        n, k = len(leads), round(fraction * len(leads))
        if not 0 < k < n:
            raise ImageError(f"a split of {n} pictures at {fraction} has an empty side ({k} and {n - k} pictures)")
        generator = random.Random(seed)
        labels = self.labels or (0,) * len(self)
        turn = {label: generator.random() for label in sorted({labels[i] for i in leads.values()})}
        line = sorted(leads.values(), key=lambda i: (turn[labels[i]], generator.random()))
        first = {i for place, i in enumerate(line) if (place + 1) * k // n > place * k // n}
        sides = [[i for i in range(len(self)) if (lead[i] in first) is wanted] for wanted in (True, False)]
        return self.subset(sides[0]), self.subset(sides[1])

    @checked
    def select_classes(self, names: str | Iterable[str]) -> "ImageSet":
        """Returns the pictures of the named classes; labels keep their numbers."""
        wanted = {names} if isinstance(names, str) else set(names)
        if self.labels is None or self.class_names is None:
            raise ImageError(
                "expected pictures with named classes; use from_folder on a folder with one sub-folder a class"
            )
        for name in sorted(wanted - set(self.class_names)):
            raise ImageError(
                f"no class {name!r} among {len(self.class_names)} classes{closest(name, self.class_names)}"
            )
        found = [i for i, label in enumerate(self.labels) if self.class_names[label] in wanted]
        if not found:
            raise ImageError(f"no picture here is in {', '.join(sorted(wanted)) or 'an empty list of classes'}")
        return self.subset(found)

    @checked
    def labelled(self, labels: Labels, class_names: Iterable[str] | None = None) -> "ImageSet":
        """Returns the same pictures with these labels."""
        return replace(self, labels=_integers(labels), class_names=None if class_names is None else tuple(class_names))

    @checked
    def in_memory(self, *, progress: Progress | None = None) -> "ImageSet":
        """Returns the same set (names, labels, hashes), read once now and held as one tensor for fast later passes."""
        held = torch.empty(0)
        for images, _, start in self.batches(64, progress=progress, what="reading pictures"):
            held = images.new_empty(len(self), *images.shape[1:]) if start == 0 else held
            held[start : start + len(images)] = images
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
    numbers = None if labels is None else _integers(labels)
    classes = None if class_names is None else tuple(class_names)
    return ImageSet(tuple(names), numbers, classes, source, tuple(range(source.count)))


def _integers(labels: Iterable[object]) -> tuple[int, ...]:
    numbers: list[int] = []
    for label in labels:
        number = datasets.whole_number(label)
        if number is None:
            raise ImageError(f"expected whole numbers as labels, got {datasets.described(label)}")
        numbers.append(number)
    return tuple(numbers)
