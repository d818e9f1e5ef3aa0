"""Numbers that were measured before, kept in a file, so that interrupted work goes on where it stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viscircuits import store

FORMAT = 1
"""Version of the file; one of another version is not read."""


class Known:
    """Numbers by the name of what they are of.

    Args:
        recipe: all that decides them beside their names; a file of another recipe is not read.
        path: where they are kept between runs; nowhere where None.
    """

    def __init__(self, recipe: str, path: Path | None = None) -> None:
        self._recipe, self._path, self._new = recipe, path, False
        self._numbers: dict[str, float] = {}
        if path is not None and path.is_file():
            found: Any = store.read_json(path)
            if isinstance(found, dict) and (found.get("format"), found.get("recipe")) == (FORMAT, recipe):
                self._numbers = found["numbers"]

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, numbers: Mapping[str, float]) -> None:
        """Takes in more numbers."""
        self._numbers.update(numbers)
        self._new = True

    def save(self) -> None:
        """Writes what is new, atomically."""
        if self._path is not None and self._new:
            store.write_json(self._path, {"format": FORMAT, "recipe": self._recipe, "numbers": dict(self._numbers)})
        self._new = False
