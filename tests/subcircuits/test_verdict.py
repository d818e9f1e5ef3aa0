"""The words for a split, case by case, and the counts behind them."""

import re
from itertools import permutations

import pytest

from viscircuits.subcircuits.verdict import divisions, judge

QUIET = [0.01 * i for i in range(-9, 10)]  # 19 controls, median 0


@pytest.mark.parametrize(
    ("excess", "controls", "sizes", "sparse", "word", "reason"),
    [
        (0.9, QUIET, (20, 20), True, "distinct", r"errs by 0\.90 more \(random splits 0\.00, p = 0\.050\)"),
        (0.05, QUIET, (20, 20), True, "shared", r"only 0\.05 more .* p = 0\.300"),
        (0.14, QUIET, (20, 20), True, "shared", "only 0.14 more"),  # surely more than by chance, and still small
        (0.9, QUIET, (4, 20), True, "cannot tell", "too few images: sets of 4 and 20"),
        (0.9, QUIET[:18], (20, 20), True, "cannot tell", "too few controls: 18"),
        (0.9, [], (20, 20), True, "cannot tell", "too few controls: 0"),
        (0.9, QUIET, (20, 20), False, "cannot tell", "no circuit smaller than the whole"),
        (0.5, [*QUIET[1:], 0.6], (20, 20), True, "cannot tell", r"too few images: random splits .*p = 0\.100"),
        (0.5, [0.45] * 19, (20, 20), True, "cannot tell", "too few images: circuits of random sets .* err by 0.45"),
        (0.61, [0.45] * 19, (20, 20), True, "distinct", "0.61 more"),
    ],
)
def test_words(excess, controls, sizes, sparse, word, reason):
    verdict = judge(excess, controls, sizes, least=1.0, smallest=min(sizes), sparse=sparse, tolerance=0.15)
    assert verdict.word == word
    assert re.search(reason, verdict.reason), verdict.reason
    assert str(verdict).startswith(f"{word}: ")


def test_p_counts_the_division_among_the_random_ones():
    assert judge(1.0, QUIET, (9, 9), least=1.0, smallest=9, sparse=True, tolerance=0.15).p == 1 / 20
    assert (
        judge(0.09, QUIET, (9, 9), least=1.0, smallest=9, sparse=True, tolerance=0.15).p == 2 / 20
    )  # one control equals it
    assert judge(-1.0, QUIET, (9, 9), least=1.0, smallest=9, sparse=True, tolerance=0.15).p == 1


def test_one_way_only():
    verdict = judge(0.5, QUIET, (20, 20), least=0.02, smallest=10, sparse=True, tolerance=0.15)
    assert verdict.word == "distinct"
    assert str(verdict).endswith("; but not every circuit: one errs by only 0.02 more there")
    assert "but" not in judge(0.5, QUIET, (20, 20), least=0.15, smallest=10, sparse=True, tolerance=0.15).reason


def test_halves_count():
    verdict = judge(0.9, QUIET, (9, 20), least=1.0, smallest=4, sparse=True, tolerance=0.15)
    assert str(verdict).startswith("cannot tell: too few images: sets of 9 and 20")


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (3, 1), (3, 3), (2, 2, 2), (1, 2, 3), (4, 2)])
def test_divisions(sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    found = {
        frozenset(frozenset(order[start : start + size]) for start, size in zip(starts, sizes, strict=True))
        for order in permutations(range(sum(sizes)))
    }
    assert divisions(sizes) == len(found)
