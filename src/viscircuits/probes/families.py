"""Families of stimuli by their names, and stimuli out of files.

A file comes from anybody: `JSON` says what a stimulus in it has to be, and nothing else becomes one.
"""

from dataclasses import fields
from typing import Any, get_args

from viscircuits.errors import ImageError, closest
from viscircuits.probes.patterns import Arc, Corner, Grating, Handle, Line, Ring, Square, Texture
from viscircuits.probes.stimulus import Stimulus
from viscircuits.store.checks import TEXT, Check, listed, number, one_of, shown, whole, wrong

FAMILIES: dict[str, type[Stimulus]] = {
    family.__name__: family for family in (Arc, Corner, Ring, Square, Line, Grating, Texture)
}
"""Name -> family."""


def stimulus_from_json(value: object) -> Stimulus:
    """Returns the stimulus that `Stimulus.to_json` wrote; an `ImageError` for any other value."""
    if not isinstance(value, dict) or not JSON.holds(value):
        raise ImageError(f"expected {JSON.expected}, got {shown(value)}")
    family = family_of(value["family"])
    parameters: dict[str, Any] = {field.name: value[field.name] for field in fields(family)}
    for field in fields(family):
        given = parameters[field.name]
        if isinstance(given, list | tuple):
            parameters[field.name] = tuple(map(float, given))
        elif isinstance(field.default, float | tuple):
            # JSON writes 1.0 as it likes, and a stimulus with an int where a float was is another one
            parameters[field.name] = float(given)
    return family(**parameters)


def _is_json(value: object) -> bool:
    """Whether a value has a family and exactly its parameters, each of the type that it has by default."""
    if not isinstance(value, dict) or not isinstance(name := value.get("family"), str):
        return False
    family = next((family for known, family in FAMILIES.items() if known.lower() == name.lower()), None)
    if family is None:
        return False
    checks = {field.name: _check(field.name, field.default) for field in fields(family)}
    return not wrong({"family": TEXT, **checks}, value)


def _check(name: str, default: object) -> Check:
    if name == "colour":
        return Check("a colour", lambda value: number().holds(value) or listed(number(), 1).holds(value))
    match default:
        case str():
            return one_of(*get_args(Handle))
        case int():
            return whole(-(2**63))
        case _:
            return number()


JSON = Check("a stimulus, as surface.save writes it", _is_json)
"""The check for what `Stimulus.to_json` gives."""


def family_of(name: str) -> type[Stimulus]:
    """Returns a family by name, in letters of any size; an `ImageError` lists them where there is none."""
    by_lower = {known.lower(): family for known, family in FAMILIES.items()}
    if name.lower() not in by_lower:
        raise ImageError(f"no family {name!r}{closest(name.lower(), by_lower)}; there are {', '.join(by_lower)}")
    return by_lower[name.lower()]
