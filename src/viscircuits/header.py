"""What files hold, said once for each kind and checked whenever one is read: the fields of a header, and tensors.

Files come from strangers, get cut and rot on disks. Whatever is read from one has the type, the range and the shape
that its kind says, or is refused in one line, before anything is made of it. Knows no domain word: kinds are declared
where their files are written.
"""

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Fields = Mapping[str, Any]
"""A JSON header whose fields have been checked."""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BOOLS = (torch.bool,)
INTS = (torch.int64,)

_MOST = 2**63 - 1
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
    holds: Callable[[Any], bool]
    needed: bool = True


TEXT = Check("a text", lambda value: isinstance(value, str))
FLAG = Check("true or false", lambda value: isinstance(value, bool))


def whole(least: int = 0, most: int = _MOST) -> Check:
    """Returns the check for a whole number in a range; ``true`` is none."""
    said = f"a whole number from {least:,} to {most:,}"
    return Check(said, lambda value: type(value) is int and least <= value <= most)


def number(least: float = -math.inf, most: float = math.inf, *, above: bool = False, nan: bool = False) -> Check:
    """Returns the check for a finite number in a range, without its lower end if ``above``; nan only where said."""
    span = "" if math.isinf(least) else f" {'above' if above else 'from'} {least:g}"
    span += "" if math.isinf(most) else f" to {most:g}"

    def holds(value: Any) -> bool:
        if type(value) is int:
            value = float(value) if abs(value) <= _MOST else math.inf
        if type(value) is not float or not math.isfinite(value):
            return nan and type(value) is float and math.isnan(value)
        return (least < value if above else least <= value) and value <= most

    return Check(f"a finite number{span}", holds)


FRACTION = number(0.0, 1.0, above=True)
"""The check for a density."""


def one_of(*values: object) -> Check:
    """Returns the check for one of some values, of the same type too: ``true`` is not 1."""
    known = [(type(value), value) for value in values]
    return Check(f"one of {', '.join(map(shown, values))}", lambda value: (type(value), value) in known)


def listed(each: Check, least: int = 0, most: int = _MOST, *, distinct: bool = False) -> Check:
    """Returns the check for a list; of texts or numbers where they have to be distinct."""

    def holds(value: Any) -> bool:
        good = isinstance(value, list | tuple) and least <= len(value) <= most and all(map(each.holds, value))
        return good and not (distinct and len(set(value)) < len(value))

    return Check(f"a list{' without doubles' if distinct else ''} of {each.expected}", holds)


def mapped(each: Check) -> Check:
    """Returns the check for an object of which every value passes a check."""
    return Check(
        f"an object of {each.expected}", lambda value: isinstance(value, dict) and all(map(each.holds, value.values()))
    )


def record(**fields: Check) -> Check:
    """Returns the check for an object of exactly these fields."""
    said = ", ".join(f"{name} ({check.expected})" for name, check in fields.items())
    return Check(f"an object of {said}", lambda value: not wrong(fields, value))


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
    each = whole(1, most)
    return Check(
        f"{axes} sizes of at least 1, of at most {most:,} elements",
        lambda value: listed(each, axes, axes).holds(value) and math.prod(value) <= most,
    )


IMAGE = sizes(3, 2**26)
"""The check for the shape ``(c, h, w)`` of a picture: it decides how much memory a run takes."""


def wrong(fields: Mapping[str, Check], value: Any) -> str:
    """Returns what is wrong with a JSON object, in words; empty where it has these fields, each of its kind."""
    if not isinstance(value, dict):
        return f"expected an object, got {shown(value)}"
    for name, check in fields.items():
        if name not in value:
            if check.needed:
                return f"field {name!r} is missing"
        elif not check.holds(value[name]):
            return f"field {name!r}: expected {check.expected}, got {shown(value[name])}"
    other = next((name for name in value if name not in fields), None)
    return "" if other is None else f"unknown field {shown(other)}"


