"""Targets whose class is named in words: ``logit:tabby`` for ``logit:281``, where the weights say what a class is.

The number is what is stored and computed with; names are only how one says it, and how it is shown beside the number.
"""

import re
from collections.abc import Sequence

from viscircuits.errors import TargetError, closest

_NAMED = re.compile(r"\blogit(?:\[[^\]]*\])*:(?=[^\d\s])")
"""The place of a class's name in the text of a target."""


def is_named(text: str) -> bool:
    """Returns whether the text of a target names a class in words."""
    return _NAMED.search(text) is not None


def numbered(text: str, names: Sequence[str] | None) -> str:
    """Returns the text of a target with its classes by number.

    Args:
        text: of a target, as one types it; names of classes stand behind ``logit:``, in any case of letters, and may
            hold spaces.
        names: what the model's outputs stand for, by number; None where the weights do not say.

    Raises:
        TargetError: no class is called so, or two are; the message has the numbers to choose from.
    """
    parts, start = [], 0
    for place in _NAMED.finditer(text):
        if place.start() < start:
            continue
        name, numbers = _longest(text[place.end() :], names or ())
        if len(numbers) != 1:
            raise TargetError(_unclear(text, text[place.end() :], name, numbers, names))
        parts += [text[start : place.end()], str(numbers[0])]
        start = place.end() + len(name)
    return "".join(parts) + text[start:]


def label(text: str, names: Sequence[str] | None) -> str:
    """Returns the name of the class that a target reads; empty where it reads none, or several."""
    match = re.fullmatch(r"logit:(\d+)", text)
    number = int(match[1]) if match else -1
    return names[number] if names is not None and 0 <= number < len(names) else ""


def _longest(rest: str, names: Sequence[str]) -> tuple[str, list[int]]:
    """The longest name that a text begins with, and the classes that bear it; ``tiger`` does not hide ``tiger cat``."""
    low = rest.lower()
    name, numbers = "", list[int]()
    for number, one in enumerate(names):
        if not low.startswith(one.lower()) or re.match(r"\w", rest[len(one) :]):
            continue
        if len(one) > len(name):
            name, numbers = one, []
        if len(one) == len(name):
            numbers.append(number)
    return name, numbers


def _unclear(text: str, rest: str, name: str, numbers: Sequence[int], names: Sequence[str] | None) -> str:
    """Why a name is not one class."""
    if numbers:
        choices = " or ".join(f"logit:{number}" for number in numbers)
        return f"target {text!r}: {len(numbers)} classes are called {name!r}; give {choices}"
    word = re.split(r"\s+[-+]\s+|@", rest)[0].strip()
    if names is None:
        return f"target {text!r}: nobody says what this model's classes are called; give a number, as in logit:0"
    return f"target {text!r}: no class is called {word!r}{closest(word, names)}; or give a number, as in logit:0"
