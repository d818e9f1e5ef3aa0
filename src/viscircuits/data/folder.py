"""Which files of a folder are pictures, and of what class.

Convention: torchvision's ``ImageFolder``, sub-folders are classes in sorted order. Two differences: a folder without
sub-folders is fine (no classes), and a class folder without pictures keeps its number instead of being an error.
"""

import os
from collections import Counter
from pathlib import Path

from viscircuits.errors import ImageError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif")
)
"""Endings of the file names that count as pictures, in either case of letters."""


def scan(root: Path) -> tuple[list[Path], list[str]]:
    """Returns the pictures of a folder in order, and its class folders (none if the pictures lie in it directly)."""
    if root.is_file():
        raise ImageError(f"expected a folder, got the file {str(root)!r}; use ImageSet.from_files")
    if not root.is_dir():
        raise ImageError(f"no folder {str(root)!r}")
    entries = sorted(entry for entry in os.listdir(root) if not entry.startswith("."))
    flat = [root / entry for entry in entries if _is_picture(entry) and (root / entry).is_file()]
    classes = [entry for entry in entries if (root / entry).is_dir()]
    nested = [path for name in classes for path in _below(root / name)]
    if flat and nested:
        raise ImageError(
            f"{str(root)!r} holds pictures (such as {flat[0].name!r}) beside folders with pictures "
            f"(such as {str(nested[0].relative_to(root))!r}); expected pictures only, or one sub-folder a class"
        )
    if not flat and not nested:
        raise ImageError(f"no pictures in {str(root)!r}: it holds {_held(root)}; expected {' '.join(sorted(SUFFIXES))}")
    return (flat, []) if flat else (nested, classes)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _below(folder: Path) -> list[Path]:
    found = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(where, name) for name in files if _is_picture(name)]
    return [Path(name) for name in sorted(found)]


def _held(root: Path) -> str:
    seen = Counter(file.suffix or file.name for file in root.rglob("*") if file.is_file())
    return ", ".join(f"{count} {suffix}" for suffix, count in seen.most_common(3)) or "no files"
