"""What circuits of `reconstruct` keep, at the target and inside, beside single-shot criteria on the same pictures.

    uv run python benchmarks/reconstruct.py squeezenet1_1 [seed ...]    # needs VISCIRCUITS_DATA
    uv run python benchmarks/reconstruct.py resnet20 [seed ...]         # needs VISCIRCUITS_DATA
    uv run python benchmarks/reconstruct.py shapesnet [seed ...]
    uv run python benchmarks/reconstruct.py tune                        # the two channels that it was tuned on

Channels and pictures are those of benchmarks/criteria.py and benchmarks/learned.py. The seed (0 unless given) draws
positions; odd ones exchange the pictures that are scored on and those that are measured on. Circuits are masked, and
measured on pictures that were not scored on. One row a circuit in docs/results/reconstruct-<network>.csv; an
interrupted run goes on with the next target. Prints the medians.

*inside* is the median of `vc.inside` over filters that neither read the image nor are the target; *worst* that of the
layer where it is least. *halves* is the IoU of the circuits found on two halves of the scoring pictures, at .10.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import criteria
import learned
import polars as pl
import torch

import viscircuits as vc
from viscircuits.target import AnyTarget

RESULTS = criteria.RESULTS
DENSITIES = (0.2, 0.1, 0.05, 0.02)
VARIANTS = ("reconstruct", "reconstruct,rounds=5")
OTHERS = ("actgrad", "snip", "force")
HALVES = 0.1
"""The density at which halves of the pictures are compared."""
TUNED = ("features.7.expand3x3:77", "features.10.expand3x3:30")


def inside(circuit: vc.Circuit, images: vc.ImageSet) -> dict[str, float | None]:
    """The median over filters, and that of the worst layer; none where no filter is left to ask about."""
    table = vc.inside(circuit, images).filter(pl.col("role") == "")
    layers = table.group_by("layer").agg(pl.col("within").median())
    return {"inside": table["within"].median(), "worst": layers["within"].min()}


def rows(job: vc.Sweep, target: AnyTarget, seed: int) -> Iterator[dict[str, Any]]:
    """One row a criterion and density."""
    few = job.scoring.take(min(criteria.FORCE_PICTURES, len(job.scoring)), seed)
    full = vc.Reference(
        vc.respond(job.model, vc.Readout(target, vc.trace(job.model, few[0].shape)), job.held_out), str(target)
    )
    for criterion in (*VARIANTS, *OTHERS):
        started, once = time.process_time(), None
        if criterion != "force":
            once = vc.score(job.model, target, job.scoring, criterion, seed=seed)
        seconds, halves = time.process_time() - started, None
        if once is not None:
            masks = [
                vc.score(job.model, target, half, criterion, seed=seed).select(density=HALVES)
                for half in job.scoring.split(0.5, seed=seed)
            ]
            halves = masks[0].iou(masks[1])
        for density in DENSITIES:
            scores = once or vc.score(job.model, target, few, criterion, density=density)
            circuit = vc.Circuit(job.model, target, scores.select(density=density))
            kept = vc.preservation(circuit, job.held_out, full=full)
            yield {
                "target": str(target), "seed": seed, "criterion": criterion, "density": density,
                "within": kept.pearson_within, "pearson": kept.pearson, "relative_difference": kept.relative_difference,
                "sd_ratio": kept.sd_ratio, **inside(circuit, job.held_out), "kept": circuit.mask.n_kept,
                "effective": circuit.effective.n_kept, "halves": halves if density == HALVES else None,
                "seconds": seconds,
            }  # fmt: skip


def run(name: str, job: vc.Sweep, seed: int) -> None:
    """Measures the targets that are not in the table yet."""
    path = RESULTS / f"reconstruct-{name}.csv"
    done = pl.read_csv(path).to_dicts() if path.exists() else []
    commit = criteria.head()
    for target in job.targets:
        if any((row["target"], row["seed"]) == (str(target), seed) for row in done):
            continue
        for row in rows(job, target, seed):
            done.append(row | {"commit": commit})
            print(*(f"{v:.3f}" if isinstance(v, float) else v for v in row.values()), flush=True)
        pl.DataFrame(done, infer_schema_length=None).write_csv(path, float_precision=6)
    print(medians(pl.DataFrame(done, infer_schema_length=None)))


def medians(frame: pl.DataFrame) -> pl.DataFrame:
    """Medians over targets and seeds, a row a density and criterion."""
    columns = ("within", "relative_difference", "sd_ratio", "inside", "worst", "halves", "seconds")
    return frame.group_by("density", "criterion", maintain_order=True).agg(pl.col(*columns).median())


def tune() -> vc.Sweep:
    """The channels of the gallery, which no table is about; halves of the scoring pictures of the others."""
    job = criteria.squeezenet1_1()
    scoring, held_out = job.scoring.split(0.5, seed=0)
    return vc.Sweep(job.model, [vc.parse_target(text) for text in TUNED], scoring, held_out, OTHERS, DENSITIES)


def with_seed(name: str, seed: int) -> vc.Sweep:
    """A network's channels, thinned as for benchmarks/learned.py; odd seeds exchange the halves of the pictures."""
    job = {"squeezenet1_1": criteria.squeezenet1_1, "shapesnet": criteria.shapesnet, "resnet20": learned.resnet20}[
        name
    ]()
    some = job.targets if len(job.targets) <= learned.MOST else job.targets[:: len(job.targets) // 8]
    scoring, held_out = (job.held_out, job.scoring) if seed % 2 else (job.scoring, job.held_out)
    return vc.Sweep(job.model, some, scoring, held_out, OTHERS, DENSITIES)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    name, *seeds = sys.argv[1:]
    if name == "tune":
        run("tune", tune(), 0)
    for seed in map(int, seeds or ["0"] * (name != "tune")):
        run(name, with_seed(name, seed), seed)
