"""Several circuits in one pass: the responses each has alone, and every picture read once."""

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import viscircuits as vc
from viscircuits.execution import together
from viscircuits.execution.together import respond_all


def test_responses_are_those_of_each_circuit_alone(shapesnet, shapes):
    scoring, held_out = shapes[0].subset(range(8)), shapes[1].subset(range(7))
    for text in ("features.10:5", "features.10:5@max", "features.6:2@3,4", "logit:1"):
        target = vc.parse_target(text)
        scores = vc.score(shapesnet, target, scoring)
        circuits = [vc.Circuit(shapesnet, target, scores.select(density=d)) for d in (1.0, 0.3, 0.05, 0.001)]
        every = respond_all([c.execution for c in circuits], held_out, batch_size=3)
        for circuit, found in zip(circuits, every, strict=True):
            expected = vc.respond(shapesnet, circuit.readout, held_out, weights=circuit.weights).values
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_pictures_are_read_once(shapesnet, shapes, monkeypatch):
    target = vc.Target("features.10", 5)
    scores = vc.score(shapesnet, target, shapes[0].subset(range(4)))
    circuits = [vc.Circuit(shapesnet, target, scores.select(density=d)) for d in (0.9, 0.3)]
    passes = []
    batches = vc.ImageSet.batches
    counted = lambda self, size, *a, **k: passes.append(size) or batches(self, size, *a, **k)  # noqa: E731
    monkeypatch.setattr(vc.ImageSet, "batches", counted)
    respond_all([c.execution for c in circuits], shapes[1].subset(range(5)), batch_size=2)
    assert passes == [2]


@pytest.mark.parametrize("biases", ["masked", "pruned"])
@pytest.mark.parametrize(
    ("name", "layer"),
    [("squeezenet1_1", "features.6.expand3x3"), ("resnet18", "layer2.0.conv2"), ("alexnet", "features.3")],
)
def test_the_first_layers_are_computed_once_for_all(name, layer, biases):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).double().eval()
    target = vc.Target(layer, 3)
    scores = vc.score(model, target, noise(2), "random")
    circuits = [vc.Circuit(model, target, scores.select(density=d), biases) for d in (0.97, 0.9, 0.85, 0.8, 0.001)]
    executions = [c.execution for c in circuits]
    shared = together._share(executions)
    assert shared is not None
    assert 2 * shared.stem.n_filters < sum(len(shared.tails[i].reads) for i in shared.tails)
    with FlopCounterMode(display=False) as shared_flops:
        found = respond_all(executions, noise(12), batch_size=5)
    with FlopCounterMode(display=False) as alone:
        expected = [vc.respond(model, c.readout, noise(12), weights=c.weights).values for c in circuits]
    assert shared_flops.get_total_flops() < 0.9 * alone.get_total_flops()
    for ours, wanted in zip(found, expected, strict=True):
        assert torch.allclose(ours, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))


def test_what_the_target_reads_is_never_part_of_what_is_shared():
    model = torchvision.models.squeezenet1_1(weights=None).eval()
    target = vc.Target("features.0", 3)
    scores = vc.score(model, target, noise(2), "magnitude")
    circuits = [vc.Circuit(model, target, scores.select(density=d)) for d in (1.0, 0.7)]
    assert together._share([c.execution for c in circuits]) is None


def noise(n: int) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
