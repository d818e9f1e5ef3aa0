"""Labels of pictures: whole numbers from 0 up, which stand for classes by their place.

Not here: which labels a dataset holds (`viscircuits.data.datasets`), and which output of a model judges a class
(`viscircuits.data.classes`).
"""

import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

import numpy as np
from torch import Tensor

from viscircuits.errors import ImageError, closest

Labels = Iterable[SupportsIndex]
"""Class numbers: a list, an array or a 1-D tensor."""

_LONGEST = 40
"""Characters of a value that are shown."""


def whole_number(value: object) -> int | None:
    """Returns a number that is whole by its type, also one in an array or tensor by itself; None for all else."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if np.prod(value.shape) != 1:
            return None
        value = value.item()
    try:
        # by its type: 1.0 is none, as a float is a measurement and no class
        return int(operator.index(value)) if isinstance(value, SupportsIndex) else None
    except TypeError:  # of a class: it has the method too
        return None


def whole_numbers(labels: Iterable[object]) -> tuple[int, ...]:
    """Returns labels as plain numbers; an `ImageError` for the first that is none."""
    numbers: list[int] = []
    for label in labels:
        number = whole_number(label)
        if number is None:
            raise ImageError(f"expected whole numbers as labels, got {described(label)}")
        numbers.append(number)
    return tuple(numbers)


def check_labels(labels: Sequence[int], class_names: Sequence[str] | None, count: int) -> None:
    """Raises an `ImageError` where labels do not fit their pictures.

    Args:
        labels: one a picture, if they fit.
        class_names: the class of every label, where there are names.
        count: number of pictures.
    """
    if len(labels) != count:
        raise ImageError(f"expected one label a picture ({count}), got {len(labels)}")
    low, high = min(labels), max(labels)
    if low < 0:
        raise ImageError(f"expected labels from 0 up, got {low}")
    if class_names is not None and high >= len(class_names):
        raise ImageError(f"expected labels below {len(class_names)} (the number of class names), got {high}")


def indices_of(names: Iterable[str], labels: Sequence[int] | None, class_names: Sequence[str] | None) -> list[int]:
    """Returns the places of the labels that stand for some classes, in order.

    Args:
        names: of the wanted classes.
        labels: one a picture.
        class_names: the class of every label.

    Raises:
        ImageError: classes have no names here, there is none of a name, or no picture is in one.
    """
    if labels is None or class_names is None:
        raise ImageError(
            "expected pictures with named classes; use from_folder on a folder with one sub-folder a class"
        )
    wanted = set(names)
    for name in sorted(wanted - set(class_names)):
        raise ImageError(f"no class {name!r} among {len(class_names)} classes{closest(name, class_names)}")
    places = [i for i, label in enumerate(labels) if class_names[label] in wanted]
    if not places:
        raise ImageError(f"no picture here is in {', '.join(sorted(wanted)) or 'an empty list of classes'}")
    return places


def described(value: object) -> str:
    """Returns a few words for a value that is no class number."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, int | float | str | Tensor | np.generic | None):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"a {type(value).__name__}"
