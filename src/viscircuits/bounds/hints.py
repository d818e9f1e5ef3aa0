"""Kinds of values, by their type hints: whether a value may be meant as one, and what one is called in a message.

Only what is surely of another kind is refused; in doubt a value fits, because somebody else's number, path or list need
not be of a class that is known here.
"""

import numbers
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

from viscircuits.bounds.ranges import RANGES, is_number, is_whole
from viscircuits.store.checks import shown

SEQUENCES = (Sequence, Iterable, Iterator, tuple, list, set, frozenset)
"""What a hint of several values begins with."""

_LONGEST = 120
"""Characters of a value in a message."""

_WORDS: Mapping[object, str] = {
    int: "a whole number", float: "a number", str: "a text", bool: "True or False", types.NoneType: "None",
}  # fmt: skip


def members(hint: object) -> tuple[object, ...]:
    """Returns the kinds that a hint allows: the members of a union, or the hint alone."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    kinds: list[object] = []
    for member in get_args(hint):
        kinds += members(member)
    return tuple(kinds)


def fits(value: object, kind: object, name: str) -> bool:
    """Returns whether a value may be meant as one of a kind; in doubt it may.

    Args:
        value: what came.
        kind: one of `members`.
        name: of the argument.
    """
    origin = get_origin(kind)
    match kind:
        case None | types.NoneType:
            return value is None
        case _ if kind is bool:
            return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
        case _ if kind is int:
            return is_whole(value)
        case _ if kind is float:
            return is_number(value)
        case _ if kind is str:
            return isinstance(value, str)
        case type() if issubclass(kind, Path):
            return isinstance(value, os.PathLike)
        case _ if origin is Literal:
            # of the type alone: a word that is none of those gets a message with the closest one
            return any(type(value) is type(choice) for choice in get_args(kind))
        case _ if origin is Callable or kind is Callable:
            return callable(value) and not isinstance(value, type(None))
        case _ if origin in (Mapping, dict):
            return isinstance(value, Mapping) and _are(value.values(), get_args(kind)[1:], name)
        case _ if origin in SEQUENCES:
            return _is_items(value, kind, name)
        case type():
            return _is_instance(value, kind, name)
    return True  # Any, type variables, what only a type checker knows


def _fits_any(value: object, hint: object, name: str) -> bool:
    return any(fits(value, kind, name) for kind in members(hint))


def _is_items(value: object, kind: object, name: str) -> bool:
    """Whether a value is a series of items, each of the kind that is listed; what can be read once is not read here."""
    if isinstance(value, Mapping) and get_origin(kind) is not Iterable:  # of its names, there
        return False
    # a text is a series of texts to Python, but nobody who gives "abc" means three of them
    if isinstance(value, str | bytes) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        return False
    items = get_args(kind)
    if not items or not isinstance(value, list | tuple):
        return True
    if get_origin(kind) is tuple and Ellipsis not in items:
        pairs = zip(value, items, strict=False)
        return len(value) == len(items) and all(_fits_any(one, item, name) for one, item in pairs)
    return all(_fits_any(one, items[0], name) for one in value)


def _are(values: Iterable[object], kinds: Sequence[object], name: str) -> bool:
    """Whether the values of a mapping are of the kind that is said, if one is."""
    return not kinds or all(_fits_any(one, kinds[0], name) for one in values)


def _is_instance(value: object, kind: type, name: str) -> bool:
    array = getattr(kind, "array_type", None)  # of a jaxtyping annotation, which says the number of axes too
    if isinstance(array, type):
        axes = None if getattr(kind, "index_variadic", 0) is not None else len(getattr(kind, "dims", ()))
        return isinstance(value, array) and axes in (None, getattr(value, "ndim", None))
    try:
        # other things of torch, such as an exported program, have a message of their own where a model is traced
        return isinstance(value, kind) or (name == "model" and type(value).__module__.startswith("torch."))
    except TypeError:  # a protocol that cannot be asked
        return True


def named(value: object) -> str:
    """Returns a value as a message shows it; of things without a short text their type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if (axes := getattr(value, "shape", None)) is not None:
        return f"a {type(value).__name__} of shape {tuple(axes)}"
    plain = value is None or isinstance(value, bool | numbers.Number | str | bytes | list | tuple | dict | set)
    if not plain or hasattr(value, "_fields"):
        return f"a {type(value).__name__}"
    text = " ".join(shown(value).split())  # what a list holds may show itself in several lines
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def described(kinds: Sequence[object], name: str) -> str:
    """Returns kinds in words, each once; numbers with the range of the argument's name."""
    return " or ".join(dict.fromkeys(_word(kind, name) for kind in kinds))


def _word(kind: object, name: str) -> str:
    origin = get_origin(kind)
    if kind in (int, float) and name in RANGES:
        return RANGES[name].expected
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if origin is Callable or kind is Callable:
        return "a function"
    if origin in (Mapping, dict):
        return "a mapping"
    if origin in SEQUENCES:
        items = [item for item in get_args(kind) if item is not Ellipsis]
        # without the name, whose range is said of the items where they are looked at
        inner = described(members(items[0]), "") if items else ""
        return "a list" + (f" (of {inner})" if inner else "")
    array = getattr(kind, "array_type", None)
    if isinstance(array, type):
        return f"a {array.__name__} of axes [{getattr(kind, 'dim_str', '...').strip()}]"
    if kind in _WORDS:
        return _WORDS[kind]
    return f"a {kind.__name__}" if isinstance(kind, type) else str(kind)
