"""Geometry alone: few crossings, no overlaps, lines that run from column to column."""

import random
from itertools import pairwise, permutations

import pytest

from viscircuits.diagram.drawing import broken
from viscircuits.diagram.geometry.curves import Thumbnails, bezier, point
from viscircuits.diagram.geometry.layout import Room, arrange, columns, spread
from viscircuits.diagram.geometry.ordering import crossings, ordered


def case(seed: int, sizes=(3, 4, 4, 3), chance=0.4):
    generator = random.Random(seed)
    names = [[f"{i}.{k}" for k in range(n)] for i, n in enumerate(sizes)]
    links = [(a, b) for one, two in pairwise(names) for a in one for b in two if generator.random() < chance]
    return names, links


def crossings_by_definition(names, links) -> int:
    place = {v: (i, k) for i, column in enumerate(names) for k, v in enumerate(column)}
    count = 0
    for i, (a, b) in enumerate(links):
        for c, d in links[:i]:
            same = place[a][0] == place[c][0]
            count += same and (place[a][1] - place[c][1]) * (place[b][1] - place[d][1]) < 0
    return count


def fewest(names, links) -> int:
    """By trying everything: column after column, the best of every order of the one before."""
    best = {tuple(p): 0 for p in permutations(names[0])}
    for i in range(1, len(names)):
        here = [(a, b) for a, b in links if b in names[i]]
        best = {
            p: min(n + crossings_by_definition([q, p], here) for q, n in best.items())
            for p in map(tuple, permutations(names[i]))
        }
    return min(best.values())


@pytest.mark.parametrize("seed", range(12))
def test_crossings_are_nearly_as_few_as_can_be(seed):
    names, links = case(seed)
    result = ordered(names, links, {v: v.split(".")[0] for column in names for v in column})
    assert [sorted(c) for c in result] == [sorted(c) for c in names]
    assert crossings(result, links) == crossings_by_definition(result, links)
    assert crossings(result, links) <= fewest(names, links) + 1
    assert result == ordered(names, links, {v: v.split(".")[0] for column in names for v in column})


def test_all_optima_together_are_close():
    got = best = 0
    for seed in range(12):
        names, links = case(seed)
        got += crossings(ordered(names, links, {v: "" for column in names for v in column}), links)
        best += fewest(names, links)
    assert got <= 1.05 * best


@pytest.mark.parametrize("seed", range(4))
def test_no_single_move_would_help(seed):
    names, links = case(seed, (5, 9, 9, 5), 0.25)
    result = ordered(names, links, {v: v.split(".")[0] for column in names for v in column})
    fewest_here = crossings(result, links)
    for i, column in enumerate(result):
        for v in column:
            others = [u for u in column if u != v]
            for place in range(len(column)):
                moved = [*result[:i], [*others[:place], v, *others[place:]], *result[i + 1 :]]
                assert crossings(moved, links) >= fewest_here


@pytest.mark.parametrize("seed", range(6))
def test_blocks_stay_in_one_piece(seed):
    names, links = case(seed, (6, 8, 6), 0.3)
    blocks = {v: v.split(".")[0] + "ab"[int(v.split(".")[1]) % 2] for column in names for v in column}
    for column in ordered(names, links, blocks):
        runs = [blocks[v] for i, v in enumerate(column) if i == 0 or blocks[column[i - 1]] != blocks[v]]
        assert len(runs) == len(set(runs))


def test_spread_is_the_nearest_that_keeps_its_distance():
    generator = random.Random(0)
    for _ in range(30):
        wanted = [generator.uniform(-3, 3) for _ in range(7)]
        offsets = [0.0, 1.0, 3.0, 3.5, 4.0, 6.0, 7.0]
        level = [w - o for w, o in zip(wanted, offsets, strict=True)]

        def mean(a: int, b: int, level=level) -> float:
            return sum(level[a : b + 1]) / (b + 1 - a)

        # isotonic regression in closed form: the highest of the lowest means around each place
        best = [max(min(mean(a, b) for b in range(i, 7)) for a in range(i + 1)) for i in range(7)]
        assert spread(wanted, offsets) == pytest.approx([z + o for z, o in zip(best, offsets, strict=True)])


