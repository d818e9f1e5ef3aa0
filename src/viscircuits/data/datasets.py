"""What a map-style torch dataset says of its items: their labels, the names of its classes, which item is which file.

Convention: labels are what the items carry. An attribute of the dataset is believed in their place only where it is
known to be what the items are made from (a few of torchvision's own classes), and a few items are compared even then;
otherwise every item is read once. Not here: the pictures (`viscircuits.data.sources`).
"""

import logging
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset

from viscircuits.data.labels import described, whole_number
from viscircuits.errors import ImageError

log = logging.getLogger(__name__)

_SAMPLES = ("DatasetFolder", "ImageFolder", "ImageNet")
_TARGETS = ("CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "KMNIST", "MNIST", "USPS")
_COMPARED = 7
"""Items whose label is compared with what the dataset holds apart."""


@runtime_checkable
class MapStyle(Protocol):
    """What has a length and numbered items; torch's own base class declares no length."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> object: ...


class _OfFiles(Protocol):
    """One of torchvision's datasets that lists its files, each with the class of its folder."""

    samples: Sequence[tuple[str, object]]


class _OfTargets(Protocol):
    """One of torchvision's datasets that holds its labels in one list or tensor."""

    targets: Sequence[object]


def map_style(dataset: object) -> MapStyle:
    """Returns a dataset that can be asked for its items by number; an `ImageError` says what works for another."""
    kind = type(dataset).__name__
    if isinstance(dataset, Tensor):
        raise ImageError("expected a data set, got a tensor; give ImageSet.from_tensors(images)")
    if isinstance(dataset, str | bytes):
        raise ImageError(
            "expected a data set, got a text; for a folder of pictures give ImageSet.from_folder(path, prepare)"
        )
    if isinstance(dataset, DataLoader):
        raise ImageError(
            "expected a data set, got a DataLoader, which may shuffle; give its data set: "
            "ImageSet.from_dataset(loader.dataset)"
        )
    if not hasattr(dataset, "__getitem__") and not hasattr(dataset, "__iter__"):
        raise ImageError(f"expected a data set with a length and numbered items, got {kind}")
    if not _is_map_style(dataset):
        raise ImageError(
            f"expected a data set with a length and numbered items, got {kind}, which can only be "
            f"read in turn; hold what "
            f"you need of it: ImageSet.from_tensors(torch.stack([item[0] for item in dataset]))"
        )
    if isinstance(dataset, Mapping):
        raise ImageError(
            f"expected a data set, got a {kind} with the keys "
            f"{', '.join(map(str, list(dataset)[:4]))}; give one of its parts"
        )
    return dataset


def _is_map_style(dataset: object) -> TypeGuard[MapStyle]:
    # torch gives every dataset a ``__getitem__``, so that one that is read in turn is told by its class
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, IterableDataset)


def length(dataset: MapStyle) -> int:
    """Returns how many items there are."""
    try:
        return len(dataset)
    except (Exception, SystemExit) as error:  # scripts end with sys.exit
        raise ImageError(f"the data set does not tell its length: {type(error).__name__}: {error}") from error


def item(dataset: MapStyle, row: int) -> object:
    """Returns an item; what goes wrong in the data set is told as its own."""
    try:
        return dataset[row]
    except (Exception, SystemExit) as error:
        raise ImageError(f"the data set fails at item {row}: {type(error).__name__}: {error}") from error


def labels_and_classes(dataset: MapStyle, count: int) -> tuple[list[int] | None, tuple[str, ...] | None]:
    """Returns the label of every item, and the names of the classes where the dataset has some that belong to these.

    Items without a second entry have no labels. A second entry that is no class number (a caption, boxes, a map, -1)
    leaves the pictures without labels as well, which is logged.
    """
    first = item(dataset, 0)
    if isinstance(first, Mapping):
        raise ImageError(
            f"expected items (image, label), got a {type(first).__name__} with the keys {', '.join(map(str, first))}; "
            f"give a list, say: ImageSet.from_dataset([(item['image'], item['label']) for item in dataset], prepare)"
        )
    if not isinstance(first, tuple | list) or len(first) < 2:
        return None, None
    labels = _known(dataset, count) or _read(dataset, first, count)
    return labels, None if labels is None else _classes(dataset, labels)


