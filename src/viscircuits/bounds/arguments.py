"""Arguments of public functions, looked at before anything is done with them.

`checked` looks at their types, as the signature has them, and at their range, by their name (`RANGES`); then the thread
waits for its turn (`viscircuits.bounds.turns`). A wrong type is
an `ArgumentError`, a value out of range the error of the noun it belongs to. The command line asks the same ranges
(`viscircuits.cli.options`).
"""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from viscircuits.bounds.hints import SEQUENCES, described, fits, members, named
from viscircuits.bounds.places import check_path
from viscircuits.bounds.ranges import RANGES, Range, is_number, within
from viscircuits.bounds.turns import turns
from viscircuits.errors import ArgumentError, ImageError, MaskError, StudyError, TargetError, ViscircuitsError, closest
from viscircuits.store.checks import shown

P = ParamSpec("P")
T = TypeVar("T")

Names = Callable[[], Mapping[str, object]]
"""Gives what a name in an annotation stands for, where its module imports it only when it is needed."""

_SINGULAR = {"densities": "density"}
"""What one item is called in a message."""

_CHOICES: Mapping[str, type[ViscircuitsError]] = {
    "granularity": MaskError, "normalise": MaskError, "biases": MaskError, "order": MaskError,
    "reduction": TargetError, "unreadable": ImageError, "source": ImageError, "pictures": ImageError,
}  # fmt: skip
"""Name of an argument that takes one of some words -> the error for another word."""

_FIXES = {
    "ImageSet": "make one with ImageSet.from_tensors, from_dataset, from_files or from_folder",
    "Target": "make one with Target(layer, channel) or parse_target(text)",
    "Module": "give the network itself (of what zoo.load returns, its .model)",
    "Circuit": "make one with Circuit(model, target, mask) or find(model, target, images, density=0.1)",
}
"""Name of a class of ours, or torch's -> what to do where something else came."""


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Returns a function whose arguments are looked at first, and which then waits for its thread's turn.

    Raises:
        ArgumentError: an argument is of a type that the signature does not have.
        ViscircuitsError: a number is out of range; which kind of it says its range.
    """
    return _checked(function, dict)


def checked_with(names: Names) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Returns `checked` for functions whose module does not import all that their annotations name."""
    return lambda function: _checked(function, names)


def _checked(function: Callable[P, T], names: Names) -> Callable[P, T]:
    signature = inspect.signature(function)
    several = {n for n, p in signature.parameters.items() if p.kind is p.VAR_POSITIONAL}
    by_name = {n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise _unbound(function.__qualname__, signature, args, error) from None
        # at the first call and not at the decoration, when a class does not have its own name yet
        hints = _hints(function, names)
        for name, value in given.items():
            if name in hints and name not in by_name:
                for one in value if name in several else [value]:
                    check(name, one, hints[name])
        with turns.turn():
            return function(*args, **kwargs)

    return call


def _unbound(name: str, signature: inspect.Signature, args: tuple[object, ...], error: TypeError) -> TypeError:
    """The error of a call that does not fit its function, with the one that does where a name was left out."""
    by_place = [n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [n for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY]
    if len(args) <= len(by_place) or not by_name:
        return TypeError(f"{name}: {error}")
    first = args[len(by_place)]
    return TypeError(
        f"{name}: {error}; what follows is given by name, such as {by_name[0]}={named(first)} "
        f"(names: {', '.join(by_name)})"
    )


def check_fields(thing: object) -> None:
    """Looks at the fields of a dataclass, as `checked` does at arguments."""
    assert is_dataclass(thing)
    hints = _hints(type(thing), dict)
    for field in fields(thing):
        if field.init and not field.name.startswith("_") and field.name in hints:
            check(field.name, getattr(thing, field.name), hints[field.name])


@cache
def _hints(thing: Callable[..., object], names: Names) -> dict[str, object]:
    try:
        return get_type_hints(thing, localns=dict(names()) or None)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}


def check(name: str, value: object, hint: object = None, bound: Range | None = None) -> None:
    """Looks at one argument: its type, where there is a hint, and its range.

    Args:
        name: of the argument.
        value: what came for it.
        hint: its type hint.
        bound: its range; that of its name where None.
    """
    kinds = members(hint)
    if not any(fits(value, kind, name) for kind in kinds):
        raise ArgumentError(f"{name}: expected {described(kinds, name)}, got {named(value)}{_fix(name, value, kinds)}")
    if isinstance(value, str | os.PathLike) and Path in kinds:
        check_path(name, value)
    _check_choice(name, value, kinds)
    bound = bound or RANGES.get(name)
    # some names are of a number in one function and of words in another: pictures
    if bound is not None and any(kind in (int, float) or get_origin(kind) in SEQUENCES for kind in kinds):
        for one in _numbers(value):
            within(_SINGULAR.get(name, name), one, bound)


def _check_choice(name: str, value: object, kinds: tuple[object, ...]) -> None:
    """Refuses a word that is none of those to choose from."""
    choices: list[object] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            choices += get_args(kind)
    if choices and (isinstance(value, str) or len(kinds) == 1) and str not in kinds and value not in choices:
        known = ", ".join(str(choice) for choice in choices)
        near = closest(value, map(str, choices)) if isinstance(value, str) else ""
        raise _CHOICES.get(name, ViscircuitsError)(f"unknown {name} {shown(value)}{near}; expected one of {known}")


def _fix(name: str, value: object, kinds: tuple[object, ...]) -> str:
    """What to do about a value of the wrong type, where that is known."""
    if any(_fits_item(value, kind, name) for kind in kinds):
        return f"; for one alone give a list of it, [{name.removesuffix('s')}]"
    classes = [getattr(kind, "__name__", "") for kind in kinds]
    return next((f"; {_FIXES[each]}" for each in classes if each in _FIXES), "")


def _fits_item(value: object, kind: object, name: str) -> bool:
    """Whether a value would fit as an item of a list of a kind."""
    items = get_args(kind)[:1] if get_origin(kind) in SEQUENCES else ()
    return any(fits(value, member, name) for item in items for member in members(item))


def _numbers(value: object) -> Iterable[object]:
    if is_number(value):
        return [value]
    return [one for one in value if is_number(one)] if isinstance(value, list | tuple) else []


def check_study(study: str) -> None:
    """Refuses what is no hash of a study, which says to which one a file belongs; nothing says to none."""
    _check_hash(study, "study", "a study; expected 16 hexadecimal digits, Study.hash")


def check_model_hash(model_hash: str) -> None:
    """Refuses what is no hash of a model; nothing says that it is still to be found."""
    _check_hash(model_hash, "model_hash", "a model; expected 16 hexadecimal digits, fingerprint(model)")


def _check_hash(text: str, name: str, of: str) -> None:
    if text and not re.fullmatch("[0-9a-f]{16}", text):
        raise StudyError(f"{name} {shown(text)} is no hash of {of}")
