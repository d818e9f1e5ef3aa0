"""One parameter of a surface: its values, and whether they go round."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from viscircuits.errors import ImageError


@dataclass(frozen=True)
class Axis:
    """Values of a parameter, ascending.

    Args:
        name: the parameter.
        values: where it was probed.
        period: after which it is the same again, or None; then the values lie within one period.
    """

    name: str
    values: tuple[float, ...]
    period: float | None = None

    def __post_init__(self) -> None:
        v = self.values
        if not v or not all(math.isfinite(a) for a in v) or any(a >= b for a, b in pairwise(v)):
            raise ImageError(f"axis {self.name!r} needs ascending, finite, different values, got {list(v)}")
        if self.period is not None and v[-1] - v[0] >= self.period:
            raise ImageError(
                f"axis {self.name!r} is the same after {self.period:g}, so {v[0]:g} and {v[-1]:g} cannot both be on "
                f"it; end before {v[0] + self.period:g}"
            )

    @property
    def circular(self) -> bool:
        """Whether its last value is next to its first."""
        return self.period is not None

    @property
    def whole(self) -> bool:
        """Whether it goes once round in even steps."""
        if self.period is None:
            return False
        # a tolerance, because values may come of a division, such as a seventh of a turn
        step = self.period / len(self.values)
        return all(math.isclose(v, self.values[0] + i * step, abs_tol=1e-6 * step) for i, v in enumerate(self.values))

    def distance(self, a: float, b: float) -> float:
        """Returns how far two values are apart, the short way round."""
        if self.period is None:
            return abs(a - b)
        gap = (a - b) % self.period
        return min(gap, self.period - gap)

    def between(self, value: float) -> tuple[int, int, float]:
        """Returns the two neighbours of a value, and the weight of the second.

        Raises:
            ImageError: beyond the ends of an axis that does not go round.
        """
        v, n = self.values, len(self.values)
        if self.period is not None:
            value = v[0] + (value - v[0]) % self.period
        elif not v[0] <= value <= v[-1]:
            raise ImageError(f"{value:g} is beyond axis {self.name!r}, which goes from {v[0]:g} to {v[-1]:g}")
        low = bisect_right(v, value) - 1
        if low + 1 < n:
            return low, low + 1, (value - v[low]) / (v[low + 1] - v[low])
        if self.period is None:  # the very end
            return low, low, 0.0
        # behind the last value comes the first one, a period later
        return low, 0, (value - v[low]) / (v[0] + self.period - v[low])
