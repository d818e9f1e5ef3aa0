"""What the fields of a JSON header have to be, said once and checked whenever a file is read.

Files come from strangers, get cut and rot on disks. Whatever is read from one has the type and the range that its kind
says, or is refused in one line, before anything is made of it. A `Check` never raises, whatever the value.

Not here: what tensors have to be, and whole files of a kind (`viscircuits.store.kinds`).
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

Fields = Mapping[str, Any]
"""A JSON header whose fields have been checked."""

_MOST = 2**63 - 1
"""The largest whole number: what tables and tensors hold."""

# a value out of a file may be long, of several lines, or hold control characters; repr escapes, and this one cuts
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def shown(value: object) -> str:
    """Returns a value of a file as a message shows it: short, on one line, without control characters."""
    return _SHORT.repr(value)


@dataclass(frozen=True)
class Check:
    """What a value of a JSON header has to be.

    Args:
        expected: in words.
        holds: whether a value is so; it raises nothing, whatever the value.
        needed: whether the field has to be there.
    """

    expected: str
    holds: Callable[[object], bool]
    needed: bool = True


TEXT = Check("a text", lambda value: isinstance(value, str))
FLAG = Check("true or false", lambda value: isinstance(value, bool))


def whole(least: int = 0, most: int = _MOST) -> Check:
    """Returns the check for a whole number in a range; ``true`` is none."""
    words = f"a whole number from {least:,} to {most:,}"
    # type() and not isinstance, because True is an int to Python
    return Check(words, lambda value: type(value) is int and least <= value <= most)


def number(least: float = -math.inf, most: float = math.inf, *, above: bool = False, nan: bool = False) -> Check:
    """Returns the check for a finite number in a range.

    Args:
        least: the lower end.
        most: the upper end, which is in the range.
        above: whether the lower end is not.
        nan: whether nan is allowed too.
    """
    words = "a finite number"
    if not math.isinf(least):
        words += f" {'above' if above else 'from'} {least:g}"
    if not math.isinf(most):
        words += f" to {most:g}"

    def holds(value: object) -> bool:
        if type(value) is int:
            # other programs write 1.0 as 1; float() raises on whole numbers beyond its range
            value = float(value) if abs(value) <= _MOST else math.inf
        if type(value) is not float:
            return False
        if not math.isfinite(value):
            return nan and math.isnan(value)
        return (least < value if above else least <= value) and value <= most

    return Check(words, holds)


FRACTION = number(0.0, 1.0, above=True)
"""The check for a density."""


def one_of(*values: object) -> Check:
    """Returns the check for one of some values, of the same type too: ``true`` is not 1."""
    # in a list, because a value out of a file may be a list itself, which no set takes
    known = [(type(value), value) for value in values]
    return Check(f"one of {', '.join(map(shown, values))}", lambda value: (type(value), value) in known)


def listed(each: Check, least: int = 0, most: int = _MOST, *, distinct: bool = False) -> Check:
    """Returns the check for a list.

    Args:
        each: what each item has to be.
        least: the fewest items.
        most: the most items.
        distinct: whether no two may be equal; for texts and numbers.
    """

    def holds(value: object) -> bool:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            return False
        # each first: only of texts and numbers, which it then is, can a set be made
        return all(map(each.holds, value)) and (not distinct or len(set(value)) == len(value))

    return Check(f"a list{' without doubles' if distinct else ''} of {each.expected}", holds)


def mapped(each: Check) -> Check:
    """Returns the check for an object of which every value passes a check."""
    return Check(
        f"an object of {each.expected}", lambda value: isinstance(value, dict) and all(map(each.holds, value.values()))
    )


def record(**fields: Check) -> Check:
    """Returns the check for an object of exactly these fields."""
    words = ", ".join(f"{name} ({check.expected})" for name, check in fields.items())
    return Check(f"an object of {words}", lambda value: not wrong(fields, value))


def row(*checks: Check) -> Check:
    """Returns the check for a list of so many values, each of its own kind."""
    return Check(
        f"[{', '.join(check.expected for check in checks)}]",
        lambda value: (
            isinstance(value, list | tuple)
            and len(value) == len(checks)
            and all(check.holds(one) for check, one in zip(checks, value, strict=True))
        ),
    )


def optional(check: Check) -> Check:
    """Returns the check for something or ``null``."""
    return Check(f"{check.expected}, or null", lambda value: value is None or check.holds(value))


def maybe(check: Check) -> Check:
    """Returns the check of a field that may be missing."""
    return replace(check, needed=False)


def sizes(axes: int, most: int) -> Check:
    """Returns the check for the shape of an array: so many axes, of at least 1 and with so many elements in all."""
    # each size has the bound of their product too, so that only bounded numbers are multiplied
    several = listed(whole(1, most), axes, axes)

    def holds(value: object) -> bool:
        return isinstance(value, list | tuple) and several.holds(value) and math.prod(value) <= most

    return Check(f"{axes} sizes of at least 1, of at most {most:,} elements", holds)


IMAGE = sizes(3, 2**26)
"""The check for the shape ``(c, h, w)`` of a picture: it decides how much memory a run takes."""


def wrong(fields: Mapping[str, Check], value: object) -> str:
    """Returns what is wrong with a JSON object, in words; empty where it has these fields, each of its kind."""
    if not isinstance(value, dict):
        return f"expected an object, got {shown(value)}"
    for name, check in fields.items():
        if name not in value:
            if check.needed:
                return f"field {name!r} is missing"
        elif not check.holds(value[name]):
            return f"field {name!r}: expected {check.expected}, got {shown(value[name])}"
    # a field that is not known might change what the others mean, as a newer version wrote it
    other = next((name for name in value if name not in fields), None)
    return "" if other is None else f"unknown field {shown(other)}"
