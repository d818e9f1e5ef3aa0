"""What arguments may be: each bound once, each refusal one line with what was expected and what came.

`checked` looks at the arguments of a public function before anything is done with them: their types, as the signature
has them, and their range, by their name (`RULES`), because an argument of one name means the same everywhere. A wrong
type is an `ArgumentError`, a value out of range the error of the noun it belongs to. The command line asks the same
rules (`viscircuits.cli.options`).

Not here: what depends on a network or on pictures (a channel that is there, a size that fits), and things that people
bring in place of ours (a text for a target, a tensor for pictures), which the functions themselves take or refuse.
"""

import errno
import inspect
import math
import numbers
import operator
import os
import re
import stat
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from viscircuits.errors import (
    ArgumentError,
    ImageError,
    MaskError,
    ModelError,
    StudyError,
    TargetError,
    ViscircuitsError,
    closest,
)
from viscircuits.header import shown

P = ParamSpec("P")
T = TypeVar("T")

SEED = 2**63 - 1
"""The largest seed: what tables and generators hold."""

MOST = 10**6
"""The largest number of rounds, steps, points of an axis, pictures to draw or to take at a time."""

THREADS = 1024
"""The most threads."""

MEMORY = 2**50
"""The most bytes of memory; no machine has more."""

PIXELS = 4096
"""The largest side of a picture for a network."""

LEAST_PIXELS = 2
"""The smallest side of a network's input: torch takes a side of 1 for one that never changes."""


@dataclass(frozen=True)
class Whole:
    """Whole numbers in a range."""

    least: int
    most: int
    raised: type[ViscircuitsError] = ViscircuitsError

    @property
    def expected(self) -> str:
        """The range in words."""
        return f"a whole number from {self.least:,} to {self.most:,}"

    def holds(self, value: Any) -> bool:
        """Returns whether a number is in the range."""
        return self.least <= operator.index(value) <= self.most


@dataclass(frozen=True)
class Number:
    """Numbers in a range, without its lower end if ``above``; finite ones unless ``endless``."""

    least: float = -math.inf
    most: float = math.inf
    raised: type[ViscircuitsError] = ViscircuitsError
    above: bool = False
    endless: bool = False
    such: str = ""

    @property
    def expected(self) -> str:
        """The range in words."""
        if (self.least, self.most, self.above) == (0, 1, True):
            return f"a fraction in (0, 1]{self.such}"
        low = "" if math.isinf(self.least) else f" {'above' if self.above else 'from'} {self.least:g}"
        high = "" if math.isinf(self.most) else f" {'to' if low else 'up to'} {self.most:g}"
        return f"a{'' if self.endless else ' finite'} number{low}{high}{self.such}"

    def holds(self, value: Any) -> bool:
        """Returns whether a number is in the range."""
        number = _float(value)
        low = self.least < number if self.above else self.least <= number
        return (self.endless or math.isfinite(number)) and low and number <= self.most


Rule = Whole | Number

DENSITY = Number(0.0, 1.0, MaskError, above=True, such=", such as 0.1")
SHARE = Number(0.0, 1.0)
POSITIVE = Number(0.0, above=True)
COUNT = Whole(1, MOST)
PICTURES = Whole(1, MOST, ImageError)
SIDE = Whole(1, PIXELS, ImageError)

RULES: Mapping[str, Rule] = {
    "seed": Whole(0, SEED),
    "threads": Whole(1, THREADS),
    "memory": Whole(1, MEMORY, ImageError),
    "batch_size": PICTURES,
    "n": PICTURES,
    "rounds": Whole(1, MOST, MaskError),
    "steps": COUNT,
    "resamples": COUNT,
    "repeats": COUNT,
    "variants": COUNT,
    "at_most": COUNT,
    "up_to": Whole(1, 2**53, ImageError),
    "n_random": Whole(0, MOST),
    "controls": Whole(0, MOST),
    "most": Whole(1, MOST, MaskError),
    "canvas": SIDE,
    "density": DENSITY,
    "densities": DENSITY,
    "keep": SHARE,
    "level": Number(1e-6, 1 - 1e-6),
    "together": SHARE,
    "ground": SHARE,
    "best": COUNT,
    "at_least": COUNT,
    "min_cluster_size": COUNT,
    "min_cluster": COUNT,
    "number": COUNT,
    "pictures": PICTURES,
    "tolerance": Number(0.0),
    "diversity": Number(0.0),
    "white": Number(0.0, raised=ImageError, above=True, such=", such as 4095"),
    "scale": Number(0.0, 100.0, above=True),
    "learning_rate": POSITIVE,
    "decay": Number(0.0),
    "spread": POSITIVE,
    "limit": Number(0.0, above=True, endless=True),
    "penalty": Number(0.0),
    "contrast": Number(0.0),
    "input_size": Whole(LEAST_PIXELS, PIXELS, ModelError),
}
"""Name of an argument -> its range; for sequences that of each item."""

_CHOICES: Mapping[str, type[ViscircuitsError]] = {
    "granularity": MaskError, "normalise": MaskError, "biases": MaskError, "order": MaskError,
    "reduction": TargetError, "unreadable": ImageError, "source": ImageError, "pictures": ImageError,
}  # fmt: skip

