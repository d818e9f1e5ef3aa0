"""Faithfulness both ways, leave-one-out damage, intervals and stability, against loops and circuits that are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import viscircuits as vc
from viscircuits.errors import ImageError, MaskError
from viscircuits.evaluate.faithfulness import Faithful, Faithfulness, faithfulness, minimality, random_like
from viscircuits.evaluate.interval import bootstrap
from viscircuits.evaluate.preservation import Preservation
from viscircuits.evaluate.stability import chance_iou, stability
from viscircuits.planted import CASES

TARGET = vc.Target("2", channel=0)


@pytest.fixture(scope="module")
def either():
    return CASES["either"](0)


@pytest.fixture(scope="module")
def tiny():
    """A network of two layers, its pictures, and scores of its 8 relevant kernels."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(2, 2, 3, padding=1)
    ).eval()  # fmt: skip
    images = vc.ImageSet.from_tensors(torch.randn(6, 3, 6, 6))
    return model, images, vc.score(model, TARGET, images, "actgrad")


def point(density: float, alone: float, without: float) -> Faithful:
    kept, left = (Preservation(*[float(r)] * 4, 0.0, 1.0, None, 3, 3) for r in (alone, without))
    interval = bootstrap(torch.arange(3.0)[:, None], torch.arange(3.0)[:, None], resamples=2)
    return Faithful(float(density), kept, left, interval, interval, 0.1, 0.9)


# ---- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1e4])
def test_bootstrap_literally(offset):
    full = torch.randn(9, 5).double() + offset
    ours = 0.5 * (full - offset) + 0.4 * torch.randn(9, 5) - offset
    draws = torch.randint(9, (60, 9), generator=torch.Generator().manual_seed(4))
    values = [abs(np.corrcoef(full[rows].flatten(), ours[rows].flatten())[0, 1]) for rows in draws]
    found = bootstrap(full, ours, level=0.8, resamples=60, seed=4)
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.1, 0.9]), abs=1e-7)
    assert found.level == 0.8
    assert found.low < found.high - 0.01
    assert found == bootstrap(full, ours, level=0.8, resamples=60, seed=4)


def test_bootstrap_of_what_never_changes():
    full = torch.randn(5, 3)
    assert bootstrap(full, torch.full((5, 3), 2.0)).high == 0
    whole = bootstrap(full, -2 * full)
    assert (whole.low, whole.high) == pytest.approx((1, 1), abs=1e-7)


def test_bootstrap_covers_the_truth():
    """Of 60 samples of a known correlation, about 54 of the 90 % intervals hold it."""
    hits = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        full = torch.randn(80, 1, generator=generator).double()
        ours = 0.6 * full + 0.8 * torch.randn(80, 1, generator=generator)
        found = bootstrap(full, ours, level=0.9, resamples=300, seed=seed)
        hits += found.low <= 0.6 <= found.high
    assert 47 <= hits <= 60


# ---- both ways -------------------------------------------------------------------------------------------------------


def test_the_planted_circuit_both_ways(either):
    """The truth alone is all there is; without it nothing is left, though 98 % of the kernels stay."""
    circuit = vc.Circuit(either.model, either.target, either.truth)
    found = faithfulness([circuit], either.held_out, n_random=2, resamples=50, batch_size=96)
    (only,) = found.points
    assert only.alone.pearson > 0.99
    assert only.without.pearson < 0.1
    assert only.alone_interval.low <= only.alone.pearson <= only.alone_interval.high
    assert only.random_alone < 0.5
    assert only.random_without > 0.5
    assert (found.target, found.kind, found.n_random) == (str(either.target), "masked", 2)


def test_points_are_those_of_preservation(tiny):
    model, images, scores = tiny
    circuits = [vc.Circuit(model, TARGET, scores.select(count=count)) for count in (6, 2, 8, 4)]
    seen = []
    found = faithfulness(circuits, images, n_random=1, resamples=10, seed=7, progress=lambda *now: seen.append(now))
    assert [p.density for p in found.points] == [2 / 8, 4 / 8, 6 / 8, 1]
    assert seen[-1] == ("circuits", 16, 16)
    for here, circuit in zip(found.points, sorted(circuits, key=lambda c: c.mask.n_kept), strict=True):
        control = random_like(circuit.mask, 7)
        for kept, mask in ((here.alone, circuit.mask), (here.without, ~circuit.mask)):
            expected = vc.preservation(replace(circuit, mask=mask), images)
            assert kept.pearson == pytest.approx(expected.pearson, abs=1e-5)
            assert kept.reason == expected.reason
        for r, mask in ((here.random_alone, control), (here.random_without, ~control)):
            assert r == pytest.approx(vc.preservation(replace(circuit, mask=mask), images).pearson, abs=1e-5)
    assert found.points[-1].alone.pearson == pytest.approx(1)
    assert found.points[-1].without.reason == "disconnected"


def test_random_masks_keep_as_many_in_each_layer(either):
    drawn = random_like(either.truth, 0)
    assert drawn.counts == either.truth.counts
    assert drawn == random_like(either.truth, 0)
    assert drawn != random_like(either.truth, 1)
    assert drawn.iou(either.truth) < 0.3


