"""Masks: set algebra, overlap, and the factors that zero a layer's weights."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from micro import toy as new_toy
from viscircuits.errors import MaskError
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.trace import trace
from viscircuits.saliency.registry import score

toy = functools.cache(new_toy)  # tracing a network is what takes long

SHAPES = {"a": (2, 3), "b": (3, 2), "c": (1, 1)}


# plain lists, made into masks in the tests: run-time type checks draw random numbers, which hypothesis forbids
layer_bits = st.fixed_dictionaries(
    {n: st.lists(st.booleans(), min_size=rows * width, max_size=rows * width) for n, (rows, width) in SHAPES.items()}
)


def mask_of(kept: dict[str, list[bool]], relevant: dict[str, list[bool]], layers: int = 3) -> Mask:
    known = {n: torch.tensor(relevant[n]).view(SHAPES[n]) for n in list(SHAPES)[:layers]}
    return Mask({n: torch.tensor(kept[n]).view(SHAPES[n]) & r for n, r in known.items()}, known, "kernel", (3, 8, 8))


def members(mask: Mask) -> set[tuple[str, int]]:
    return {(n, i) for n, kept in mask.kept.items() for i in kept.flatten().nonzero().flatten().tolist()}


def relevant_members(mask: Mask) -> set[tuple[str, int]]:
    return {(n, i) for n, r in mask.relevant.items() for i in r.flatten().nonzero().flatten().tolist()}


@settings(max_examples=40)
@given(layer_bits, st.tuples(layer_bits, layer_bits, layer_bits))
def test_masks_are_sets(relevant, kept):
    a, b, c = (mask_of(bits, relevant) for bits in kept)
    assert members(a & b) == members(a) & members(b)
    assert members(a | b) == members(a) | members(b)
    assert members(a - b) == members(a) - members(b)
    assert members(~a) == relevant_members(a) - members(a)
    assert (a <= b) == (members(a) <= members(b))
    assert (a == b) == (members(a) == members(b))
    assert ~(a & b) == ~a | ~b
    assert ~~a == a
    assert a & (b | c) == (a & b) | (a & c)
    assert a - b == a & ~b
    assert a.n_kept == len(members(a))
    assert a.n_kept + (~a).n_kept == a.n_relevant == len(relevant_members(a))


@settings(max_examples=40)
@given(layer_bits, st.tuples(layer_bits, layer_bits))
def test_overlap(relevant, kept):
    a, b = (mask_of(bits, relevant) for bits in kept)
    both, either = len(members(a) & members(b)), len(members(a) | members(b))
    assert a.iou(b) == b.iou(a) == (both / either if either else 1.0)
    assert a.iou(a) == 1.0
    by_layer = a.iou_by_layer(b)
    for name in SHAPES:
        ours, theirs = ({i for n, i in members(m) if n == name} for m in (a, b))
        assert by_layer.get(name) == (len(ours & theirs) / len(ours | theirs) if ours | theirs else None)


@settings(max_examples=40)
@given(layer_bits, layer_bits, layer_bits, layer_bits)
def test_masks_of_different_targets_combine(kept, relevant, other_kept, other_relevant):
    """Of two targets' masks one knows more layers; what is relevant to either is relevant."""
    a, b = mask_of(kept, relevant, layers=2), mask_of(other_kept, other_relevant)
    for combined, want in (
        (a | b, members(a) | members(b)),
        (a & b, members(a) & members(b)),
        (b - a, members(b) - members(a)),
    ):
        assert members(combined) == want
        assert relevant_members(combined) == relevant_members(a) | relevant_members(b)


@settings(max_examples=40)
@given(layer_bits, layer_bits)
def test_counts(kept, relevant):
    mask = mask_of(kept, relevant)
    assert mask.counts == {n: (int(k.sum()), int(mask.relevant[n].sum())) for n, k in mask.kept.items()}
    assert mask.density == (mask.n_kept / mask.n_relevant if mask.n_relevant else 0.0)
    assert mask.density + mask.sparsity == 1.0


def test_masks_have_no_hash_and_compare_with_anything():
    mask = Mask({"a": torch.tensor([True])}, {"a": torch.tensor([True])}, "filter", (1, 2, 2))
    assert mask != "a mask"
    assert mask != Mask({"a": torch.tensor([True])}, {"a": torch.tensor([True])}, "kernel", (1, 2, 2))
    more = {"a": torch.tensor([True, False])}
    assert Mask(more, more, "filter", (1, 2, 2)) != Mask(more, {"a": torch.tensor([True, True])}, "filter", (1, 2, 2))
    assert mask != Mask(more, more, "filter", (1, 2, 2))  # another network
    empty = {"b": torch.tensor([False])}
    assert mask == Mask({**mask.kept, **empty}, {**mask.relevant, **empty}, "filter", (1, 2, 2))
    with pytest.raises(TypeError):
        hash(mask)


