"""Rescaling: gates on what a circuit keeps, trained and kept as scales.

The papers' circuits hold every weight as it is or zero. A kernel that stays may stand in for some that went, if it may
be louder. Here each kept structure gets one positive number, 1 at first, trained like the gates of
`viscircuits.saliency.learned`; the weights inside a structure keep their proportions and signs. So r says what the kept
structures *can* do, not what they do in the network, and a rescaled circuit says so wherever it is shown.
"""

from dataclasses import replace

import torch

from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.circuit.compensation import Scales
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError
from viscircuits.model.guard.clean import clean
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.gates import Gates
from viscircuits.saliency.gates.training import LOSSES, Training
from viscircuits.saliency.learned import divided
from viscircuits.types import Progress

RATE = 0.03
"""Largest usual step of a scale's logarithm."""
EVERY = 25
"""Steps between two looks at the held pictures."""


@checked
@clean
def rescaled(
    circuit: Circuit,
    images: ImageSet,
    *,
    loss: str = "correlation",
    steps: int = 200,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Circuit:
    """Returns the circuit with its kept structures multiplied by positive numbers that were trained.

    Never worse than the circuit by itself on the pictures held back for that (a fifth of ``images``).

    Args:
        circuit: with biases="masked", not compensated, that keeps something.
        images: pictures to train on; those that were scored on, not those to measure on.
        loss: "correlation" trains for 1 - r, "difference" for mean |circuit - full| over mean |full|.
        steps: of 8 pictures each (32 where the target is one number an image).
        seed: for the split of the pictures and their order.
        batch_size: pictures at a time.
        progress: called with the steps that are done.

    Raises:
        MaskError: a pruned, compensated or empty circuit; an unknown loss; no step.
    """
    if circuit.kind != "masked" or not circuit.mask.n_kept:
        raise MaskError(
            f"expected a masked circuit that keeps something, got a {circuit.kind} one of {circuit.mask.n_kept} kept "
            f"{circuit.mask.granularity}s"
        )
    if loss not in LOSSES or steps < 1:
        raise MaskError(f"expected a loss of {', '.join(LOSSES)} and at least 1 step, got {loss!r} and {steps}")
    mask = circuit.mask
    job = Pass(circuit.model, [circuit.target], images, granularity=mask.granularity, batch_size=batch_size)
    gates = Gates(circuit.model, job.graph, job.relevant[0], mask.granularity)
    training = Training(*divided(job, seed), gates, loss, steps, seed)
    kept = gates.flat(mask.kept).double().to(training.device)
    logarithms = torch.zeros_like(kept)
    optimiser = torch.optim.Adam([logarithms], lr=RATE)
    peak, best = kept, training.worth(kept)  # the circuit by itself, so that the result is never worse
    for step in range(1, steps + 1):
        scales = kept * logarithms.exp()
        # of logarithms, so that scales stay positive: the gradient with respect to log s is that to s, times s
        logarithms.grad = training.gradient(scales, step - 1) * scales
        optimiser.step()
        if progress is not None:
            progress("scales", step, steps)
        if step % EVERY == 0 or step == steps:
            scales = kept * logarithms.exp()
            worth = training.worth(scales)
            peak, best = (scales, worth) if worth > best else (peak, best)
    values = {n: a + (~mask.relevant[n]).to(a.dtype) for n, a in gates.unflat(peak.float()).items()}
    return replace(circuit, compensation=Scales(mask, values, len(images)))
