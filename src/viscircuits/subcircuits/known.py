"""Numbers that were measured before, kept in a file, so that interrupted work goes on where it stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viscircuits import store
from viscircuits.store.checks import TEXT, mapped, maybe, number, whole, wrong

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
        if path is not None and path.exists():
            self._numbers = _read(path, recipe)

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
            numbers: dict[str, store.Json] = dict(self._numbers)
            # numbers decide verdicts, and a file of numbers looks right whatever is in it
            sealed = store.digest(self._recipe, json.dumps(numbers))
            store.write_json(
                self._path, {"format": FORMAT, "recipe": self._recipe, "numbers": numbers, "digest": sealed}
            )
        self._new = False


_FIELDS = {"format": whole(), "recipe": TEXT, "numbers": mapped(number(nan=True)), "digest": maybe(TEXT)}


def _read(path: Path, recipe: str) -> dict[str, float]:
    """The numbers of a file; none where it is of another recipe or version."""
    content: Any = store.read_json(path)
    if not isinstance(content, dict) or (content.get("format"), content.get("recipe")) != (FORMAT, recipe):
        return {}
    if what := wrong(_FIELDS, content):
        raise store.damaged(path, what)
    if content.get("digest") not in (None, store.digest(recipe, json.dumps(content["numbers"]))):
        raise store.damaged(path, "its content is not what its digest says")
    return {name: float(value) for name, value in content["numbers"].items()}
