"""The network with its weights in random order."""

import copy

import torch

from viscircuits.probes.control import shuffled


def test_numbers_stay_and_places_change(shapesnet):
    before = copy.deepcopy(shapesnet.state_dict())
    other = shuffled(shapesnet, seed=3)
    for (name, own), new in zip(shapesnet.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(own.flatten().sort().values, new.flatten().sort().values), name
    assert not torch.equal(shapesnet.get_parameter("features.3.weight"), other.get_parameter("features.3.weight"))
    assert all(torch.equal(value, before[name]) for name, value in shapesnet.state_dict().items())
    again, third = shuffled(shapesnet, seed=3), shuffled(shapesnet, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), again.parameters(), strict=True))
    assert not torch.equal(other.get_parameter("features.3.weight"), third.get_parameter("features.3.weight"))