def test_area():
    """Over densities .01, .1 and 1, equal steps of the logarithm: (1/2 (.2 + .6) + 1/2 (.6 + 1)) / 2 = .6."""
    found = Faithfulness("a:0", "kernel", (point(0.01, 0.2, 1), point(0.1, 0.6, 1), point(1, 1, 1)), 3, "masked")
    assert found.area("alone") == pytest.approx(0.6)
    assert found.area("without") == pytest.approx(1)
    assert found.area("random_alone") == pytest.approx(0.1)
    uneven = Faithfulness("a:0", "kernel", (point(0.5, 0, 0), point(0.55, 1, 0), point(1, 1, 0)), 3, "masked")
    expected = (0.5 * math.log(1.1) + math.log(1 / 0.55)) / math.log(2)
    assert uneven.area("alone") == pytest.approx(expected)
    assert replace(found, points=found.points[:1]).area("alone") == 0.2


def test_circuits_that_do_not_belong_together(tiny):
    model, images, scores = tiny
    one = vc.Circuit(model, TARGET, scores.select(count=4))
    for some in (
        [],
        [one, vc.Circuit(model, vc.Target("2", 1), scores.select(count=4))],
        [one, one.compensated(images)],
    ):
        with pytest.raises(MaskError, match="expected circuits of one model, target, granularity and kind"):
            faithfulness(some, images)
    with pytest.raises(MaskError, match="got an empty one"):
        faithfulness([replace(one, mask=one.mask - one.mask)], images)


# ---- what each structure is worth ------------------------------------------------------------------------------------


def test_minimality_literally(tiny):
    model, images, scores = tiny
    circuit = vc.Circuit(model, TARGET, scores.select(count=5))
    found = minimality(circuit, images)
    whole = vc.preservation(circuit, images).pearson
    assert found.pearson == pytest.approx(whole, abs=1e-5)
    assert (found.n_kept, len(found.damage)) == (5, 5)
    for (layer, index), damage in zip(found.structures, found.damage, strict=True):
        kept = {name: array.clone() for name, array in circuit.mask.kept.items()}
        assert kept[layer][index]
        kept[layer][index] = False
        less = vc.preservation(replace(circuit, mask=replace(circuit.mask, kept=kept)), images).pearson
        assert damage == pytest.approx(whole - less, abs=1e-5)
    assert max(found.damage) > 0.1


def test_every_planted_kernel_is_needed_and_what_is_added_is_not(either):
    truth = vc.Circuit(either.model, either.target, either.truth)
    assert minimality(truth, either.held_out, batch_size=96).needless() == 0
    more = replace(truth, mask=either.truth | random_like(either.truth, 0))
    found = minimality(more, either.held_out, batch_size=96, at_most=10)
    assert (len(found.damage), found.n_kept) == (10, more.mask.n_kept)
    added = [not bool(either.truth.kept[layer][index]) for layer, index in found.structures]
    assert found.needless() == pytest.approx(sum(added) / 10)
    assert 0 < sum(added) < 10


def test_minimality_refuses(tiny):
    model, images, scores = tiny
    circuit = vc.Circuit(model, TARGET, scores.select(count=5))
    with pytest.raises(MaskError, match=r"is not compensated, got a masked, mean-compensated circuit of 5 kernels"):
        minimality(circuit.compensated(images), images)


# ---- stability -------------------------------------------------------------------------------------------------------


def test_stability_literally(tiny):
    model, images, _ = tiny
    found = stability(model, TARGET, images, density=0.5, criterion="actgrad", repeats=2, seed=3)
    expected = []
    for seed in (3, 4):
        masks = [vc.score(model, TARGET, half, "actgrad").select(density=0.5) for half in images.split(0.5, seed=seed)]
        expected.append(masks[0].iou(masks[1]))
    assert found.halves == tuple(expected)
    assert found.seeds == (1.0,)
    assert found.chance == pytest.approx(0.5 / 1.5)
    assert found.density == 0.5


def test_random_circuits_agree_as_by_chance(either):
    found = stability(either.model, either.target, either.images, density=0.3, criterion="random", repeats=6)
    assert np.mean(found.seeds) == pytest.approx(found.chance, abs=0.03)
    assert found.chance == pytest.approx(0.3 / 1.7, abs=1e-3)
    assert found.halves == (1.0,) * 6


def test_chance_by_layer(either):
    drawn = [random_like(either.truth, seed) for seed in range(16)]
    mean = np.mean([a.iou(b) for i, a in enumerate(drawn) for b in drawn[:i]])
    assert chance_iou(drawn[0], drawn[1]) == pytest.approx(mean, abs=0.02)
    assert chance_iou(either.truth, either.truth - either.truth) == 0


def test_stability_refuses(tiny):
    model, images, _ = tiny
    with pytest.raises(ImageError, match="at least two images"):
        stability(model, TARGET, images.subset([0]), density=0.5)
    with pytest.raises(MaskError, match="at least 2 repeats"):
        stability(model, TARGET, images, density=0.5, repeats=1)