@dataclass(frozen=True)
class Array:
    """What a tensor has to be.

    Args:
        dtypes: which it may have.
        axes: for each axis its size, or a name; axes of one name have one size in all of a file's tensors. ``*name``
            at the end stands for any number of axes.
        least, most: the range of its values.
        nan: whether a value may be nan; infinite none may be.
    """

    dtypes: tuple[torch.dtype, ...]
    axes: tuple[str | int, ...]
    least: float = -math.inf
    most: float = math.inf
    nan: bool = False

    def wrong(self, tensor: Tensor, known: dict[str, tuple[int, ...]]) -> str:
        """Returns what is wrong with a tensor, in words, or nothing; adds the sizes of its axes to those known."""
        if tensor.dtype not in self.dtypes:
            return f"expected {_joined(self.dtypes)}, got {tensor.dtype}"
        if not self._fits(tuple(tensor.shape), known):
            wanted = [axis if isinstance(axis, int) else known.get(axis, axis) for axis in self.axes]
            return f"expected the shape {shown(wanted)}, got {list(tensor.shape)}"
        if tensor.dtype == torch.bool or tensor.numel() == 0:
            return ""
        values = tensor[~tensor.isnan()] if self.nan else tensor
        if not bool(values.isfinite().all()):
            return "expected finite values"
        if values.numel() and not (self.least <= values.min().item() and values.max().item() <= self.most):
            return f"expected values from {self.least:g} to {self.most:g}"
        return ""

    def _fits(self, shape: tuple[int, ...], known: dict[str, tuple[int, ...]]) -> bool:
        for i, axis in enumerate(self.axes):
            if isinstance(axis, int):
                if shape[i : i + 1] != (axis,):
                    return False
                continue
            own = shape[i:] if axis.startswith("*") else shape[i : i + 1]
            if (not own and not axis.startswith("*")) or known.setdefault(axis, own) != own:
                return False
        return bool(self.axes and str(self.axes[-1]).startswith("*")) or len(shape) == len(self.axes)


def _nothing(fields: Fields, tensors: Mapping[str, Tensor]) -> str:
    return ""


@dataclass(frozen=True)
class Kind:
    """What a file of one kind holds.

    Args:
        name: stands in its header as ``kind``.
        called: what messages call such a file: "a circuit file".
        fields: of the header, beside ``kind`` and ``format``.
        arrays: what its tensors are, by name, given the header's fields and the names of those that are there.
        formats: which versions are read; (None,) where it has none.
        fits: returns what else does not fit between fields and tensors, in words, or nothing.
    """

    name: str
    called: str
    fields: Mapping[str, Check]
    arrays: Callable[[Fields, Iterable[str]], Mapping[str, Array]]
    formats: tuple[int | None, ...] = (1,)
    fits: Callable[[Fields, Mapping[str, Tensor]], str] = _nothing

    def foreign(self, header: Any) -> str:
        """Returns what a file is instead of one of this kind, in words; empty where it is one."""
        is_one = isinstance(header, dict) and one_of(self.name).holds(header.get("kind"))
        if is_one and one_of(*self.formats).holds(header.get("format")):
            return ""
        version = f" of format {self.formats[0]}" if self.formats[0] is not None else ""
        other = ""
        if isinstance(header, dict):
            said = (header.get(key) for key in ("kind", "format"))
            kind, number = (one if isinstance(one, str) and shown(one)[1:-1] == one else shown(one) for one in said)
            other = f", but {kind} of format {number}"
        return f"is not {self.called}{version}{other}"

    def wrong(self, header: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
        """Returns what is wrong with the content of a file of this kind, in words; empty where it is sound."""
        fields = {name: value for name, value in header.items() if name not in ("kind", "format")}
        if found := wrong(self.fields, fields):
            return found
        arrays = self.arrays(header, tensors)
        if arrays.keys() != tensors.keys():
            return f"expected other tensors: {shown(sorted(arrays.keys() ^ tensors.keys()))} is missing or unknown"
        known: dict[str, tuple[int, ...]] = {}
        for name, array in arrays.items():
            if found := array.wrong(tensors[name], known):
                return f"tensor {shown(name)}: {found}"
        return self.fits(header, tensors)


def _joined(dtypes: Iterable[torch.dtype]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
