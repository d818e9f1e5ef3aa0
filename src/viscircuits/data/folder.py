"""Which files of a folder are pictures, and of what class.

Convention: torchvision's ``ImageFolder``, sub-folders are classes in sorted order. Its differences:

- A folder without sub-folders is fine (no classes), and a class folder without pictures keeps its number.
- Classes that are all named by whole numbers stand in the order of these numbers: 2 before 10, 007 between 6 and 8.
- Hidden and system entries (`SYSTEM`) are neither classes nor pictures, at any depth.
- What really lies in the folder is walked first. A link to a folder is followed afterwards, and only to a folder that
  was not walked yet and that does not hold this one; other links are left out, as classes too, and the log says so.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from viscircuits.bounds.places import what_is
from viscircuits.errors import ImageError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif")
)
"""Endings of the file names that count as pictures, in either case of letters."""
SYSTEM = frozenset(("__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db"))
"""Names, in lower case, of what operating systems and storage devices leave behind."""

log = logging.getLogger(__name__)

Walked = dict[str, list[str]]
"""By folder, as a path: the names of the files in it."""

_OTHERS, _OTHERS_EACH = 100_000, 10
"""How much else may be met in a folder that somebody else names: at all, and more for every picture."""


def scan(root: Path, most: int | None = None) -> tuple[list[Path], list[str]]:
    """Returns the pictures of a folder in order, and its class folders (none if the pictures lie in it directly).

    Given ``most``, the search ends with an ImageError as soon as it has met more pictures, or very many other entries
    and hardly a picture, as in ``/`` and ``/proc``.
    """
    if root.is_file():
        raise ImageError(f"expected a folder, got the file {str(root)!r}; use ImageSet.from_files")
    if not root.is_dir():
        if kind := what_is(root):
            raise ImageError(f"expected a folder of pictures, but {str(root)!r} is {kind}")
        raise ImageError(f"no folder {str(root)!r}")
    try:
        walked, left_out = _walk(str(root), _Allowed(str(root), most))
    except RecursionError:  # before Python 3.12 os.walk calls itself for a folder within a folder
        raise ImageError(f"{str(root)!r} holds folders within folders without end; expected pictures") from None
    flat = [root / name for name in sorted(walked[str(root)]) if _is_picture(name) and (root / name).is_file()]
    by_class = _by_class(root, walked)
    classes = _ordered(by_class)
    nested = [Path(path) for name in classes for path in sorted(by_class[name])]
    if flat and nested:
        raise ImageError(
            f"{str(root)!r} holds pictures (such as {flat[0].name!r}) beside folders with pictures "
            f"(such as {str(nested[0].relative_to(root))!r}); expected pictures only, or one sub-folder a class"
        )
    if not flat and not nested:
        raise ImageError(f"no pictures in {str(root)!r}: it holds {_held(walked)}; expected {_expected()}")
    if left_out:
        log.warning("%d links not followed, as they lead where the search has been: %s", len(left_out), left_out[0])
    return (flat, []) if flat else (nested, classes)


def existing(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """Returns the paths of picture files; an `ImageError` for the first that is a folder or is not there."""
    files = tuple(map(Path, paths))
    for file in files:
        if file.is_dir():
            raise ImageError(f"expected picture files, got the folder {str(file)!r}; use ImageSet.from_folder")
        if not file.is_file():
            raise ImageError(f"no file {str(file)!r}")
    return files


@dataclass
class _Allowed:
    """What a search may still meet."""

    root: str
    most: int | None
    pictures: int = 0
    others: int = 0

    def meet(self, folders: Sequence[str], files: Sequence[str]) -> None:
        if self.most is None:
            return
        pictures = sum(map(_is_picture, files))
        self.pictures += pictures
        self.others += len(folders) + len(files) - pictures
        if self.pictures > self.most:
            raise ImageError(f"expected at most {self.most:,} pictures in {self.root!r}, met more")
        if self.others > _OTHERS + _OTHERS_EACH * self.pictures:
            raise ImageError(f"expected pictures in {self.root!r}, met {self.others:,} other files and folders")


def _walk(root: str, allowed: _Allowed) -> tuple[Walked, list[str]]:
    """All folders of the tree, each once, and the links that lead to a folder seen before."""
    real = os.path.realpath(root)
    seen = {str(parent) for parent in Path(real).parents}  # a link to one of these leads back here
    walked: Walked = {}
    left_out: list[str] = []
    links = [root]
    while links:
        met: list[str] = []
        for link in sorted(links):
            if os.path.realpath(link) in seen:
                left_out.append(link)
            else:
                met += _walk_real(link, seen, walked, allowed)
        links = met
    return walked, left_out


def _walk_real(top: str, seen: set[str], walked: Walked, allowed: _Allowed) -> list[str]:
    """Adds a folder and all that really lies in it; returns the links to folders met there."""
    links: list[str] = []
    for where, folders, files in os.walk(top):
        allowed.meet(folders, files)
        seen.add(os.path.realpath(where))
        walked[where] = [name for name in files if not _is_system(name)]
        inside = [(name, os.path.join(where, name)) for name in folders if not _is_system(name)]
        links += [path for _, path in inside if os.path.islink(path)]
        # os.walk goes on into what stands in this very list
        folders[:] = [n for n, path in inside if not os.path.islink(path) and os.path.realpath(path) not in seen]
    return links


def _by_class(root: Path, walked: Walked) -> dict[str, list[str]]:
    """The pictures below each folder of the first level."""
    classes: dict[str, list[str]] = {}
    for where, files in walked.items():
        if parts := Path(where).relative_to(root).parts:
            pictures = classes.setdefault(parts[0], [])  # a class without pictures keeps its number
            pictures += [os.path.join(where, name) for name in files if _is_picture(name)]
    return classes


def _ordered(classes: dict[str, list[str]]) -> list[str]:
    """The classes as numbers where all are; else as text, as torchvision has it, which may part numbers."""
    numbers = [name for name in classes if re.fullmatch("-?[0-9]+", name)]
    by_value = sorted(numbers, key=lambda name: (int(name), name))
    if len(numbers) == len(classes):
        return by_value
    text = sorted(classes)
    if [name for name in text if name in numbers] != by_value:
        other = next(name for name in text if name not in numbers)
        log.warning("class folders stand in the order of text, which is not that of numbers, as %r is no number", other)
    return text


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _expected() -> str:
    return " ".join(sorted(SUFFIXES))


def _held(walked: Walked) -> str:
    seen = Counter(os.path.splitext(name)[1] or name for files in walked.values() for name in files)
    return ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(3)) or "no files"
