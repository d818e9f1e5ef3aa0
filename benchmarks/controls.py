"""Controls of learned circuits: what gates reach that are trained for a response the network does not compute there.

    uv run python benchmarks/controls.py    # needs VISCIRCUITS_DATA; about 20 CPU-minutes

On every fourth of the twelve channels of benchmarks/learned.py squeezenet1_1, with its pictures, densities and training
(the start is the better of SNIP and ActGrad for the channel that is read, as there), two controls:

*another channel*: the network is the model, and the channel that is read is the channel; but the gates are trained for,
and the circuit is compared with, the full model's response of another channel of the layer. The other is the one whose
response has the least |r| with the channel's, of all channels of the layer, on the first scoring pictures.

*random order*: the weights of every convolution stand in random order within it (one draw; biases stay). The channel is
read in that network and gates are over its kernels; but they are trained for, and the circuit is compared with, the
response of the same channel in the model itself.

One row a circuit in docs/results/learned-controls.csv: |r| and the rest with the response that was trained for, on the
pictures that are measured on; ``asked`` is |r| with the channel's own response in the model, ``model_r`` that of the
two responses in full: of the two channels, or of the channel in both networks. An interrupted run goes on with the rung
where it stopped. benchmarks/learned.py page prints the rows.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import criteria
import learned
import polars as pl
import torch
from torch import nn

import viscircuits as vc
from viscircuits.execution.response import Response, respond, respond_full
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.gates import Gates, best
from viscircuits.saliency.gates.ladder import Ladder
from viscircuits.saliency.gates.training import Training
from viscircuits.saliency.learned import START_PICTURES, STARTS, STEPS, divided
from viscircuits.scores import Scores, kept_count

ROWS = learned.RESULTS / "learned-controls.csv"
CONTROLS = ("another channel", "random order")
EVERY, FIRST = 4, 1
"""Which of the twelve channels."""
COMPARED, SEED = 100, 0
"""Scoring pictures that the least correlated channel is chosen on."""


@dataclass(frozen=True)
class Control:
    """Gates over ``model`` that are read at ``target``, and the response of ``wanted`` in ``source`` to train for."""

    name: str
    model: nn.Module
    target: vc.Target
    source: nn.Module
    wanted: vc.Target

    def response(self, images: vc.ImageSet) -> Response:
        """The response that is trained for and compared with."""
        return answers(self.source, self.wanted, images)


def answers(model: nn.Module, target: vc.Target, images: vc.ImageSet) -> Response:
    """The full model's response to some pictures."""
    return respond(model, vc.Readout(target, vc.trace(model, images[0].shape)), images)


def least_like(model: nn.Module, target: vc.Target, images: vc.ImageSet) -> vc.Target:
    """The channel of the same layer whose response has the least |r| with the target's, of those that respond."""
    width = model.get_submodule(target.layer).out_channels
    others = [vc.Target(target.layer, channel) for channel in range(width) if channel != target.channel]
    graph = vc.trace(model, images[0].shape)
    own, *found = respond_full(model, [vc.Readout(t, graph) for t in (target, *others)], images)
    reference = vc.Reference(own, str(target))
    kept = [(reference.compare(response.values), other) for other, response in zip(others, found, strict=True)]
    return min((each for each in kept if each[0].reason is None), key=lambda each: each[0].pearson)[1]


def in_random_order(model: nn.Module, seed: int, kinds: tuple[type[nn.Module], ...] = (nn.Conv2d,)) -> nn.Module:
    """A copy in which the weights of every convolution, or of layers of some kinds, stand in random order within it."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, kinds):
            weight = module.get_parameter("weight").detach()
            order = torch.randperm(weight.numel(), generator=generator)
            module.register_parameter("weight", nn.Parameter(weight.flatten()[order].view_as(weight)))
    return model


def controls(job: vc.Sweep, target: vc.Target) -> Iterator[Control]:
    """Both controls of a channel."""
    other = least_like(job.model, target, job.scoring.take(COMPARED, SEED))
    yield Control(CONTROLS[0], job.model, target, job.model, other)
    yield Control(CONTROLS[1], in_random_order(job.model, SEED), target, job.model, target)


def trained(control: Control, images: vc.ImageSet, file: Path) -> Scores:
    """What `viscircuits.saliency.learned` makes of the control's network and target, trained for the other response."""
    job = Pass(control.model, [control.target], images, batch_size=16)
    gates = Gates(job.model, job.graph, job.relevant[0], job.granularity)
    counts = [kept_count(density, gates.count) for density in learned.DENSITIES]
    own, held = divided(job, SEED)
    training = Training(own, held, gates, "correlation", STEPS, SEED)
    # what a training compares with is found from its own network: here it is given
    object.__setattr__(training, "_full", (control.response(own.images), control.response(held)))
    start, worths = best_start(training, counts)
    ranking = Ladder(training, counts, start, worths, file).ranking()
    (scores,) = job.scores("learned", {name: array[None] for name, array in gates.unflat(ranking).items()}, n_images=1)
    return scores


def best_start(training: Training, counts: Sequence[int]) -> tuple[torch.Tensor, list[float]]:
    """The scores of the better start, one number a gate, and how good its circuits are at every rung."""
    images = training.job.images.take(min(START_PICTURES, len(training.job.images)), SEED)
    found = []
    for criterion in STARTS:
        (scores,) = criterion(replace(training.job, images=images))
        values = training.gates.flat(scores.sums).double()
        found.append((values, [training.worth(best(values, k)) for k in counts]))
    return max(found, key=lambda pair: sum(pair[1]))


def measured(job: vc.Sweep, control: Control) -> Iterator[dict[str, Any]]:
    """One row a density."""
    started = time.process_time()
    file = criteria.ROOT / f"studies/controls/{control.name} {control.target}.safetensors".replace(" ", "-")
    scores = trained(control, job.scoring, file)
    seconds = time.process_time() - started
    wanted = vc.Reference(control.response(job.held_out), str(control.wanted))
    asked = vc.Reference(answers(job.model, control.target, job.held_out), str(control.target))
    whole = answers(control.model, control.target, job.held_out)
    for density in learned.DENSITIES:
        circuit = vc.Circuit(control.model, control.target, scores.select(density=density))
        values = circuit.respond(job.held_out)
        found = wanted.compare(values, disconnected=circuit.disconnected)
        yield {
            "target": str(control.target), "control": control.name, "trained_for": str(control.wanted),
            "model_r": wanted.compare(whole.values).pearson, "density": density, "pearson": found.pearson,
            "within": found.pearson_within, "asked": asked.compare(values, disconnected=circuit.disconnected).pearson,
            "relative_difference": found.relative_difference, "sd_ratio": found.sd_ratio, "kept": circuit.mask.n_kept,
            "effective": circuit.effective.n_kept, "seconds": seconds,
        }  # fmt: skip


def main() -> None:
    """Measures what is not in the table yet."""
    commit, job = criteria.head(), criteria.squeezenet1_1()
    (criteria.ROOT / "studies/controls").mkdir(parents=True, exist_ok=True)
    rows = pl.read_csv(ROWS).to_dicts() if ROWS.exists() else []
    done = {(row["target"], row["control"]) for row in rows}
    for target in job.targets[FIRST::EVERY]:
        assert isinstance(target, vc.Target)
        for control in controls(job, target):
            if (str(target), control.name) in done:
                continue
            for row in measured(job, control):
                rows.append(row | {"commit": commit})
                print(*rows[-1].values(), flush=True)
            pl.DataFrame(rows).write_csv(ROWS, float_precision=6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
