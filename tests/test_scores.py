"""Selecting from scores: exact counts, ties, shares, arithmetic, normalisation."""

import functools
import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micro import toy as new_toy
from viscircuits.errors import MaskError
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores, kept_count

toy = functools.cache(new_toy)


def scores(*layers: list, relevant: list | None = None, n_images: int = 1, **fields) -> Scores:
    """Layers ``l0``, ``l1``, ... of kernels with these sums; all relevant unless told otherwise."""
    sums = {f"l{i}": torch.tensor(rows, dtype=torch.float64) for i, rows in enumerate(layers)}
    known = {n: torch.ones(a.shape, dtype=torch.bool) for n, a in sums.items()}
    if relevant is not None:
        known = {n: torch.tensor(r, dtype=torch.bool) for n, r in zip(sums, relevant, strict=True)}
    return Scores(sums, known, n_images, "kernel", "actgrad", "a:0", (3, 8, 8), **fields)


def kept(mask) -> dict[str, list[int]]:
    return {name: array.flatten().nonzero().flatten().tolist() for name, array in mask.kept.items()}


values = st.lists(st.integers(0, 4), min_size=1, max_size=12)  # few different numbers, so many ties


@settings(max_examples=40)
@given(st.lists(values, min_size=1, max_size=3), st.floats(0.001, 1.0), st.sampled_from(["best", "worst"]))
def test_exactly_k_and_by_rank(layers, density, order):
    made = scores(*[[[float(v) for v in layer]] for layer in layers])
    total = sum(map(len, layers))
    mask = made.select(density=density, order=order)
    k = max(1, round(density * total))
    assert mask.n_kept == k
    assert made.n_relevant == mask.n_relevant == total
    # ties go by layer, then by flat index
    sign = -1 if order == "best" else 1
    ranked = sorted((sign * v, layer, i) for layer, row in enumerate(layers) for i, v in enumerate(row))[:k]
    assert kept(mask) == {f"l{n}": sorted(i for _, layer, i in ranked if layer == n) for n in range(len(layers))}
    assert mask.zero_scores == sum(v == 0 for v, _, _ in ranked)


@settings(max_examples=40)
@given(st.lists(values, min_size=1, max_size=3))
def test_a_larger_selection_contains_a_smaller_one(layers):
    made = scores(*[[[float(v) for v in layer]] for layer in layers])
    masks = [made.select(count=k) for k in range(1, made.n_relevant + 1)]
    assert all(small <= large for small, large in itertools.pairwise(masks))
    assert [mask.n_kept for mask in masks] == list(range(1, made.n_relevant + 1))
    assert masks[-1].density == 1.0


def test_only_what_is_relevant_is_counted_and_kept():
    made = scores([[9.0, 1.0], [8.0, 2.0]], [[7.0, 3.0]], relevant=[[[0, 1], [0, 1]], [[1, 1]]])
    assert made.n_relevant == 4
    assert kept(made.select(density=0.5)) == {"l0": [], "l1": [0, 1]}
    assert kept(made.select(density=0.75)) == {"l0": [3], "l1": [0, 1]}
    assert made.select(density=0.75).density == 0.75
    assert made.select(density=0.75).sparsity == 0.25


@pytest.mark.parametrize(
    ("density", "relevant", "count"),
    [(0.25, 2, 1), (0.25, 6, 2), (0.25, 10, 2), (0.25, 14, 4), (0.5, 3, 2), (0.5, 5, 2), (0.001, 10, 1), (1.0, 7, 7)],
)
def test_halves_round_to_even_and_one_is_the_least(density, relevant, count):
    assert kept_count(density, relevant) == count
    assert scores([[float(i) for i in range(relevant)]]).select(density=density).n_kept == count


def test_cumulative_is_the_smallest_number_that_reaches_the_share():
    made = scores([[4.0, 3.0], [2.0, 1.0]])  # shares 0.4, 0.7, 0.9, 1
    for share, count in [(0.1, 1), (0.4, 1), (0.41, 2), (0.7, 2), (0.71, 3), (0.95, 4), (1.0, 4)]:
        assert made.select(cumulative=share).n_kept == count, share
    assert scores([[1.0, 0.0, 0.0]]).select(cumulative=1.0).n_kept == 1
    assert scores([[0.0, 0.0]]).select(cumulative=0.5).n_kept == 1


def test_the_worst_are_a_control_of_the_same_size():
    made = scores([[4.0, 0.0, 2.0, 0.0]])
    assert kept(made.select(count=1, order="worst")) == {"l0": [1]}
    assert kept(made.select(count=3, order="worst")) == {"l0": [1, 2, 3]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of density, count and cumulative"),
        ({"density": 0.1, "count": 3}, "exactly one of"),
        ({"density": 0.0}, r"density 0.0 is out of range"),
        ({"density": 1.01}, r"density 1.01 is out of range"),
        ({"density": float("nan")}, "density nan is out of range"),
        ({"cumulative": 0.0}, "cumulative 0.0 is out of range"),
        ({"count": 0}, "count 0 is out of range: the target has 4 relevant kernels"),
        ({"count": 5}, "count 5 is out of range"),
    ],
)
def test_selecting_out_of_range_is_refused(options, message):
    with pytest.raises(MaskError, match=message):
        scores([[4.0, 3.0], [2.0, 1.0]]).select(**options)