_FIXES = {
    "ImageSet": "make one with ImageSet.from_tensors, from_dataset, from_files or from_folder",
    "Target": "make one with Target(layer, channel) or parse_target(text)",
    "Module": "give the network itself (of what zoo.load returns, its .model)",
    "Circuit": "make one with Circuit(model, target, mask) or find(model, target, images, density=0.1)",
}
"""Name of a class of ours, or torch's -> what to do where something else came."""


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function whose arguments are looked at first.

    Raises:
        ArgumentError: an argument is of a type that the signature does not have.
        ViscircuitsError: a number is out of range; which kind of it says the rule.
    """
    signature = inspect.signature(function)
    several = {n for n, p in signature.parameters.items() if p.kind is p.VAR_POSITIONAL}
    named = {n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise _unbound(function, signature, args, error) from None
        hints = _hints(function)
        for name, value in given.items():
            if name in hints and name not in named:
                for one in value if name in several else [value]:
                    check(name, one, hints[name])
        return function(*args, **kwargs)

    return call


def _unbound(function: Any, signature: inspect.Signature, args: tuple[Any, ...], error: TypeError) -> TypeError:
    """The error of a call that does not fit its function, with the one that does where a name was left out."""
    by_place = [n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [n for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
    if len(args) <= len(by_place) or not by_name:
        return TypeError(f"{function.__qualname__}: {error}")
    first = args[len(by_place)]
    return TypeError(
        f"{function.__qualname__}: {error}; what follows is given by name, such as {by_name[0]}={_named(first)} "
        f"(names: {', '.join(by_name)})"
    )


def check_fields(thing: Any) -> None:
    """Looks at the fields of a dataclass, as `checked` does at arguments."""
    hints = _hints(type(thing))
    for field in fields(thing):
        if field.init and not field.name.startswith("_") and field.name in hints:
            check(field.name, getattr(thing, field.name), hints[field.name])


def check(name: str, value: Any, hint: Any = None, rule: Rule | None = None) -> None:
    """Looks at one argument: its type, where there is a hint, and its range."""
    kinds = _members(hint)
    if not any(_fits(value, kind, name) for kind in kinds):
        fix = next((f"; {_FIXES[k.__name__]}" for k in kinds if getattr(k, "__name__", "") in _FIXES), "")
        lists = (item for kind in kinds if get_origin(kind) in _SEQUENCES for item in get_args(kind)[:1])
        if any(_fits(value, one, name) for item in lists for one in _members(item)):
            fix = f"; for one alone give a list of it, [{name.removesuffix('s')}]"
        raise ArgumentError(f"{name}: expected {_described(kinds, name)}, got {_named(value)}{fix}")
    if isinstance(value, str | os.PathLike) and Path in kinds:
        _check_path(name, value)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and (isinstance(value, str) or len(kinds) == 1) and str not in kinds and value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        near = closest(value, map(str, choices)) if isinstance(value, str) else ""
        raise _CHOICES.get(name, ViscircuitsError)(f"unknown {name} {shown(value)}{near}; expected one of {known}")
    rule = rule or RULES.get(name)
    if rule is not None and any(kind in (int, float) or get_origin(kind) in _SEQUENCES for kind in kinds):
        for one in _numbers(value):
            within(_SINGULAR.get(name, name), one, rule)


def _check_path(name: str, value: str | os.PathLike[str]) -> None:
    """Refuses what no file can be called, and nothing: it would be the folder one is in."""
    if not str(os.fspath(value)).strip():
        raise ViscircuitsError(f"{name} is empty; expected a path")
    try:
        os.lstat(value)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            reason = getattr(error, "strerror", None) or error
            raise ViscircuitsError(f"{name}: {shown(os.fspath(value))} is no path ({reason})") from None


def within(name: str, value: Any, rule: Rule | None = None) -> None:
    """Refuses a number that is out of the range of its name, or of another rule."""
    rule = RULES[name] if rule is None else rule
    if not holds(value, rule):
        raise rule.raised(f"{name} {shown(value)} is out of range; expected {rule.expected}")


def holds(value: Any, rule: Rule) -> bool:
    """Returns whether a value is a number of the rule's kind and in its range."""
    return (_is_whole if isinstance(rule, Whole) else _is_number)(value) and rule.holds(value)


def check_study(study: str) -> None:
    """Refuses what is no hash of a study, which says to which one a file belongs; nothing says to none."""
    if study and not re.fullmatch("[0-9a-f]{16}", study):
        raise StudyError(f"study {shown(study)} is no hash of a study; expected 16 hexadecimal digits, Study.hash")


def regular(path: str | Path, what: str, raised: type[ViscircuitsError]) -> Path:
    """Returns the path of a regular file; anything else is refused, as opening a pipe waits and a device never ends."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise raised(f"cannot read {what} {shown(str(path))} ({reason}); expected a file") from None
    if not stat.S_ISREG(mode):
        raise raised(f"expected a file for {what}, but {shown(str(path))} is {what_is(path)}")
    return path


def what_is(path: str | Path) -> str:
    """Returns in words what stands at a place; empty where nothing does, or nothing that may be seen."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return ""
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((words for is_kind, words in kinds if is_kind(mode)), "a device")


