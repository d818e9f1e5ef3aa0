"""Parameters of drawn stimuli as a user types them: ``NAME=NUMBER``, and ``NAME=FIRST:LAST:COUNT`` for an axis."""

from dataclasses import fields
from typing import TypeVar

from viscircuits.errors import ImageError, closest

S = TypeVar("S")


def axis_of(text: str) -> tuple[str, list[float]]:
    """Returns ``angle=0:360:24`` as a name and values; a whole turn is not closed, because its end is its start."""
    from viscircuits.bounds.ranges import MOST, Real, Whole, within

    name, _, numbers = text.partition("=")
    try:
        first, last, count = numbers.split(":")
        start, stop, n = float(first), float(last), int(count)
    except ValueError:
        raise ImageError(f"cannot read --axis {text!r}; expected NAME=FIRST:LAST:COUNT, as in angle=0:360:24") from None
    within("--axis: first value", start, Real(raised=ImageError))
    within("--axis: last value", stop, Real(raised=ImageError))
    within("--axis: count", n, Whole(2, MOST, ImageError))
    closed = not (name in ("angle", "phase", "colour") and stop - start in (90, 180, 360))
    return name, [start + i * (stop - start) / (n - closed) for i in range(n)]


def setting_of(text: str) -> tuple[str, float]:
    """Returns ``thickness=0.2`` as a name and a value."""
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ImageError(f"cannot read --set {text!r}; expected NAME=NUMBER, as in thickness=0.2") from None


def with_settings(family: type[S], common: dict[str, float]) -> S:
    """Returns a stimulus of a family with some of its parameters set; one that it lacks is an error."""
    known = [field.name for field in fields(family)]  # pyright: ignore[reportArgumentType] (families are dataclasses)
    for name in common:
        if name not in known:
            raise ImageError(f"{family.__name__} has no parameter {name!r}{closest(name, known)}")
    return family(**common)