def boxes(names) -> list[Room]:
    return [Room(v, v.split(".")[0], 40.0, 30.0, heading=20.0, foot=10.0) for column in names for v in column]


@pytest.mark.parametrize("seed", range(6))
def test_nothing_overlaps_and_every_line_has_a_way(seed):
    names, links = case(seed, (3, 7, 5, 2), 0.5)
    links += [("0.0", "3.0"), ("0.1", "3.1"), ("1.2", "3.0")]
    plan = arrange(boxes(names), links, [50.0, 60.0, 70.0])
    assert set(plan.routes) == set(links)
    where = {v: i for i, column in enumerate(plan.columns) for v in column}
    for (a, b), route in plan.routes.items():
        assert (route[0], route[-1]) == (a, b)
        assert [where[v] for v in route] == list(range(where[a], where[b] + 1))
    for column in plan.columns:
        for a, b in pairwise(column):
            room = sum(15 if "." in v and ">" not in v else 3 for v in (a, b))
            assert plan.y[b] - plan.y[a] >= room + 8 - 1e-6
    assert len({plan.x[v] for v in plan.columns[1]}) == 1
    assert plan.x["1.0"] - plan.x["0.0"] == 40 + 50
    assert plan.width == 4 * 40 + 50 + 60 + 70
    assert min(plan.y.values()) >= 3
    assert max(plan.y.values()) <= plan.height


def test_a_channel_read_twice_far_away_is_one_line():
    links = [("0.0", "1.0"), ("1.0", "2.0"), ("2.0", "3.0"), ("0.0", "3.0"), ("0.0", "3.1")]
    plan = arrange(boxes([["0.0"], ["1.0"], ["2.0"], ["3.0", "3.1"]]), links, [10.0] * 3)
    assert plan.routes["0.0", "3.0"][:-1] == plan.routes["0.0", "3.1"][:-1] == ("0.0", "0.0>1", "0.0>2")


def test_columns_follow_the_longest_way():
    parts = [Room(v, v, 1.0, 1.0) for v in "abcde"]
    assert columns(parts, [("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"), ("a", "d"), ("d", "e"), ("a", "e")]) == {
        "a": 0, "b": 1, "c": 1, "d": 2, "e": 3,
    }  # fmt: skip
    assert arrange([Room("a", "a", 10.0, 20.0)], [], []).height == 20


def test_pictures_on_lines_do_not_touch_unless_they_say_so():
    generator = random.Random(1)
    pieces = {i: bezier((0.0, generator.random() * 90), (200.0, generator.random() * 90)) for i in range(30)}
    solid = [(100.0, 20.0, 30.0, 30.0)]
    placed = Thumbnails.placed(pieces, 16.0, solid)
    shown = [(x, y, 16, 16) for x, y, free in placed.places.values() if free] + solid
    assert 0 < placed.n_shown == len(shown) - 1 < 30
    for i, a in enumerate(shown):
        for b in shown[:i]:
            assert abs(a[0] - b[0]) * 2 >= a[2] + b[2] or abs(a[1] - b[1]) * 2 >= a[3] + b[3]
    assert point(pieces[0], 0.0) == pieces[0][0]
    assert point(pieces[0], 1.0) == pieces[0][3]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("conv1", ["conv1"]),
        ("features.10", ["features.10"]),
        ("features.7.expand3x3", ["features.7", "expand3x3"]),
        ("layer1.0.conv1", ["layer1.0", "conv1"]),
        ("a_rather_long_name", ["a_rather_long_name"]),
        ("inception4c.branch2.deep.conv", ["inception4c", "branch2.deep", "conv"]),
    ],
)
def test_long_names_break_at_dots(name, lines):
    assert broken(name, 14) == lines