# ---- types -----------------------------------------------------------------------------------------------------------

_SEQUENCES = (Sequence, Iterable, Iterator, tuple, list, set, frozenset)
_SINGULAR = {"densities": "density"}


@cache
def _hints(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}


def _members(hint: Any) -> tuple[Any, ...]:
    """The kinds that a hint allows: the members of a union."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for member in get_args(hint) for kind in _members(member))
    return (hint,)


def _fits(value: Any, kind: Any, name: str) -> bool:
    """Whether a value may be meant as one of a kind; in doubt it may."""
    origin = get_origin(kind)
    match kind:
        case None | types.NoneType:
            return value is None
        case _ if kind is bool:
            return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
        case _ if kind is int:
            return _is_whole(value)
        case _ if kind is float:
            return _is_number(value)
        case _ if kind is str:
            return isinstance(value, str)
        case _ if isinstance(kind, type) and issubclass(kind, Path):
            return isinstance(value, os.PathLike)
        case _ if origin is Literal:
            return any(type(value) is type(choice) for choice in get_args(kind))
        case _ if origin is Callable or kind is Callable:
            return callable(value) and not isinstance(value, type(None))
        case _ if origin in (Mapping, dict):
            return isinstance(value, Mapping) and _are(value.values(), get_args(kind)[1:], name)
        case _ if origin in _SEQUENCES:
            return _is_items(value, kind, name)
        case _ if isinstance(kind, type):
            return _is_instance(value, kind, name)
    return True  # Any, type variables, what only a type checker knows


def _is_items(value: Any, kind: Any, name: str) -> bool:
    """Whether a value is a series of items, each of the kind that is listed; what can be read once is not read here."""
    if isinstance(value, Mapping) and get_origin(kind) is not Iterable:  # of its names, there
        return False
    if isinstance(value, str | bytes) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        return False
    items = get_args(kind)
    if not items or not isinstance(value, list | tuple):
        return True
    if get_origin(kind) is tuple and Ellipsis not in items:
        return len(value) == len(items) and all(
            any(_fits(one, member, name) for member in _members(item)) for one, item in zip(value, items, strict=True)
        )
    return all(any(_fits(one, member, name) for member in _members(items[0])) for one in value)


def _are(values: Iterable[Any], kinds: Sequence[Any], name: str) -> bool:
    """Whether the values of a mapping are of the kind that is said, if one is."""
    return not kinds or all(any(_fits(one, kind, name) for kind in _members(kinds[0])) for one in values)


def _is_instance(value: Any, kind: type, name: str) -> bool:
    array = getattr(kind, "array_type", None)  # of a jaxtyping annotation, which says the number of axes too
    if isinstance(array, type):
        axes = None if getattr(kind, "index_variadic", 0) is not None else len(getattr(kind, "dims", ()))
        return isinstance(value, array) and axes in (None, getattr(value, "ndim", None))
    try:
        return isinstance(value, kind) or (name == "model" and type(value).__module__.startswith("torch."))
    except TypeError:  # a protocol that cannot be asked
        return True


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool) or type(value).__name__ == "bool_" or not hasattr(value, "__index__"):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError):  # an array or a tensor of several, or of another kind
        return False
    return True


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        return False
    try:
        _float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _numbers(value: Any) -> Iterable[Any]:
    if _is_number(value):
        return [value]
    return [one for one in value if _is_number(one)] if isinstance(value, list | tuple) else []


_LONGEST = 120
"""Characters of a value in a message."""


def _named(value: Any) -> str:
    """A value as a message shows it; of things without a short text their type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if (axes := getattr(value, "shape", None)) is not None:
        return f"a {type(value).__name__} of shape {tuple(axes)}"
    plain = value is None or isinstance(value, bool | numbers.Number | str | bytes | list | tuple | dict | set)
    if not plain or hasattr(value, "_fields"):
        return f"a {type(value).__name__}"
    text = " ".join(shown(value).split())  # what a list holds may show itself in several lines
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _described(kinds: Sequence[Any], name: str) -> str:
    return " or ".join(dict.fromkeys(_word(kind, name) for kind in kinds))


def _word(kind: Any, name: str) -> str:
    origin = get_origin(kind)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", types.NoneType: "None"}
    if kind in (int, float) and name in RULES:
        return RULES[name].expected
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if origin is Callable or kind is Callable:
        return "a function"
    if origin in (Mapping, dict):
        return "a mapping"
    if origin in _SEQUENCES:
        items = [item for item in get_args(kind) if item is not Ellipsis]
        inner = " or ".join(dict.fromkeys(_word(item, "") for item in _members(items[0]))) if items else ""
        return f"a list{f' (of {inner})' if inner else ''}"
    array = getattr(kind, "array_type", None)
    if isinstance(array, type):
        return f"a {array.__name__} of axes [{getattr(kind, 'dim_str', '...').strip()}]"
    return words.get(kind) or (f"a {kind.__name__}" if isinstance(kind, type) else str(kind))
