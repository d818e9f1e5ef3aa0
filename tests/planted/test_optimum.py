"""The optimum against a loop over all subsets, and against what was planted."""

import copy
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

import viscircuits as vc
from viscircuits.errors import MaskError, ModelError
from viscircuits.planted import CASES
from viscircuits.planted.optimum import cut_down, optimum
from viscircuits.planted.recovery import agreement

TARGET = vc.Target("2", channel=0)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)).eval()
    return model, vc.ImageSet.from_tensors(torch.randn(4, 2, 5, 5))


def test_all_circuits_one_by_one(tiny):
    model, images = tiny
    found = optimum(model, TARGET, images, 6)
    whole = vc.score(model, TARGET, images, "random").select(density=1.0)
    places = [(name, tuple(i)) for name, array in whole.relevant.items() for i in array.nonzero().tolist()]
    assert len(places) == 6
    pictures = torch.stack(list(images))
    full = model(pictures)[:, 0].detach().flatten().numpy()
    best = 0.0
    for size in range(1, 7):
        for chosen in combinations(places, size):
            twin = copy.deepcopy(model)
            for place in set(places) - set(chosen):
                twin.get_submodule(place[0]).weight.data[place[1]] = 0
            if any(("0", (middle, i)) in chosen and ("2", (0, middle)) in chosen for middle in (0, 1) for i in (0, 1)):
                own = twin(pictures)[:, 0].detach().flatten().numpy()
                best = max(best, abs(np.corrcoef(full, own)[0, 1]))
        assert found.pearson[size - 1] == pytest.approx(best, abs=1e-6)
        own = vc.preservation(vc.Circuit(model, TARGET, found.masks[size - 1]), images).pearson
        assert own == pytest.approx(best, abs=1e-6)
        assert found.masks[size - 1].n_kept <= size
    assert (found.pearson[0], found.masks[0].n_kept) == (0, 0)
    assert 0 < found.pearson[1] < found.pearson[4]
    assert found.pearson[5] == pytest.approx(1)


@pytest.mark.parametrize("name", ["mixed", "suppressed"])
def test_the_planted_circuit_is_the_optimum(name):
    """Of its size, none is better by more than a trace; one kernel less costs something."""
    case = cut_down(CASES[name](0))
    images = case.held_out.subset(range(12))
    size = case.truth.n_kept
    found = optimum(case.model, case.target, images, size)
    assert found.masks[-1] == case.truth
    assert found.pearson[-1] == pytest.approx(agreement(case.truth, replace(case, held_out=images)), abs=1e-5)
    assert found.pearson[-1] > 0.99
    assert found.pearson[-2] < found.pearson[-1] - 0.001


def test_cut_down_keeps_what_is_planted():
    case = CASES["silent"](0)
    small = cut_down(case)
    assert small.truth.n_kept == case.truth.n_kept
    assert small.truth.n_relevant == 21
    assert small.parts["decoy"].n_kept == case.parts["decoy"].n_kept
    assert agreement(small.truth, small) > 0.99
    truth, whole = (vc.Circuit(c.model, c.target, c.truth).respond(c.held_out) for c in (small, case))
    torch.testing.assert_close(truth, whole)


def test_what_is_too_large_is_refused(tiny):
    model, images = tiny
    with pytest.raises(MaskError, match=r"expected from 1 to 6 kernels .*; 7 of 6 kernels"):
        optimum(model, TARGET, images, 7)
    case = CASES["silent"](0)
    with pytest.raises(MaskError, match="cut the network down"):
        optimum(case.model, case.target, case.images, 6)
    with pytest.raises(ModelError, match="expected a Sequential"):
        optimum(nn.ModuleList([nn.Conv2d(2, 2, 1)]), TARGET, images, 2)
