"""The full model's responses for several targets at once, beside one at a time."""

import torch

import viscircuits as vc
from viscircuits.execution.response import respond_full


def test_one_run_serves_all_targets(shapesnet, shapes):
    images = shapes[1].subset(range(7))
    graph = vc.trace(shapesnet, images[0].shape)
    texts = (
        "features.10:5",
        "features.10:6@max",
        "features.6:2@3,4",
        "logit:1",
        "loss",
        "features.3:1 - features.6:1@max",
    )
    readouts = [vc.Readout(vc.parse_target(text), graph) for text in texts]
    for readout, found in zip(readouts, respond_full(shapesnet, readouts, images, batch_size=3), strict=True):
        alone = vc.respond(shapesnet, readout, images)
        assert torch.allclose(found.values, alone.values, rtol=1e-4, atol=1e-5 * float(alone.values.abs().max()))
        assert all(a is b or torch.equal(a, b) for a, b in zip(found.frozen, alone.frozen, strict=True))
