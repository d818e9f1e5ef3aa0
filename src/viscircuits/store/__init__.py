"""What is kept in files: written whole or not at all, checked whenever it is read. Knows no domain word.

The names that are used most stand here: ``from viscircuits import store; store.write_json(...)``. Those that need torch
are looked up when they are first used, so that a study is read without it.
"""

from typing import TYPE_CHECKING

from viscircuits.store.digests import digest, spelled
from viscircuits.store.document import Json, parsed, read_json, write_json
from viscircuits.store.files import atomic, damaged, inside, parsing, read_bytes, stays, uninterrupted

if TYPE_CHECKING:
    from viscircuits.store.tensors import load, read_tensors, save, write_tensors

__all__ = [
    "Json", "atomic", "damaged", "digest", "inside", "load", "parsed", "parsing", "read_bytes", "read_json",
    "read_tensors", "save", "spelled", "stays", "uninterrupted", "write_json", "write_tensors",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in ("load", "read_tensors", "save", "write_tensors"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from viscircuits.store import tensors

    return getattr(tensors, name)
