"""What a map-style torch dataset says of its items: their labels, the names of its classes, which item is which file.

Convention: labels are what the items carry. An attribute of the dataset is believed in their place only where it is
known to be what the items are made from (a few of torchvision's own classes), and a few items are compared even then;
otherwise every item is read once. Not here: the pictures (`viscircuits.data.sources`).
"""

import logging
import operator
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from viscircuits.errors import ImageError

log = logging.getLogger(__name__)

_SAMPLES = ("DatasetFolder", "ImageFolder", "ImageNet")
_TARGETS = ("CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "KMNIST", "MNIST", "USPS")
_COMPARED = 7


def check_map_style(dataset: Any) -> None:
    """Raises an `ImageError` with the call that works, where something cannot be asked for its items by number."""
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
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
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


def length(dataset: Any) -> int:
    """Returns how many items there are."""
    try:
        return len(dataset)
    except (Exception, SystemExit) as error:
        raise ImageError(f"the data set does not tell its length: {type(error).__name__}: {error}") from error


def item(dataset: Any, row: int) -> Any:
    """Returns an item; what goes wrong in the data set is told as its own."""
    try:
        return dataset[row]
    except (Exception, SystemExit) as error:  # scripts end with sys.exit
        raise ImageError(f"the data set fails at item {row}: {type(error).__name__}: {error}") from error


def labels_and_classes(dataset: Any, count: int) -> tuple[list[int] | None, tuple[str, ...] | None]:
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


def whole_number(value: object) -> int | None:
    """Returns a number that is whole by its type, also one in an array or tensor by itself; None for all else."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if np.prod(value.shape) != 1:
            return None
        value = value.item()
    try:
        return int(operator.index(value))  # pyright: ignore[reportArgumentType] (hence the try)
    except TypeError:
        return None


def described(value: object) -> str:
    """Returns a few words for a value that is no class number."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, int | float | str | Tensor | np.generic | None):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return f"a {type(value).__name__}"


def place(dataset: Dataset, row: int) -> Hashable:
    """Returns the same value for rows that are the same item, however it is wrapped, or the same file."""
    owner, row = _unwrapped(dataset, row)
    if _is_torchvisions(owner, _SAMPLES):
        return file_place(Path(owner.samples[row][0]))  # pyright: ignore[reportAttributeAccessIssue] (DatasetFolder's)
    return id(owner), row


def file_place(path: Path) -> Hashable:
    """Returns the same value for all paths of one file: links, hard links, other spellings."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _unwrapped(dataset: Dataset, row: int) -> tuple[Dataset, int]:
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


def _rows(dataset: Dataset, count: int) -> tuple[Dataset, Sequence[int]]:
    """The dataset at the bottom of subsets, and its rows that these have."""
    rows: Sequence[int] = range(count)
    while type(dataset) is Subset:
        rows = [int(dataset.indices[row]) for row in rows]
        dataset = dataset.dataset
    return dataset, rows


def _is_torchvisions(dataset: Dataset, names: Iterable[str]) -> bool:
    kind = type(dataset)
    return kind.__module__.startswith("torchvision.datasets") and kind.__name__ in names


def _known(dataset: Any, count: int) -> list[int] | None:
    """The labels without reading all items, where that is safe."""
    owner, rows = _rows(dataset, count)
    if _relabels(owner):
        return None
    if _is_torchvisions(owner, _SAMPLES):
        held = [whole_number(owner.samples[row][1]) for row in rows]  # pyright: ignore[reportAttributeAccessIssue]
    elif _is_torchvisions(owner, _TARGETS):
        held = [whole_number(owner.targets[row]) for row in rows]  # pyright: ignore[reportAttributeAccessIssue]
    else:
        return None
    some = sorted({i * (count - 1) // (_COMPARED - 1) for i in range(_COMPARED)})
    labels = [label for label in held if label is not None and label >= 0]
    agree = len(labels) == count and all(labels[row] == whole_number(item(dataset, row)[1]) for row in some)
    return labels if agree else None


def _relabels(dataset: Dataset) -> bool:
    """Whether one of torchvision's datasets was told to change its labels on the way out."""
    both = getattr(dataset, "transforms", None)
    changed = both is not None and type(both).__module__ != "torchvision.datasets.vision"
    return changed or getattr(dataset, "target_transform", None) is not None


def _read(dataset: Any, first: Sequence[object], count: int) -> list[int] | None:
    labels: list[int] = []
    for row in range(count):
        one = item(dataset, row) if row else first
        second = one[1] if isinstance(one, tuple | list) and len(one) > 1 else None
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


def _classes(dataset: Any, labels: Sequence[int]) -> tuple[str, ...] | None:
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


def _targets_agree(owner: Dataset, rows: Sequence[int], labels: Sequence[int]) -> bool:
    targets = getattr(owner, "targets", None)
    if targets is None:
        return True
    try:
        return [whole_number(targets[row]) for row in rows] == list(labels)
    except (IndexError, KeyError, TypeError, ValueError):
        return False
