"""Reading the pictures that a command line names, and the file that says which class is which output."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from viscircuits.bounds.places import regular
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.errors import ImageError, closest


def read_pictures(
    path: Path,
    prepare: Prepare,
    *,
    unreadable: Literal["error", "skip"] = "error",
    white: float | None = None,
    classes: Mapping[str, int] | None = None,
    up_to: int | None = None,
) -> ImageSet:
    """Returns the pictures of a folder, or the one in a file; with classes, their labels are numbers of outputs.

    Args:
        path: a folder of pictures or of class folders, or a file.
        prepare: makes each picture what the model takes.
        unreadable: whether a damaged picture is an error or left out.
        white: the value that is white in pictures of more than 8 bits.
        classes: class folder -> number of the output that judges it.
        up_to: the most pictures that a folder may hold; see `ImageSet.from_folder`.
    """
    if path.is_file():
        images = ImageSet.from_files(path, prepare, white=white)
    else:
        images = ImageSet.from_folder(path, prepare, unreadable=unreadable, white=white, up_to=up_to)
    return images if classes is None else _judged(images, classes, path)


def _judged(images: ImageSet, classes: Mapping[str, int], path: Path) -> ImageSet:
    if images.labels is None or images.class_names is None:
        raise ImageError(f"--classes names class folders, and {str(path)!r} has none; leave it out")
    # first, because the look-up below would raise a KeyError that names no option
    for name in images.class_names:
        if name not in classes:
            raise ImageError(f"--classes says nothing of the class folder {name!r}{closest(name, classes)}")
    return images.labelled(classes[images.class_names[label]] for label in images.labels)


def read_classes(path: Path) -> dict[str, int]:
    """Returns class folder -> number of the output that judges it, from lines of both, with a comma or tab between."""
    regular(path, "--classes", ImageError)
    try:
        # utf-8-sig: spreadsheets put a mark in front, which would become part of the first class's name
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"cannot read --classes {str(path)!r} ({error}); expected lines of folder, number") from None
    numbers: dict[str, int] = {}
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        # from the right: the name of a folder may have commas, a number has none
        name, _, number = (part.strip().strip('"') for part in line.replace("\t", ",").rpartition(","))
        if not name or not re.fullmatch("[0-9]{1,18}", number) or name in numbers:
            raise ImageError(
                f"line {place} of {str(path)!r} is {line.strip()!r}; expected a class folder, a comma and the number "
                f"of its output (counted from 0), every folder once"
            )
        numbers[name] = int(number)
    if not numbers:
        raise ImageError(f"{str(path)!r} is empty; expected lines of class folder, number of its output")
    return numbers
