"""What circuits of `reconstruct` keep, at the target and inside, beside single-shot criteria on the same pictures.

    uv run python benchmarks/reconstruct.py squeezenet1_1 [seed ...]    # needs VISCIRCUITS_DATA
    uv run python benchmarks/reconstruct.py resnet20 [seed ...]         # needs VISCIRCUITS_DATA
    uv run python benchmarks/reconstruct.py lite0 [seed ...]            # needs VISCIRCUITS_DATA
    uv run python benchmarks/reconstruct.py shapesnet [seed ...]
    uv run python benchmarks/reconstruct.py tune                        # the two channels that it was tuned on
    uv run python benchmarks/reconstruct.py cost                        # needs VISCIRCUITS_DATA; an idle machine
    uv run python benchmarks/reconstruct.py page                        # writes docs/results/reconstruct.md

Channels and pictures are those of benchmarks/criteria.py and benchmarks/learned.py. The seed (0 unless given) draws
positions; odd ones exchange the pictures that are scored on and those that are measured on. The ladder and the controls
are measured with seed 0 alone, on squeezenet1_1 on every fourth channel. Circuits are masked, and measured on pictures
that were not scored on. One row a circuit in docs/results/reconstruct-<network>.csv; an interrupted run goes on with
the next target.

*inside* is the median of `vc.inside` over filters that neither read the image nor are the target; *worst* that of the
layer where it is least. *halves* is the IoU of the circuits found on two halves of the scoring pictures, at .10.

Two controls, two draws each. *random order*: the weights of every convolution and linear layer stand in random order
(biases and norms stay), the criterion finds the channel's circuit in that network, and its response there is compared
with the channel's in the model itself. *random*: circuits with as many kernels in each layer, drawn at random.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import controls
import criteria
import learned
import polars as pl
import reconstruct_cost
import reconstruct_page
import torch
from torch import nn

import viscircuits as vc
from viscircuits.evaluate.faithfulness import random_like
from viscircuits.evaluate.inside import medians
from viscircuits.target import AnyTarget

RESULTS = criteria.RESULTS
OWN, LADDER = "reconstruct", "reconstruct,rounds=5"
OTHERS = ("actgrad", "snip", "force")
DENSITIES = (0.1, 0.05)
OWN_DENSITIES = (0.2, 0.1, 0.05, 0.02)
LOOKED_INSIDE = (OWN, LADDER, "snip")
AT = 0.1
"""The density at which circuits are looked into, and halves of the pictures compared."""
DRAWS = (0, 1)
TUNED = ("features.7.expand3x3:77", "features.10.expand3x3:30")
LITE0 = (
    vc.Target("blocks.3.0.conv_pwl", 11), vc.Target("blocks.4.1.conv_pwl", 40), vc.Target("blocks.5.1.conv_pwl", 100),
)  # fmt: skip


def looked_into(circuit: vc.Circuit, images: vc.ImageSet) -> dict[str, float | None]:
    """The median over filters, and that of the worst layer; none where no filter is left to ask about."""
    every, worst = medians(vc.inside(circuit, images))
    return {"inside": every, "worst": worst}


class Channel:
    """One target of a sweep, and what its circuits are compared with."""

    def __init__(self, job: vc.Sweep, target: AnyTarget, seed: int, whole: bool) -> None:
        self.job, self.target, self.seed, self.whole = job, target, seed, whole
        readout = vc.Readout(target, vc.trace(job.model, job.scoring[0].shape))
        self.full = vc.Reference(vc.respond(job.model, readout, job.held_out), str(target))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row a criterion and density, then one a control and draw."""
        for criterion in (OWN, *[LADDER] * self.whole, *OTHERS):
            yield from self.of(criterion)
        for draw in DRAWS if self.whole else ():
            yield from self.controls(draw)

    def score(self, model: nn.Module, images: vc.ImageSet, criterion: str, density: float | None = None) -> vc.Scores:
        """The target's scores in some network."""
        return vc.score(model, self.target, images, criterion, density=density, seed=self.seed)

    def of(self, criterion: str) -> Iterator[dict[str, Any]]:
        """One row a density."""
        scoring, own = self.job.scoring, criterion in (OWN, LADDER)
        few = scoring.take(min(criteria.FORCE_PICTURES, len(scoring)), self.seed)
        started = process_time()
        once = None if criterion == "force" else self.score(self.job.model, scoring, criterion)
        seconds = process_time() - started
        for density in OWN_DENSITIES if own else DENSITIES:
            scores = once or self.score(self.job.model, few, criterion, density)
            mask = scores.select(density=density)
            row = self.row(criterion, density, self.job.model, mask) | {"seconds": seconds}
            if density == AT and criterion == OWN:
                parts = [self.score(self.job.model, half, criterion) for half in scoring.split(0.5, seed=self.seed)]
                first, second = (part.select(density=AT) for part in parts)
                row["halves"] = first.iou(second)
                for draw in DRAWS:
                    yield self.row("random", density, self.job.model, random_like(mask, draw))
            yield row

    def controls(self, draw: int) -> Iterator[dict[str, Any]]:
        """One row a density: circuits of a network whose weights stand in random order."""
        model = controls.in_random_order(self.job.model, draw, (nn.Conv2d, nn.Linear))
        scores = self.score(model, self.job.scoring, OWN)
        for density in DENSITIES:
            yield self.row("random order", density, model, scores.select(density=density))

    def row(self, criterion: str, density: float, model: nn.Module, mask: vc.Mask) -> dict[str, Any]:
        """What a circuit keeps of the model's response."""
        circuit = vc.Circuit(model, self.target, mask)
        kept = vc.preservation(circuit, self.job.held_out, full=self.full)
        inside: dict[str, float | None] = {"inside": None, "worst": None}
        if density == AT and criterion in LOOKED_INSIDE:
            inside = looked_into(circuit, self.job.held_out)
        return {
            "target": str(self.target), "seed": self.seed, "criterion": criterion, "density": density,
            "within": kept.pearson_within, "pearson": kept.pearson, "relative_difference": kept.relative_difference,
            "sd_ratio": kept.sd_ratio, **inside, "kept": mask.n_kept, "effective": circuit.effective.n_kept,
            "halves": None, "seconds": None,
        }  # fmt: skip