def test_minmax_scales_each_layer_over_its_relevant_entries():
    made = scores(
        [[100.0, 2.0], [4.0, 3.0]], [[5.0, 5.0]], [[7.0]], relevant=[[[0, 1], [1, 1]], [[1, 1]], [[1]]], n_images=4
    )
    scaled = made.minmax()
    assert scaled.sums["l0"].tolist() == [[0.0, 0.0], [1.0, 0.5]]  # 100 is not relevant
    assert scaled.sums["l1"].tolist() == [[1.0, 1.0]]  # constant
    assert scaled.sums["l2"].tolist() == [[1.0]]  # one entry
    assert {n: a.tolist() for n, a in scaled.means.items()} == {n: a.tolist() for n, a in scaled.sums.items()}
    assert {n: a.tolist() for n, a in scaled.minmax().sums.items()} == {n: a.tolist() for n, a in scaled.sums.items()}


def test_minmax_then_difference_weighs_both_sets_alike():
    few, many = scores([[1.0, 3.0, 2.0]], n_images=2), scores([[300.0, 100.0, 200.0]], n_images=100)
    assert (few.minmax() - many.minmax()).sums["l0"].tolist() == [[-1.0, 1.0, 0.0]]


def test_minmax_of_a_contrast_leaves_what_is_negative_at_nothing():
    contrast = scores([[5.0, 3.0, 1.0]], [[1.0, 1.0]]) - scores([[1.0, 1.0, 4.0]], [[2.0, 1.0]])
    scaled = contrast.minmax()
    assert scaled.sums["l0"].tolist() == [[1.0, 0.5, 0.0]]
    assert scaled.sums["l1"].tolist() == [[0.0, 0.0]]
    with pytest.raises(MaskError, match="only 2 score above zero"):
        scaled.select(count=3)


def test_arithmetic_acts_on_means():
    tiger, overall = scores([[10.0, 4.0]], n_images=2), scores([[300.0, 500.0]], n_images=100)
    assert (tiger - overall).sums["l0"].tolist() == [[2.0, -3.0]]
    assert (tiger + overall).sums["l0"].tolist() == [[8.0, 7.0]]
    assert (0.5 * tiger).sums["l0"].tolist() == [[2.5, 1.0]]
    both = 0.7 * tiger + 0.3 * overall
    assert both.n_images == 1
    assert both.means["l0"].tolist() == [[0.7 * 5 + 0.3 * 3, pytest.approx(0.7 * 2 + 0.3 * 5)]]
    assert not both.contrast
    assert (both - overall).contrast
    assert (tiger + (-1.0) * overall).contrast
    assert tiger.sums["l0"].tolist() == [[10.0, 4.0]]


def test_a_contrast_counts_its_positive_kernels_only():
    contrast = scores([[5.0, 1.0], [3.0, 0.0]]) - scores([[1.0, 2.0], [1.0, 0.0]])  # 4, -1, 2, 0
    assert kept(contrast.select(count=2)) == {"l0": [0, 2]}
    assert contrast.select(cumulative=1.0).n_kept == 2  # 4 + 2; -1 takes nothing away
    assert contrast.select(cumulative=0.66).n_kept == 1
    assert contrast.select(cumulative=0.75).n_kept == 2  # of 6, not of 5
    with pytest.raises(MaskError, match="asked for 3 structures, but only 2 score above zero in this contrast"):
        contrast.select(density=0.75)
    assert contrast.select(count=3, order="worst").n_kept == 3


def test_scores_of_different_things_do_not_combine():
    one = scores([[1.0, 2.0]])
    for other, message in [
        (replace(one, target="b:1"), "one target and granularity: got 'a:0' .* and 'b:1'"),
        (replace(one, granularity="filter"), r"'a:0' \(kernel\) and 'a:0' \(filter\)"),
        (scores([[1.0], [2.0]]), "one network"),
        (scores([[1.0, 2.0]], [[1.0]]), "one network"),
        (replace(one, density=0.1), "made for one density"),
    ]:
        for a, b in ((one, other), (other, one)):
            with pytest.raises(MaskError, match=message if a is one else "scores "):
                _ = a - b


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(MaskError, match="layer 'l1' are not finite"):
        scores([[1.0]], [[float("nan")]])


def test_force_selects_at_its_own_density_only():
    model, target, images = toy("plain")
    made = score(model, target, images, "force", density=0.25)
    assert made.select(density=0.25).n_kept == kept_count(0.25, made.n_relevant)
    for options in ({"density": 0.3}, {"count": 5}, {"cumulative": 0.5}):
        with pytest.raises(MaskError, match=r"force scores were made for density 0.25 and select at no other"):
            made.select(**options)


def test_force_with_minmax_selects_by_scaled_scores_in_every_round():
    model, target, images = toy("plain")
    made = score(model, target, images, "force", density=0.25, normalise="minmax")
    assert all(float(a.max()) == 1.0 for a in made.sums.values())
    assert made.select(density=0.25).n_kept == kept_count(0.25, made.n_relevant)
    assert made.select(density=0.25) != score(model, target, images, "force", density=0.25).select(density=0.25)


def test_normalise_is_minmax():
    model, target, images = toy("gated")
    plain, scaled = score(model, target, images), score(model, target, images, normalise="minmax")
    assert all(torch.equal(plain.minmax().sums[n], scaled.sums[n]) for n in plain.sums)


def test_zero_scores_taken_to_reach_the_count_are_counted():
    made = scores([[0.0, 0.0, 5.0, 0.0]], relevant=[[[1, 0, 1, 1]]])
    assert made.select(count=1).zero_scores == 0
    assert made.select(count=2).zero_scores == 1
    assert made.select(density=1.0).zero_scores == 2
