"""JSON documents: written whole, and read as a file of ours can be: with bounds on size and depth, each key once.

Not here: what the fields of a document may be (`viscircuits.store.checks`).
"""

import json
from pathlib import Path
from typing import Any

from viscircuits.errors import StudyError
from viscircuits.store.files import atomic, one_line, read_bytes

Json = None | bool | int | float | str | list[Any] | dict[str, Any]
"""Any value of JSON."""

DEEPEST = 64
"""How many lists and objects may stand within one another."""


def write_json(path: str | Path, value: Json, *, new: bool = False) -> None:
    """Writes indented JSON with a final newline, atomically.

    Args:
        path: the file.
        value: what it is to hold.
        new: whether the file has to be new; see `viscircuits.store.files.atomic`.
    """
    with atomic(path, new=new) as own:
        own.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Json:
    """Returns the JSON value in a file.

    Raises:
        StudyError: the file is missing or damaged; the text names it.
    """
    try:
        return parsed(read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{str(path)!r} is not valid JSON ({one_line(error)}); delete it and run the command again"
        ) from None


def parsed(text: str) -> Json:
    """Returns the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is none, or holds what no file of ours does: a key twice, texts that are no
            Unicode or with a zero in them, numbers or nesting without end.
    """
    value: Json = json.loads(text, object_pairs_hook=_once)
    # level by level instead of by recursion, which a deep file would drive to the end of Python's stack
    level = [value]
    for _ in range(DEEPEST):
        deeper: list[Json] = []
        for one in level:
            if isinstance(one, str):
                _check_text(one)
            elif isinstance(one, list):
                deeper += one
            elif isinstance(one, dict):
                for key in one:
                    _check_text(key)
                deeper += one.values()
        if not deeper:
            return value
        level = deeper
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def _check_text(text: str) -> None:
    # the system ends a file name at a zero, so that a checked name and the one that is opened could differ
    if "\0" in text:
        raise ValueError("a text holds a zero character")
    # JSON can escape half of a surrogate pair: such a text is read well and fails only where it is written or printed
    text.encode()


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    fields = dict(pairs)
    if len(fields) < len(pairs):  # of two values Python keeps the last and other readers the first
        raise ValueError("a key stands twice in an object")
    return fields
