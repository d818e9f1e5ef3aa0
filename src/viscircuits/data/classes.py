"""Which output of a model judges a picture: class folders are counted from 0, a model's outputs by its training.

The two are the same only where there is a class for every output. Where there is not, folders are matched by their
names, to ImageNet's wnids and to the categories that the model's weights state; else nobody can know.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from weakref import WeakSet

from viscircuits.data.images import ImageSet
from viscircuits.data.wnids import wnids
from viscircuits.errors import ImageError

log = logging.getLogger(__name__)

_SHOWN = 3
_logged: "WeakSet[ImageSet]" = WeakSet()
"""Sets whose matching was logged, which is said once for each."""


def by_output(images: ImageSet, n_outputs: int, categories: Sequence[str] | None = None) -> ImageSet:
    """Returns the pictures with the number of the output that judges each as its label.

    Labels without class names are taken to be that already.

    Args:
        images: pictures, perhaps with labels and class names.
        n_outputs: how many outputs the model has; one is a binary classifier's logit, which judges two classes.
        categories: what the outputs stand for, where that is known.

    Raises:
        ImageError: classes and outputs do not match one to one, nor do the names say which is which.
    """
    if images.labels is None or images.class_names is None:
        return images
    numbers = output_numbers(images.class_names, n_outputs, categories)
    labels = tuple(numbers[label] for label in images.labels)
    if labels == images.labels:
        return images
    if images not in _logged:
        _logged.add(images)
        log.warning("classes are matched to the model's outputs by their names: %s", _listed(images, labels))
    return images.labelled(labels)


def output_numbers(names: Sequence[str], n_outputs: int, categories: Sequence[str] | None) -> list[int]:
    """Returns the number of the output of every class.

    Args:
        names: of the classes.
        n_outputs: how many outputs the model has; one judges two classes.
        categories: what the outputs stand for, where that is known.

    Raises:
        ImageError: it cannot be known.
    """
    # names come before numbers: a data set with a folder for every class may still have them in another order
    for known in (wnids(), categories or ()):
        if len(known) == n_outputs and (places := _places(names, known)) is not None:
            return places
    if len(names) == n_outputs or (n_outputs == 1 and len(names) == 2):
        return list(range(len(names)))
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    raise ImageError(
        f"the pictures have {len(names)} classes ({shown}) and the model has {n_outputs} outputs, so that which output "
        f"judges which class is not known; say it with images.labelled(labels, names), where labels are the numbers of "
        f"the outputs and names one an output, or with --classes FILE (lines of folder, output number)"
    )


def _places(names: Sequence[str], known: Sequence[str]) -> list[int] | None:
    """The places of all names in a list of known ones; None if one is not there, or is there twice."""
    plain = [_plain(name) for name in known]
    once = {name for name, count in Counter(plain).items() if count == 1}
    wanted = [_plain(name) for name in names]
    if not once.issuperset(wanted):
        return None
    place = {name: i for i, name in enumerate(plain)}
    return [place[name] for name in wanted]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()


def _listed(images: ImageSet, labels: Sequence[int]) -> str:
    assert images.class_names is not None
    pairs = sorted({(images.class_names[own], new) for own, new in zip(images.labels or (), labels, strict=True)})
    shown = ", ".join(f"{name!r} is output {new}" for name, new in pairs[:_SHOWN])
    return shown + (f", and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else "")
