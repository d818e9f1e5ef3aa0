"""Recovery of planted circuits, by scores whose quality is known."""

from dataclasses import replace

import pytest
import torch

from viscircuits.errors import MaskError
from viscircuits.mask import Mask
from viscircuits.planted import CASES, Planted, recovery
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores


@pytest.fixture(scope="module")
def copy() -> Planted:
    return CASES["copy"](0)


@pytest.fixture(scope="module")
def mixed() -> Planted:
    return CASES["mixed"](0)


def scores_of(case: Planted, mask: Mask, noise: float = 0.0) -> Scores:
    generator = torch.Generator().manual_seed(0)
    sums = {n: k.float() + noise * torch.rand(k.shape, generator=generator) for n, k in mask.kept.items()}
    return Scores(sums, mask.relevant, 1, "kernel", "by hand", str(case.target), mask.input_shape)


def one_of_each(case: Planted) -> Mask:
    """The first layers of one copy, the last layers of the other."""
    first, second = case.alternatives
    kept = {n: (first if n in ("conv1", "conv3") else second).kept[n] for n in first.kept}
    return Mask(kept, first.relevant, "kernel", first.input_shape)


@pytest.mark.parametrize("which", [0, 1])
def test_either_alternative_is_fully_right(copy, which):
    found = recovery(scores_of(copy, copy.alternatives[which], noise=0.5), copy)
    assert (found.precision, found.recall, found.area) == (1, 1, 1)
    assert found.pearson >= 0.99
    assert found.density == copy.truth.density


def test_mixture_of_alternatives_is_half_right_and_keeps_nothing(copy):
    found = recovery(scores_of(copy, one_of_each(copy)), copy)
    assert (found.precision, found.recall, found.pearson) == (0.5, 0.5, 0)


def test_other_alternatives_do_not_count_against_the_area(copy):
    first, second = copy.alternatives
    interleaved = scores_of(copy, first | second, noise=0.5)
    assert recovery(interleaved, copy).area == 1


@pytest.mark.parametrize(("sign", "area"), [(1, 1), (0, 0.5), (-1, 0)])
def test_area(mixed, sign, area):
    scores = scores_of(mixed, mixed.truth)
    assert recovery(replace(scores, sums={n: sign * s for n, s in scores.sums.items()}), mixed).area == area


def test_area_is_the_fraction_of_pairs_in_order(mixed):
    scores = scores_of(mixed, mixed.truth, noise=3.0)
    yes = torch.cat([scores.sums[n][k] for n, k in mixed.truth.kept.items()]).tolist()
    no = torch.cat([scores.sums[n][k] for n, k in (~mixed.truth).kept.items()]).tolist()
    expected = sum(a > b for a in yes for b in no) / (len(yes) * len(no))
    assert 0.5 < expected < 0.9
    assert recovery(scores, mixed).area == pytest.approx(expected)


def test_larger_selections(copy):
    density = 3 * copy.truth.density
    found = recovery(scores_of(copy, copy.truth), copy, density=density)
    assert (found.precision, found.recall, found.density) == (1 / 3, 1, density)
    assert found.pearson >= 0.99


def test_the_or_is_found_by_gradients_and_not_by_size():
    case = CASES["either"](0)
    by_gradient = recovery(score(case.model, case.target, case.images, "actgrad"), case)
    by_size = recovery(score(case.model, case.target, case.images, "magnitude"), case)
    assert by_gradient.recall >= 0.8
    assert by_gradient.area >= 0.98
    assert by_size.recall <= 0.2


def test_scores_of_something_else_are_refused(copy):
    scores = scores_of(copy, copy.truth)
    with pytest.raises(MaskError, match=r"expected scores of kernels for conv4:\d, got scores of kernels for conv1:0"):
        recovery(replace(scores, target="conv1:0"), copy)
    with pytest.raises(MaskError, match="got scores of filters"):
        recovery(replace(scores, granularity="filter"), copy)