def test_what_is_no_mask_is_refused():
    yes, no = torch.tensor([True]), torch.tensor([False])
    for kept, relevant, message in [
        ({"a": yes}, {"b": yes}, "kept and relevant name different layers"),
        ({"a": yes}, {"a": torch.tensor([True, True])}, r"mask of layer 'a': expected booleans of shape \(2,\)"),
        ({"a": yes}, {"a": no}, "keeps structures that are not relevant"),
    ]:
        with pytest.raises(MaskError, match=message):
            Mask(kept, relevant, "filter", (1, 2, 2))
    kernels = Mask({"a": yes}, {"a": yes}, "kernel", (1, 2, 2))
    filters = Mask({"a": yes}, {"a": yes}, "filter", (1, 2, 2))
    with pytest.raises(MaskError, match="masks of kernels and of filters do not combine"):
        _ = kernels & filters
    two = torch.tensor([True, True])
    with pytest.raises(MaskError, match="layer 'a' has another shape in each"):
        _ = kernels | Mask({"a": two}, {"a": two}, "kernel", (1, 2, 2))


@pytest.mark.parametrize("name", ["plain", "grouped", "transposed", "one_and_three", "functional", "tokens"])
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_factors_zero_exactly_what_is_not_kept(name, granularity):
    """Entry by entry, through the layer's definition of a kernel (and not through `stored`)."""
    model, target, images = toy(name)
    graph = trace(model, images[0].shape)
    scores = score(model, target, images, "random", granularity=granularity)
    mask = scores.select(density=0.4)
    factors = mask.factors(graph)
    assert set(factors) == {graph.layers[n].weight for n in mask.kept}
    for layer_name, kept in mask.kept.items():
        layer = graph.layers[layer_name]
        weight = model.get_parameter(layer.weight)
        factor = factors[layer.weight].expand(weight.shape)
        keep = kept | ~mask.relevant[layer_name]
        out, width = layer.shape
        per_group = out // layer.groups
        for o in range(out):
            for i in range(width):
                transposed = layer.op == "conv_transpose"
                at = ((o // per_group) * width + i, o % per_group) if transposed else (o, i)
                want = keep[o] if granularity == "filter" else keep[o, i]
                assert torch.equal(factor[at], want.expand(factor[at].shape)), (layer_name, o, i)


def test_a_kernel_that_is_masked_in_a_grouped_transposed_layer_carries_nothing():
    model, _, images = toy("transposed")
    graph = trace(model, images[0].shape)
    layer = graph.layers["up"]  # 4 channels to 6 in 2 groups: 6 x 2 kernels
    for o in range(6):
        for i in range(2):
            kept = torch.zeros(6, 2, dtype=torch.bool)
            kept[o, i] = True
            mask = Mask({"up": kept}, {"up": torch.ones(6, 2, dtype=torch.bool)}, "kernel", (2, 7, 7))
            weight = model.up.weight * mask.factors(graph)[layer.weight]
            for source in range(4):
                x = torch.zeros(1, 4, 1, 1, dtype=torch.float64)
                x[0, source] = 1.0
                alive = F.conv_transpose2d(x, weight, groups=2)[0].abs().sum((1, 2)) > 0
                assert alive.nonzero().flatten().tolist() == ([o] if source == int(layer.sources[o, i]) else [])


def test_relevant_kernels_as_other_structures():
    model, _, images = toy("plain")
    graph = trace(model, images[0].shape)
    kernels = {"conv1": torch.zeros(4, 2, dtype=torch.bool), "fc1": torch.zeros(6, 3, dtype=torch.bool)}
    kernels["conv1"][2, 1] = True
    weights = expand_relevant(graph, kernels, "weight")
    assert list(weights) == ["conv1"]  # nothing of fc1 is relevant
    assert weights["conv1"].shape == (4, 2, 3, 2)
    assert weights["conv1"].sum() == 6
    assert bool(weights["conv1"][2, 1].all())
    assert expand_relevant(graph, kernels, "filter")["conv1"].tolist() == [False, False, True, False]
    assert torch.equal(expand_relevant(graph, kernels, "kernel")["conv1"], kernels["conv1"])