def place(dataset: object, row: int) -> Hashable:
    """Returns the same value for rows that are the same item, however it is wrapped, or the same file."""
    owner, row = _unwrapped(dataset, row)
    if _has_samples(owner):
        return file_place(Path(owner.samples[row][0]))
    return id(owner), row


def file_place(path: Path) -> Hashable:
    """Returns the same value for all paths of one file: links, hard links, other spellings."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    # some file systems number no files
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _unwrapped(dataset: object, row: int) -> tuple[object, int]:
    """The dataset at the bottom of subsets and concatenations, and the row there."""
    while True:
        if type(dataset) is Subset:
            dataset, row = dataset.dataset, int(dataset.indices[row])
        elif type(dataset) is ConcatDataset:
            part = next(i for i, end in enumerate(dataset.cumulative_sizes) if row < end)
            row -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
        else:
            return dataset, row


def _rows(dataset: object, count: int) -> tuple[object, Sequence[int]]:
    """The dataset at the bottom of subsets, and its rows that these have."""
    rows: Sequence[int] = range(count)
    while type(dataset) is Subset:
        rows = [int(dataset.indices[row]) for row in rows]
        dataset = dataset.dataset
    return dataset, rows


def _is_torchvisions(dataset: object, names: Iterable[str]) -> bool:
    kind = type(dataset)
    return kind.__module__.startswith("torchvision.datasets") and kind.__name__ in names


def _has_samples(dataset: object) -> TypeGuard[_OfFiles]:
    return _is_torchvisions(dataset, _SAMPLES)


def _has_targets(dataset: object) -> TypeGuard[_OfTargets]:
    return _is_torchvisions(dataset, _TARGETS)


def _known(dataset: MapStyle, count: int) -> list[int] | None:
    """The labels without reading all items, where that is safe."""
    owner, rows = _rows(dataset, count)
    if _relabels(owner):
        return None
    if _has_samples(owner):
        held = [whole_number(owner.samples[row][1]) for row in rows]
    elif _has_targets(owner):
        held = [whole_number(owner.targets[row]) for row in rows]
    else:
        return None
    # somebody may have changed the list after the items were made from it, or an item on its way out
    some = sorted({i * (count - 1) // (_COMPARED - 1) for i in range(_COMPARED)})
    labels = [label for label in held if label is not None and label >= 0]
    agree = len(labels) == count and all(labels[row] == whole_number(_second(item(dataset, row))) for row in some)
    return labels if agree else None


def _relabels(dataset: object) -> bool:
    """Whether one of torchvision's datasets was told to change its labels on the way out."""
    both = getattr(dataset, "transforms", None)
    changed = both is not None and type(both).__module__ != "torchvision.datasets.vision"
    return changed or getattr(dataset, "target_transform", None) is not None


def _read(dataset: MapStyle, first: object, count: int) -> list[int] | None:
    labels: list[int] = []
    for row in range(count):
        second = _second(item(dataset, row) if row else first)
        label = whole_number(second)
        if label is None or label < 0:
            log.warning(
                "the pictures are used without labels: expected a whole number from 0 up as the second entry of every "
                "item of the dataset, got %s at item %d; give labels with images.labelled(labels)",
                described(second),
                row,
            )
            return None
        labels.append(label)
    return labels


def _second(entry: object) -> object:
    """The second part of an item; None where it has none."""
    return entry[1] if isinstance(entry, tuple | list) and len(entry) > 1 else None


def _classes(dataset: MapStyle, labels: Sequence[int]) -> tuple[str, ...] | None:
    """The names, unless they cannot belong to these labels: too few, or those of labels that it holds beside."""
    owner, rows = _rows(dataset, len(labels))
    attribute = "wnids" if _is_torchvisions(owner, ("ImageNet",)) else "classes"  # its classes are tuples of synonyms
    names = getattr(owner, attribute, None)
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return None
    if max(labels) < len(names) and _targets_agree(owner, rows, labels):
        return tuple(names)
    log.warning("the dataset's names of %d classes are left out: its items have other labels than these", len(names))
    return None


def _targets_agree(owner: object, rows: Sequence[int], labels: Sequence[int]) -> bool:
    targets = getattr(owner, "targets", None)
    if targets is None:
        return True
    try:
        return [whole_number(targets[row]) for row in rows] == list(labels)
    except (IndexError, KeyError, TypeError, ValueError):
        return False