def run(name: str, job: vc.Sweep, seed: int) -> None:
    """Measures the targets that are not in the table yet."""
    path = RESULTS / f"reconstruct-{name}.csv"
    done = pl.read_csv(path).to_dicts() if path.exists() else []
    commit = criteria.head()
    few = job.targets[controls.FIRST :: controls.EVERY] if name == "squeezenet1_1" else job.targets
    for target in job.targets:
        if any((row["target"], row["seed"]) == (str(target), seed) for row in done):
            continue
        for row in Channel(job, target, seed, seed == 0 and target in few).rows():
            done.append(row | {"commit": commit})
            print(*(f"{v:.3f}" if isinstance(v, float) else v for v in row.values()), flush=True)
        pl.DataFrame(done, infer_schema_length=None).write_csv(path, float_precision=6)
    print(reconstruct_page.medians(pl.DataFrame(done, infer_schema_length=None)))


def tune() -> vc.Sweep:
    """The channels of the gallery, which no table is about; halves of the scoring pictures of the others."""
    job = criteria.squeezenet1_1()
    scoring, held_out = job.scoring.split(0.5, seed=0)
    return vc.Sweep(job.model, [vc.parse_target(text) for text in TUNED], scoring, held_out, OTHERS, DENSITIES)


def lite0() -> vc.Sweep:
    """Three channels of EfficientNet-Lite0; 300 pictures for scores, 300 others for measuring."""
    sys.path.insert(0, str(criteria.ROOT / "tests"))  # where the architecture stands
    data = Path(os.environ.get("VISCIRCUITS_DATA", criteria.ROOT / "../shared/data"))
    weights = data / "weights/efficientnet_lite0-imagenet.safetensors"
    model, prepare = vc.zoo.load("efficientnet_lite0:efficientnet_lite0", weights)
    images = vc.ImageSet.from_folder(data / "imagenet-1000", prepare).take(600, 0).in_memory()
    return vc.Sweep(model, list(LITE0), *images.split(0.5, seed=0), OTHERS, DENSITIES)


NETWORKS = {
    "squeezenet1_1": criteria.squeezenet1_1, "shapesnet": criteria.shapesnet, "resnet20": learned.resnet20,
    "lite0": lite0,
}  # fmt: skip


def with_seed(name: str, seed: int) -> vc.Sweep:
    """A network's channels, thinned as for benchmarks/learned.py; odd seeds exchange the halves of the pictures."""
    job = NETWORKS[name]()
    some = job.targets if len(job.targets) <= learned.MOST else job.targets[:: len(job.targets) // 8]
    scoring, held_out = (job.held_out, job.scoring) if seed % 2 else (job.scoring, job.held_out)
    return vc.Sweep(job.model, some, scoring, held_out, OTHERS, DENSITIES)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    name, *seeds = sys.argv[1:]
    if name in ("page", "cost"):
        {"page": reconstruct_page.write, "cost": reconstruct_cost.measure}[name]()
    elif name == "tune":
        run("tune", tune(), 0)
    else:
        for seed in map(int, seeds or ["0"]):
            run(name, with_seed(name, seed), seed)
