"""How pictures are divided into two sets that share none, class by class.

Not here: the sets (`viscircuits.data.images`).
"""

import random
from collections.abc import Hashable, Sequence

from viscircuits.errors import ImageError


def sides(places: Sequence[Hashable], labels: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Returns the indices of both sets, in order; the first has ``round(fraction * n)`` of n different pictures.

    Every class gives its share to within one picture: the classes stand in a row in random order, their pictures
    shuffled, and k of the n places, evenly spaced, go to the first set.

    Args:
        places: where each picture lies; those at one place stay together and count once, with the first one's label.
        labels: the class of each picture.
        fraction: share of the first set, in (0, 1), that leaves neither set empty.
        seed: same seed, same division.

    Raises:
        ImageError: a set would be empty.
    """
    if not 0 < fraction < 1:
        raise ImageError(f"expected a fraction between 0 and 1, got {fraction}")
    leads: dict[Hashable, int] = {}
    lead = [leads.setdefault(place, i) for i, place in enumerate(places)]
    n, k = len(leads), round(fraction * len(leads))
    if not 0 < k < n:
        raise ImageError(f"a split of {n} pictures at {fraction} has an empty side ({k} and {n - k} pictures)")
    generator = random.Random(seed)
    # a number drawn for each class, and then for each picture, sorts them at random with equal classes side by side
    classes = sorted({labels[i] for i in leads.values()})
    turn = {label: generator.random() for label in classes}
    line = sorted(leads.values(), key=lambda i: (turn[labels[i]], generator.random()))
    # whole numbers only: a place is taken wherever k / n of the way so far reaches the next picture
    first = {i for place, i in enumerate(line) if (place + 1) * k // n > place * k // n}
    indices = range(len(places))
    return [i for i in indices if lead[i] in first], [i for i in indices if lead[i] not in first]
