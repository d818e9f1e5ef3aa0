"""The order of vertices within columns that lets the fewest lines cross.

Sugiyama's method: barycentre sweeps to and fro, then sifting (every vertex moves to its best place in its column) while
that helps; from several starts, of which the best is taken. Vertices of one block stay together. Everything is
deterministic. Pure Python on names.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence

Columns = list[list[str]]
Neighbours = Mapping[str, Sequence[str]]
Ends = tuple[list[int], list[int]]

_SWEEPS = 3
_STARTS = 6
_LARGE = 600
"""Starts times links: large drawings take fewer starts, between which there is little to choose."""


def ordered(columns: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], blocks: Mapping[str, str]) -> Columns:
    """Returns the columns with their vertices in an order of few crossings.

    Args:
        columns: vertices, column by column; every one stands once.
        links: pairs of vertices in neighbouring columns, left one first.
        blocks: vertex -> the block it belongs to; blocks stay in one piece.
    """
    # a generator of its own: one circuit has one drawing, and the caller's random numbers stay as they are
    generator = random.Random(0)
    best, fewest = [list(c) for c in columns], crossings(columns, links)
    before, after = _sides(links)
    for start in range(max(1, min(_STARTS, _LARGE // max(1, len(links))))):
        if fewest == 0:
            break
        here = [list(c) for c in columns]
        # the first start is the order of execution, which often is the best already
        if start:
            here = [_shuffled(column, blocks, generator) for column in here]
        for _ in range(_SWEEPS):
            for i in range(1, len(here)):
                here[i] = _by_barycentre(here[i], here[i - 1], before, blocks)
            for i in range(len(here) - 2, -1, -1):
                here[i] = _by_barycentre(here[i], here[i + 1], after, blocks)
            sifted = _settled(here, links, before, after, blocks)
            count = crossings(sifted, links)
            if count < fewest:
                best, fewest = sifted, count
    return best


def _shuffled(column: list[str], blocks: Mapping[str, str], generator: random.Random) -> list[str]:
    return _grouped(column, {v: generator.random() for v in column}, blocks)


def crossings(columns: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    """Returns how many pairs of links cross."""
    place = {v: i for column in columns for i, v in enumerate(column)}
    where = {v: i for i, column in enumerate(columns) for v in column}
    total = 0
    for i in range(len(columns) - 1):
        ends = sorted((place[a], place[b]) for a, b in links if where[a] == i)
        total += _inversions([b for _, b in ends])
    return total


def _inversions(values: Sequence[int]) -> int:
    """Pairs that stand in falling order."""
    seen: list[int] = []
    count = 0
    for value in reversed(values):
        # those seen stand to the right of this one; the smaller of them are crossed
        count += bisect_left(seen, value)
        insort(seen, value)
    return count


def _sides(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for a, b in links:
        before.setdefault(b, []).append(a)
        after.setdefault(a, []).append(b)
    return before, after


def _by_barycentre(column: list[str], other: list[str], neighbours: Neighbours, blocks: Mapping[str, str]) -> list[str]:
    """The column sorted by the mean place of each vertex's neighbours; a vertex without any keeps its place."""
    place = {v: (i + 0.5) / len(other) for i, v in enumerate(other)}
    means = {}
    for i, v in enumerate(column):
        own = [place[n] for n in neighbours.get(v, ())]
        means[v] = sum(own) / len(own) if own else (i + 0.5) / len(column)
    return _grouped(column, means, blocks)


def _grouped(column: list[str], keys: Mapping[str, float], blocks: Mapping[str, str]) -> list[str]:
    members: dict[str, list[str]] = {}
    for v in column:
        members.setdefault(blocks[v], []).append(v)
    middle = {}
    for name, own in members.items():
        middle[name] = sum(keys[v] for v in own) / len(own)
    return [v for name in sorted(members, key=middle.__getitem__) for v in sorted(members[name], key=keys.__getitem__)]


def _settled(
    columns: Columns, links: Sequence[tuple[str, str]], before: Neighbours, after: Neighbours, blocks: Mapping[str, str]
) -> Columns:
    """The columns after sifting to and fro until that removes no more crossings."""
    result = [list(c) for c in columns]
    fewest = crossings(result, links)
    while fewest:
        for i in [*range(len(result)), *range(len(result) - 2, -1, -1)]:
            left = result[i - 1] if i else []
            right = result[i + 1] if i + 1 < len(result) else []
            result[i] = _sifted(result[i], _ends(result[i], left, right, before, after), blocks)
        count = crossings(result, links)
        if count == fewest:
            break
        fewest = count
    return result


def _ends(
    column: list[str], left: list[str], right: list[str], before: Neighbours, after: Neighbours
) -> dict[str, Ends]:
    """Vertex -> the places of its neighbours on either side, in order."""
    at_left = {v: k for k, v in enumerate(left)}
    at_right = {v: k for k, v in enumerate(right)}
    ends = {}
    for v in column:
        ends[v] = sorted(at_left[n] for n in before.get(v, ())), sorted(at_right[n] for n in after.get(v, ()))
    return ends


def _sifted(column: list[str], ends: Mapping[str, Ends], blocks: Mapping[str, str]) -> list[str]:
    """The column with every block, and every vertex in its block, moved to where its lines cross the fewest."""

    def gain(upper: list[str], lower: list[str]) -> int:
        """How many crossings it saves to put the lower ones above."""
        return sum(_above(ends[u], ends[v]) - _above(ends[v], ends[u]) for u in upper for v in lower)

    # blocks first: once they stand well, moving vertices inside of one tears no block apart
    units = _sift(_blocks(column, blocks), gain)
    sifted: list[str] = []
    for unit in units:
        alone = [[v] for v in unit]
        sifted += [v for (v,) in _sift(alone, gain)]
    return sifted


def _sift(units: list[list[str]], gain: Callable[[list[str], list[str]], int]) -> list[list[str]]:
    for unit in [*units]:
        others = [other for other in units if other is not unit]
        saved, here = [0], 0
        for other in others:  # from the very top downwards
            here += gain(unit, other)
            saved.append(here)
        # of equally good places its own, or the sweeps would never come to rest
        place = max(range(len(saved)), key=lambda i: (saved[i], i == units.index(unit)))
        units = [*others[:place], unit, *others[place:]]
    return units


def _above(upper: Ends, lower: Ends) -> int:
    """Crossings between the links of two vertices when the first stands above the second."""
    return sum(bisect_left(b, a) for mine, b in zip(upper, lower, strict=True) for a in mine)


def _blocks(column: list[str], blocks: Mapping[str, str]) -> list[list[str]]:
    units: list[list[str]] = []
    for v in column:
        if units and blocks[units[-1][0]] == blocks[v]:
            units[-1].append(v)
        else:
            units.append([v])
    return units
