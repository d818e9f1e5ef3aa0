"""What a split shows, in words: whether two or more sets of images excite a feature by distinct computations.

The measure is the *excess*: how much worse the circuit of one set does on another set than on its own. Random splits
into sets of the same sizes say what of it comes from the sets being small, and how likely as much would come about if
the division meant nothing: a permutation test, one-sided. It is a mean over all circuits and sets; where one circuit
serves another set well, the sentence says so.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FEWEST = 5
"""Fewer images to find a circuit on, or to measure it on, say nothing."""

SIGNIFICANT = 0.05
"""The largest p-value that counts."""


@dataclass(frozen=True)
class Verdict:
    """What a split shows.

    Args:
        word: "distinct" (circuits of one set do not serve another), "shared" (they do), or "cannot tell".
        reason: why, as a sentence.
        p: probability of as much excess in a random split, ``(1 + as high) / (1 + splits)``; 1 without controls.
        excess: of the division, a difference relative to the mean activation.
        by_chance: median excess of the random splits; nan without.
    """

    word: Literal["distinct", "shared", "cannot tell"]
    reason: str
    p: float
    excess: float
    by_chance: float

    def __str__(self) -> str:
        return f"{self.word}: {self.reason}"


def judge(
    excess: float, controls: Sequence[float], sizes: Sequence[int], *, least: float, smallest: int, sparse: bool,
    tolerance: float,
) -> Verdict:  # fmt: skip
    """Returns the verdict on a division of images.

    Args:
        excess: of the division.
        controls: of random divisions of the same images into the same sizes.
        sizes: number of images in each set.
        least: the excess of the circuit that serves another set best.
        smallest: the fewest that a circuit was found on, or measured on.
        sparse: whether every set has a circuit that is smaller than the whole.
        tolerance: the difference that still counts as keeping a response.
    """
    # the division itself is one of those that chance could have drawn; so p is never 0
    p = (1 + sum(other >= excess for other in controls)) / (1 + len(controls))
    # a median, because a few unlucky splits err by any amount
    by_chance = sorted(controls)[len(controls) // 2] if controls else math.nan
    beyond = excess - by_chance
    word, reason = "cannot tell", ""
    if smallest < FEWEST or divisions(sizes) * SIGNIFICANT < 1:
        reason = (
            f"too few images: sets of {_listed(sizes)} (a circuit needs {FEWEST} to be found on and as many to be "
            f"measured on, and there must be 20 ways to divide them)"
        )
    elif (1 + len(controls)) * SIGNIFICANT < 1:
        reason = f"too few controls: {len(controls)} random splits cannot give p <= {SIGNIFICANT}; take 19 or more"
    elif not sparse:
        reason = f"no circuit smaller than the whole keeps its own set within {tolerance:g}"
    elif beyond >= tolerance and p <= SIGNIFICANT:
        word = "distinct"
        reason = (
            f"on another set than its own a circuit errs by {excess:.2f} more (random splits {by_chance:.2f}, "
            f"p = {p:.3f})"
        )
        if least < tolerance:
            reason += f"; but not every circuit: one errs by only {least:.2f} more there"
    elif beyond >= tolerance:
        reason = f"too few images: random splits err by as much too often (p = {p:.3f})"
    elif by_chance >= tolerance:
        reason = f"too few images: circuits of random sets of these sizes already err by {by_chance:.2f} elsewhere"
    else:
        word = "shared"
        reason = (
            f"on another set than its own a circuit errs by only {excess:.2f} more (random splits {by_chance:.2f}, "
            f"p = {p:.3f})"
        )
    return Verdict(word, reason, p, excess, by_chance)


def divisions(sizes: Sequence[int]) -> int:
    """Returns the number of ways to divide ``sum(sizes)`` images into unnamed sets of these sizes."""
    # divided out in whole numbers: factorials of hundreds are beyond floating point
    ways = math.factorial(sum(sizes))
    for count in (*sizes, *Counter(sizes).values()):
        ways //= math.factorial(count)
    return ways


def _listed(sizes: Sequence[int]) -> str:
    return " and ".join(map(str, sizes))
