"""Criteria in rounds and along a path: FORCE is SNIP in ten rounds; the rest against networks edited by hand."""

import copy
import functools

import pytest
import torch
from torch import nn

from micro import toy as new_toy
from oracles import kernel_weights, oracle
from viscircuits.errors import MaskError
from viscircuits.mask import Mask
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.rounds import Dimmed
from viscircuits.saliency.registry import needs_density, score
from viscircuits.target import Target

GRADIENT_CRITERIA = ("actgrad", "snip", "gradient")
ALMOST_NOTHING = 1e-7

toy = functools.cache(new_toy)  # tracing is what takes long


def stacked(images):
    return torch.stack([images[i] for i in range(len(images))])


@pytest.mark.parametrize("normalise", [None, "minmax"])
def test_force_is_snip_in_ten_rounds(normalise):
    model, target, images = toy("gated")
    one = score(model, target, images, "force", density=0.3, normalise=normalise)
    other = score(model, target, images, "snip,rounds=10", density=0.3, normalise=normalise)
    assert all(torch.equal(one.sums[name], other.sums[name]) for name in one.sums)
    assert (one.density, other.density, other.criterion) == (0.3, 0.3, "snip,rounds=10")


def scaled(model: nn.Module, relevant, factors) -> nn.Module:
    """A copy in which each relevant structure is multiplied by its factor."""
    edited = copy.deepcopy(model)
    for name, weight in kernel_weights(edited).items():
        if name in relevant:
            factor = torch.where(relevant[name], factors[name], torch.ones(()).double())
            weight.data *= factor.reshape(*factor.shape, *[1] * (weight.ndim - factor.ndim))
    return edited


def measured(model, target, images, relevant, factors, criterion, granularity):
    """The criterion's definition in a network whose structures are scaled, with the weights that they had before.

    All are linear in the weight that they name, so the oracle's numbers are divided by the factor.
    """
    table = oracle(scaled(model, relevant, factors), target, stacked(images), list(images.labels))
    values = {n: table[criterion, granularity][n] * r for n, r in relevant.items()}
    if criterion == "gradient":
        return values
    return {n: v / factors[n] for n, v in values.items()}


@pytest.mark.parametrize("granularity", ["weight", "kernel"])
@pytest.mark.parametrize("criterion", GRADIENT_CRITERIA)
@pytest.mark.parametrize("name", ["grouped", "gated"])  # no ReLU sees an exact 0, where almost nothing is another thing
def test_two_rounds_are_their_definition(name, criterion, granularity):
    model, target, images = toy(name)
    images = images.subset(range(2))
    got = score(model, target, images, f"{criterion},rounds=2", density=0.4, granularity=granularity)
    first = score(model, target, images, criterion, granularity=granularity)
    m = first.n_relevant
    mask = first.select(count=round((round(0.4 * m) * m) ** 0.5))
    factors = {n: torch.where(kept, 1.0, ALMOST_NOTHING).double() for n, kept in mask.kept.items()}
    expected = measured(model, target, images, first.relevant, factors, criterion, granularity)
    assert_close(got, expected, 1e-4)
    assert needs_density(f"{criterion},rounds=2")
    assert not needs_density(criterion)


@pytest.mark.parametrize("granularity", ["weight", "kernel"])
@pytest.mark.parametrize("criterion", GRADIENT_CRITERIA)
@pytest.mark.parametrize("name", ["plain", "grouped", "gated"])
def test_two_steps_are_the_mean_over_two_dimmed_networks(name, criterion, granularity):
    model, target, images = toy(name)
    images = images.subset(range(2))
    got = score(model, target, images, f"{criterion},steps=2", granularity=granularity)
    parts = []
    for share in (0.25, 0.75):
        factors = {n: torch.full(r.shape, share, dtype=torch.float64) for n, r in got.relevant.items()}
        parts.append(measured(model, target, images, got.relevant, factors, criterion, granularity))
    assert_close(got, {n: (parts[0][n] + parts[1][n]) / 2 for n in got.sums}, 1e-10)


def test_filters_under_a_mask_have_the_output_they_would_have():
    model, target, images = toy("plain")
    images = images.subset(range(2))
    got = score(model, target, images, "actgrad,rounds=2", density=0.4, granularity="filter")
    first = score(model, target, images, "actgrad", granularity="filter")
    mask = first.select(count=round((round(0.4 * first.n_relevant) * first.n_relevant) ** 0.5))
    removed = {n: (r & ~mask.kept[n]) for n, r in first.relevant.items()}
    assert any(bool(r.any()) for r in removed.values())
    for name, gone in removed.items():
        assert bool((got.sums[name][gone] >= 0).all())
    deepest = next(n for n, r in removed.items() if bool(r.any()))  # what stands before it is as it was
    position = int(removed[deepest].nonzero()[0, 0])
    assert float(got.sums[deepest][position]) > 0 or float(first.sums[deepest][position]) == 0


def test_path_of_a_linear_network_changes_nothing():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False)).double().eval()
    _, _, images = toy("plain")
    one, path = (score(model, Target("0", channel=1), images, f"snip,steps={s}") for s in (1, 4))
    assert all(torch.allclose(one.sums[n], path.sums[n], rtol=1e-12) for n in one.sums)


@pytest.mark.parametrize("name", ["plain", "transposed"])
def test_dimmed_masks_scale_what_is_kept(name):
    model, target, images = toy(name)
    scores = score(model, target, images, "magnitude")
    mask = scores.select(density=0.5)
    dimmed = Dimmed(mask.kept, mask.relevant, mask.granularity, mask.input_shape, share=0.25)
    graph = Pass(model, [target], images).graph
    plain, soft = mask.factors(graph), dimmed.factors(graph)
    irrelevant = Mask(
        {n: torch.zeros_like(k) for n, k in mask.kept.items()}, mask.relevant, mask.granularity, mask.input_shape
    ).factors(graph)
    for parameter in plain:
        rest = irrelevant[parameter].bool()
        assert torch.equal(soft[parameter][rest], torch.ones_like(soft[parameter][rest]))
        assert torch.equal(soft[parameter][~rest], 0.25 * plain[parameter][~rest])


@pytest.mark.parametrize(
    ("criterion", "density", "text"),
    [
        ("snip,rounds=3", None, "depends on the density"),
        ("snip,rounds=0", None, "rounds 0 is out of range"),
        ("actgrad,steps=-1", None, "steps -1 is out of range"),
        ("snip,round=3", None, r"snip has no option 'round'; closest: 'rounds'.*it has rounds, steps"),
        ("magnitude,rounds=3", None, "magnitude has no option 'rounds'; it has none"),
        ("snip,density=3", None, "snip has no option 'density'"),
    ],
)
def test_bad_options(criterion, density, text):
    model, target, images = toy("plain")
    with pytest.raises(MaskError, match=text):
        score(model, target, images, criterion, density=density)


def assert_close(got, expected, tolerance: float) -> None:
    for name, values in got.sums.items():
        largest = float(expected[name].abs().max())
        assert largest > 0
        assert float((values - expected[name]).abs().max()) <= tolerance * largest, name
