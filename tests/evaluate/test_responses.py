"""Several circuits in one pass: the responses each has alone, and every picture read once."""

import torch

import viscircuits as vc
from viscircuits.evaluate.responses import respond_all


def test_responses_are_those_of_each_circuit_alone(shapesnet, shapes):
    scoring, held_out = shapes[0].subset(range(8)), shapes[1].subset(range(7))
    for text in ("features.10:5", "features.10:5@max", "features.6:2@3,4", "logit:1"):
        target = vc.parse_target(text)
        scores = vc.score(shapesnet, target, scoring)
        circuits = [vc.Circuit(shapesnet, target, scores.select(density=d)) for d in (1.0, 0.3, 0.05, 0.001)]
        together = respond_all(circuits, held_out, batch_size=3)
        for circuit, found in zip(circuits, together, strict=True):
            expected = vc.respond(shapesnet, circuit.readout, held_out, weights=circuit.weights).values
            assert found.shape == expected.shape
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_pictures_are_read_once(shapesnet, shapes, monkeypatch):
    target = vc.Target("features.10", 5)
    scores = vc.score(shapesnet, target, shapes[0].subset(range(4)))
    circuits = [vc.Circuit(shapesnet, target, scores.select(density=d)) for d in (0.9, 0.3)]
    passes = []
    batches = vc.ImageSet.batches
    monkeypatch.setattr(vc.ImageSet, "batches", lambda self, size: passes.append(size) or batches(self, size))
    respond_all(circuits, shapes[1].subset(range(5)), batch_size=2)
    assert passes == [2]
