"""Set algebra of circuits against sets of tuples, overlaps by chance against draws, trees against arithmetic."""

from itertools import combinations

import pytest
import torch

from viscircuits.errors import MaskError, StudyError
from viscircuits.mask import Mask
from viscircuits.subcircuits.algebra import WHOLE, Overlaps, difference, overlaps, shared_core

SHAPES = {"a": (4, 5), "b": (6, 4)}


def random_mask(generator: torch.Generator, layers=tuple(SHAPES), density: float = 0.5) -> Mask:
    relevant = {name: torch.rand(SHAPES[name], generator=generator) < 0.8 for name in layers}
    kept = {name: r & (torch.rand(r.shape, generator=generator) < density) for name, r in relevant.items()}
    return Mask(kept, relevant, "kernel", (3, 8, 8))


def entries(arrays) -> set:
    return {(name, *index) for name, array in arrays.items() for index in array.nonzero().tolist()}


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(3)
    return [random_mask(generator), random_mask(generator), random_mask(generator, ("a",)), random_mask(generator)]


def test_shared_core(masks):
    kept = [entries(mask.kept) for mask in masks]
    for needed in range(1, 5):
        core = shared_core(masks, needed)
        assert entries(core.kept) == {e for e in set().union(*kept) if sum(e in k for k in kept) >= needed}
        assert entries(core.relevant) == set().union(*(entries(mask.relevant) for mask in masks))
    assert shared_core(masks) == shared_core(masks, 4)
    assert shared_core(masks[:1]) == masks[0]
    for wrong in (0, 5):
        with pytest.raises(MaskError, match=f"from 1 to the number of circuits, 4; got {wrong}"):
            shared_core(masks, wrong)


def test_difference(masks):
    first, second = masks[:2]
    parts = difference(first, second)
    a, b = entries(first.kept), entries(second.kept)
    assert [entries(m.kept) for m in (parts.both, parts.first, parts.second)] == [a & b, a - b, b - a]
    assert parts.iou == len(a & b) / len(a | b) == first.iou(second)
    for layer, found in parts.counts.items():
        assert found == tuple(len([e for e in s if e[0] == layer]) for s in (a & b, a - b, b - a))
    nothing = shared_core([first, ~first])
    assert difference(nothing, nothing).iou == 1


def test_overlaps_count_what_is_relevant_to_both(masks):
    found = overlaps({str(i): mask for i, mask in enumerate(masks)})
    assert list(found.iou) == [WHOLE, "a", "b"]
    for layer in found.iou:
        for i, j in [*combinations(range(4), 2), (1, 1)]:
            common = entries(masks[i].relevant) & entries(masks[j].relevant)
            a, b = ({e for e in entries(masks[k].kept) & common if layer in (WHOLE, e[0])} for k in (i, j))
            value = float(found.iou[layer][i, j])
            assert value == pytest.approx(len(a & b) / len(a | b)) if a | b else value != value
    assert bool(found.iou["b"][2].isnan().all())  # the third has no kernels there


def test_overlap_by_chance_is_that_of_random_circuits():
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": (2000, 500), "b": (900, 100)}
    everything = {name: torch.ones(n, 1, dtype=torch.bool) for name, (n, _) in sizes.items()}

    def drawn() -> Mask:
        kept = {}
        for name, (n, k) in sizes.items():
            kept[name] = torch.zeros(n, 1, dtype=torch.bool)
            kept[name][torch.randperm(n, generator=generator)[:k]] = True
        return Mask(kept, everything, "kernel", (3, 8, 8))

    found = overlaps({str(i): drawn() for i in range(60)})
    assert float(found.chance["a"][0, 1]) == pytest.approx(125 / (1000 - 125))
    for layer in found.iou:
        measured, expected = found.mean(layer)
        assert measured == pytest.approx(expected, rel=0.02)


def blocks() -> Overlaps:
    iou = torch.tensor([[1, 0.2, 0.8, 0.0], [0.2, 1, 0.2, 0.6], [0.8, 0.2, 1, 0.1], [0.0, 0.6, 0.1, 1]]).double()
    return Overlaps(tuple("wxyz"), {WHOLE: iou}, {WHOLE: iou * 0 + 0.05})


def test_tree():
    tree = blocks().linkage()
    # w and y at 1 - .8, x and z at 1 - .6, then the two pairs at 1 - (.2 + 0 + .2 + .1) / 4
    assert tree[:, 2].tolist() == pytest.approx([0.2, 0.4, 0.875])
    assert [set(row) for row in tree[:, :2].int().tolist()] == [{0, 2}, {1, 3}, {4, 5}]
    assert tree[:, 3].tolist() == [2, 2, 4]
    order = blocks().order()
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert blocks().groups(0.5) == ((0, 2), (1, 3))
    assert blocks().groups(0.7) == ((0, 2), (1,), (3,))
    assert blocks().groups(0.1) == ((0, 1, 2, 3),)


def test_circuits_without_overlap_to_speak_of_are_far_apart(masks):
    tree = overlaps({str(i): mask for i, mask in enumerate(masks)}).linkage("b")
    assert float(tree[-1, 2]) == 1.0


def test_file(masks, tmp_path):
    found = overlaps({f"n{i}": mask for i, mask in enumerate(masks)})
    found.save(tmp_path / "o.safetensors")
    again = Overlaps.load(tmp_path / "o.safetensors")
    assert again.names == found.names
    for layer in found.iou:
        torch.testing.assert_close(again.iou[layer], found.iou[layer], equal_nan=True)
        torch.testing.assert_close(again.chance[layer], found.chance[layer], equal_nan=True)
    with pytest.raises(StudyError, match="no file"):
        Overlaps.load(tmp_path / "p.safetensors")


def test_errors(masks):
    filters = Mask({"a": torch.ones(4).bool()}, {"a": torch.ones(4).bool()}, "filter", (3, 8, 8))
    with pytest.raises(MaskError, match="circuits of one granularity"):
        overlaps({"0": masks[0], "1": filters})
    other = Mask({"a": torch.ones(2, 2).bool()}, {"a": torch.ones(2, 2).bool()}, "kernel", (3, 8, 8))
    with pytest.raises(MaskError, match="different networks: layer 'a'"):
        overlaps({"0": masks[0], "1": other})
    with pytest.raises(MaskError, match="at least two circuits"):
        overlaps({"0": masks[0]}).linkage()
