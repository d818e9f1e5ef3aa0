"""What a study shows of itself: a stranger's, and one whose folder is gone, as well as one's own.

Files are counted by their names and none is opened: a study may be large, or damaged.
"""

from pathlib import Path

from viscircuits import store
from viscircuits.card import Card
from viscircuits.study import names
from viscircuits.study.spec import Header


def card(path: Path, header: Header) -> Card:
    """Returns the card of a study."""
    asked = {**header.spec.in_short(), "begun": f"{header.created} with {header.versions}"}
    if not path.is_dir():
        return Card("Study", {"folder": f"{path} (gone)", **asked})
    table = path / names.MEASUREMENTS
    return Card("Study", {
        "folder": path, **asked,
        "table": "there" if store.stays(path, table) and table.is_file() else "not measured yet",
        "circuits": _count(path, names.CIRCUITS, ".safetensors"), "findings": _count(path, names.FINDINGS),
    })  # fmt: skip


def _count(path: Path, folder: str, ending: str = "") -> int | None:
    """How many files or folders stand there; None where none do."""
    # a link may lead anywhere, and what is there is no part of the study
    if not store.stays(path, path / folder):
        return None
    every = (file.name for file in (path / folder).glob("*"))
    return sum(name.endswith(ending) and not names.is_hidden(name) for name in every) or None
