"""Ranges of numbers, by the names of arguments: a name means the same everywhere, in functions and in options.

Both ends are in a range unless said otherwise. What a range raises is the error of the noun that the number belongs to:
a density out of range is a `MaskError`.
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import SupportsFloat, SupportsIndex, TypeGuard

from viscircuits.errors import ImageError, MaskError, ModelError, ViscircuitsError
from viscircuits.store.checks import shown

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
    """Whole numbers in a range.

    Args:
        least: the smallest.
        most: the largest.
        raised: the error for any other.
    """

    least: int
    most: int
    raised: type[ViscircuitsError] = ViscircuitsError

    @property
    def expected(self) -> str:
        """The range in words."""
        return f"a whole number from {self.least:,} to {self.most:,}"

    def holds(self, value: SupportsIndex) -> bool:
        """Returns whether a number is in the range."""
        # index() and not int(), which would cut 1.5 down to 1
        return self.least <= operator.index(value) <= self.most


@dataclass(frozen=True)
class Real:
    """Numbers in a range.

    Args:
        least: the lower end.
        most: the upper end.
        raised: the error for any other.
        above: whether the lower end itself is out of range.
        endless: whether infinity is in it.
        such: an example, for messages.
    """

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
        low = high = ""
        if not math.isinf(self.least):
            low = f" {'above' if self.above else 'from'} {self.least:g}"
        if not math.isinf(self.most):
            high = f" {'to' if low else 'up to'} {self.most:g}"
        return f"a{'' if self.endless else ' finite'} number{low}{high}{self.such}"

    def holds(self, value: SupportsFloat) -> bool:
        """Returns whether a number is in the range."""
        number = _float(value)
        # nan fails here without a case of its own: every comparison with it is false
        low = self.least < number if self.above else self.least <= number
        return (self.endless or math.isfinite(number)) and low and number <= self.most


Range = Whole | Real

DENSITY = Real(0.0, 1.0, MaskError, above=True, such=", such as 0.1")
SHARE = Real(0.0, 1.0)
POSITIVE = Real(0.0, above=True)
COUNT = Whole(1, MOST)
PICTURES = Whole(1, MOST, ImageError)
SIDE = Whole(1, PIXELS, ImageError)

RANGES: Mapping[str, Range] = {
    "seed": Whole(0, SEED),
    "threads": Whole(1, THREADS),
    "memory": Whole(1, MEMORY, ImageError),
    "batch_size": PICTURES,
    "n": PICTURES,
    "rounds": Whole(1, MOST, MaskError),
    "positions": Whole(1, MOST, MaskError),
    "block": Whole(1, MOST, MaskError),
    "mean": Real(0.0, 1.0, MaskError),
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
    "level": Real(1e-6, 1 - 1e-6),
    "together": SHARE,
    "ground": SHARE,
    "best": COUNT,
    "at_least": COUNT,
    "min_cluster_size": COUNT,
    "min_cluster": COUNT,
    "number": COUNT,
    "pictures": PICTURES,
    "tolerance": Real(0.0),
    "diversity": Real(0.0),
    "white": Real(0.0, raised=ImageError, above=True, such=", such as 4095"),
    "scale": Real(0.0, 100.0, above=True),
    "learning_rate": POSITIVE,
    "decay": Real(0.0),
    "spread": POSITIVE,
    "limit": Real(0.0, above=True, endless=True),
    "penalty": Real(0.0),
    "contrast": Real(0.0),
    "input_size": Whole(LEAST_PIXELS, PIXELS, ModelError),
}
"""Name of an argument -> its range; for sequences that of each item."""


def within(name: str, value: object, bound: Range | None = None) -> None:
    """Refuses a number that is out of the range of its name, or of another one.

    Args:
        name: what the number is called, for the message.
        value: the number.
        bound: its range; that of `RANGES` where None.

    Raises:
        ViscircuitsError: it is out of range; which kind of it says the range.
    """
    bound = RANGES[name] if bound is None else bound
    if not holds(value, bound):
        raise bound.raised(f"{name} {shown(value)} is out of range; expected {bound.expected}")


def holds(value: object, bound: Range) -> bool:
    """Returns whether a value is a number of the range's kind and in it."""
    if isinstance(bound, Whole):
        return is_whole(value) and bound.holds(value)
    return is_number(value) and bound.holds(value)


def is_whole(value: object) -> TypeGuard[SupportsIndex]:
    """Returns whether a value is a whole number: Python's, numpy's or a tensor of one; ``True`` is none."""
    # numpy's bool is no bool of Python
    if isinstance(value, bool) or type(value).__name__ == "bool_" or not isinstance(value, SupportsIndex):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError):  # an array or a tensor of several, or of another kind
        return False
    return True


def is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Returns whether a value is a number, of Python or another package; a text that spells one is none."""
    if isinstance(value, bool | str | bytes) or not isinstance(value, SupportsFloat):
        return False
    try:
        _float(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: torch, of several values or on no device
        return False
    return True


def _float(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number with too many digits is out of any range, instead of an error of its own
        return math.inf
