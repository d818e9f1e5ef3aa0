"""How much better learned circuits keep their targets than the best single-shot criterion of each.

    uv run python benchmarks/learned.py squeezenet1_1    # needs VISCIRCUITS_DATA
    uv run python benchmarks/learned.py shapesnet
    uv run python benchmarks/learned.py resnet20         # needs VISCIRCUITS_DATA
    uv run python benchmarks/learned.py planted
    uv run python benchmarks/learned.py draw
    uv run python benchmarks/learned.py page

The first two measure on channels and pictures of benchmarks/criteria.py, the third on eight channels and CIFAR-10, the
fourth on planted circuits. All keep one row a circuit in docs/results/learned-<network>.csv; an interrupted run goes on
with the rung where it stopped. The last writes docs/results/learned.md from these and from the rows of the single-shot
criteria. Intervals are bootstraps over the pictures that are measured on.
"""

import math
import os
import platform
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import criteria
import polars as pl
import torch

import viscircuits as vc
from viscircuits.evaluate.sweep import sweep as swept
from viscircuits.planted import CASES, recovery
from viscircuits.saliency.learned import STEPS, learned
from viscircuits.saliency.passes import Pass
from viscircuits.saliency.training import ROUNDS, SOME
from viscircuits.target import AnyTarget

RESULTS = criteria.ROOT / "docs/results"
DENSITIES = (0.1, 0.05, 0.01)
MOST = 12
"""More channels than that are thinned to about eight."""
SEED = 0


def resnet20() -> vc.Sweep:
    """8 random channels of the second convolutions of layer2 and layer3; 300 pictures for scores, 300 for measuring."""
    data = Path(os.environ.get("VISCIRCUITS_DATA", criteria.ROOT / "../shared/data"))
    sys.path.insert(0, str(criteria.ROOT / "tests"))  # where the architecture stands
    model, prepare = vc.zoo.load("cifar_resnet20:resnet20", data / "weights/resnet20-cifar10.safetensors")
    images = vc.ImageSet.from_folder(data / "cifar10/test", prepare).take(600, SEED).in_memory()
    layers = [f"layer{stage}.{block}.conv2" for stage in (2, 3) for block in (0, 1, 2)]
    channels = [(layer, c) for layer in layers for c in range(len(model.get_parameter(f"{layer}.weight")))]
    targets = [vc.Target(layer, c) for layer, c in sorted(random.Random(SEED).sample(channels, 8))]
    return vc.Sweep(model, targets, *images.split(0.5, seed=SEED), criteria.CRITERIA, DENSITIES, seed=SEED)


def measured(job: vc.Sweep, target: AnyTarget, resume: Path) -> Iterator[dict[str, Any]]:
    """One row a density: what the learned circuit keeps on unseen pictures, and what it cost.

    Beside |r| with its interval stands |r| within positions, for the learned circuit and for SNIP's.
    """
    passes = Pass(job.model, [target], job.scoring, batch_size=16)
    started = time.process_time()
    (scores,) = learned(passes, densities=DENSITIES, seed=SEED, resume=resume)
    seconds = time.process_time() - started
    single = vc.score(job.model, target, job.scoring, "snip")
    readout = vc.Readout(target, vc.trace(job.model, job.held_out[0].shape))
    full = vc.respond(job.model, readout, job.held_out)
    reference = vc.Reference(full, str(target))
    for density in DENSITIES:
        circuit = vc.Circuit(job.model, target, scores.select(density=density))
        values = circuit.respond(job.held_out, frozen=full.frozen)
        found = reference.compare(values, disconnected=circuit.disconnected)
        interval = vc.bootstrap(full.values, values)
        other = vc.Circuit(job.model, target, single.select(density=density))
        yield {
            "target": str(target), "density": density, "pearson": found.pearson,
            "low": interval.low, "high": interval.high, "within": found.pearson_within,
            "snip_within": vc.preservation(other, job.held_out, full=reference).pearson_within,
            "kept": circuit.mask.n_kept, "effective": circuit.effective.n_kept, "seconds": seconds,
        }  # fmt: skip


def run(name: str, job: vc.Sweep, targets: Sequence[AnyTarget]) -> None:
    """Measures the targets that are not in the table yet."""
    path, single = RESULTS / f"learned-{name}.csv", RESULTS / f"criteria-{name}.csv"
    if not single.exists():
        swept(job).write_csv(single, float_precision=6)
    rows = pl.read_csv(path).to_dicts() if path.exists() else []
    for target in targets:
        if any(row["target"] == str(target) for row in rows):
            continue
        for row in measured(job, target, criteria.ROOT / "studies/learned"):
            rows.append(row)
            print(*row.values(), flush=True)
        pl.DataFrame(rows).write_csv(path, float_precision=6)


LOSSES = ("learned", "learned,loss=difference")
PLANTED_SEEDS = (0, 1)


def run_planted() -> None:
    """Measures how much of each planted circuit is found at its true size."""
    path = RESULTS / "learned-planted.csv"
    rows = pl.read_csv(path).to_dicts() if path.exists() else []
    for seed in PLANTED_SEEDS:
        for name, builder in CASES.items():
            case = builder(seed)
            for criterion in LOSSES:
                if any((row["case"], row["seed"], row["criterion"]) == (name, seed, criterion) for row in rows):
                    continue
                density = case.truth.density
                scores = vc.score(case.model, case.target, case.images, criterion, density=density, seed=SEED)
                found = recovery(scores, case, density=density)
                row = {"case": name, "seed": seed, "criterion": criterion, "recall": found.recall}
                rows.append(row | {"pearson": found.pearson})
                print(*rows[-1].values(), flush=True)
                pl.DataFrame(rows).write_csv(path, float_precision=4)


def planted_section() -> str:
    """The part of the page on planted circuits."""
    own = pl.read_csv(RESULTS / "learned-planted.csv")
    others = pl.read_csv(RESULTS / "planted.csv").filter(
        pl.col("octaves") > 0, pl.col("size") == 1, pl.col("seed").is_in(own["seed"].unique().to_list()),
        pl.col("criterion").is_in(["actgrad", "snip", "force"]),
    )  # fmt: skip
    frame = pl.concat([own, others.select(own.columns)])
    cells = frame.group_by("criterion", "case", maintain_order=True).agg(pl.col("recall", "pearson").mean())
    cells = cells.with_columns(cell=pl.format("{} / {}", pl.col("recall").round(2), pl.col("pearson").round(2)))
    wide = cells.pivot("case", index="criterion", values="cell")
    lines = [f"| {' | '.join(wide.columns)} |", "|---" * wide.width + "|"]
    lines += [f"| {' | '.join(row)} |" for row in wide.iter_rows()]
    seeds = f"seeds {', '.join(map(str, PLANTED_SEEDS))}"
    return "\n".join([
        "## Planted circuits", "",
        f"Recall at the true size (which is precision here) / |r|, means over {seeds} ([cases](../planted.md)).", "",
        *lines,
    ])  # fmt: skip


DRAWN = {vc.Target("features.8", 3): 0.9, vc.Target("features.10", 5): 0.7}
"""Channels of the built-in network, and the |r| that their drawn circuits keep at least."""
TRIED = (0.1, 0.07, 0.05, 0.03, 0.02, 0.01)


def draw() -> None:
    """Draws, of SNIP and of learned, the smallest circuit tried that keeps enough."""
    job = criteria.shapesnet()
    _, prepare = vc.zoo.load("shapesnet")
    for target, least in DRAWN.items():
        snip, own = (vc.score(job.model, target, job.scoring, name, seed=SEED) for name in ("snip", "learned"))
        for name, scores in {"snip": snip, "learned": own}.items():
            made = [vc.Circuit(job.model, target, scores.select(density=density)) for density in TRIED]
            able = [circuit for circuit in made if vc.preservation(circuit, job.held_out).pearson >= least]
            picture = vc.diagram(able[-1], scores=snip, images=job.held_out, prepare=prepare)
            (RESULTS / f"learned/{target.layer}-{target.channel}-{name}.svg").write_text(picture.svg())
            print(target, name, able[-1].effective.n_kept, vc.preservation(able[-1], job.held_out).pearson)


def compared(name: str) -> pl.DataFrame:
    """Every learned circuit beside the best single-shot one of its target and density."""
    single = pl.read_csv(RESULTS / f"criteria-{name}.csv")
    best = single.sort("pearson", descending=True).group_by("target", "density", maintain_order=True).first()
    best = best.select("target", "density", pl.col("pearson").alias("best"), "criterion")
    rows = pl.read_csv(RESULTS / f"learned-{name}.csv").join(best, on=["target", "density"], maintain_order="left")
    return rows.with_columns(gain=pl.col("pearson") - pl.col("best"))


def section(name: str) -> str:
    """The part of the page on one network."""
    frame = compared(name)
    lines = ["| target | " + " | ".join(f"{d:g}: learned | best other" for d in DENSITIES) + " |"]
    lines.append("|---" * (1 + 2 * len(DENSITIES)) + "|")
    for (target,), part in frame.group_by("target", maintain_order=True):
        cells = [
            f"{r['pearson']:.3f} ({r['low']:.3f} to {r['high']:.3f}) | {r['best']:.3f} {r['criterion']}"
            for r in part.sort("density", descending=True).iter_rows(named=True)
        ]
        lines.append(f"| {target} | " + " | ".join(cells) + " |")
    summary = frame.group_by("density").agg(
        pl.col("pearson").median(), pl.col("best").median(), pl.col("gain").median(),
        pl.col("gain").min().alias("least"), (pl.col("high") < pl.col("best")).sum().alias("below"),
        pl.col("within").median(), pl.col("snip_within").median(),
    ).sort("density", descending=True)  # fmt: skip
    head = [
        "| density | median learned | median best other | median gain | least gain | worse | within | SNIP within |"
    ]
    table = [
        f"| {d:g} | {own:.3f} | {best:.3f} | {gain:+.3f} | {least:+.3f} | {below} | {within:.3f} | {other:.3f} |"
        for d, own, best, gain, least, below, within, other in summary.iter_rows()
    ]
    return "\n".join([
        f"## {name}", "", f"{frame['target'].n_unique()} channels. |Pearson r| and its middle 95 % over pictures.", "",
        *head, "|---" * 8 + "|", *table, "", *lines, "",
        f"CPU time of one family: median {frame['seconds'].median():.0f} s on one thread of a shared machine.",
    ])  # fmt: skip


def at_equal(name: str) -> str:
    """How many kernels the smallest single-shot circuit needs that keeps as much as the learned one at .01."""
    single = pl.read_csv(RESULTS / f"criteria-{name}.csv").filter(pl.col("order") == "best")
    rows = pl.read_csv(RESULTS / f"learned-{name}.csv").filter(pl.col("density") == min(DENSITIES))
    lines = ["| target | abs r | kernels, learned | kernels, other | times |", "|---" * 5 + "|"]
    for row in rows.iter_rows(named=True):
        able = single.filter(pl.col("target") == row["target"], pl.col("pearson") >= row["pearson"]).sort("effective")
        if not len(able) or not row["effective"]:
            continue
        other = able.row(0, named=True)
        lines.append(
            f"| {row['target']} | {row['pearson']:.2f} | {row['effective']:,} | {other['effective']:,} "
            f"({other['criterion']}, {other['pearson']:.2f}) | {other['effective'] / row['effective']:.0f} |"
        )
    return "\n".join([
        "Kernels on a path from the image to the target, in the learned circuit at the smallest density and in the "
        "smallest measured single-shot circuit that keeps at least as much:", "", *lines,
    ])  # fmt: skip


def page() -> str:
    """The page kept in docs/results/."""
    names = [name for name in ("squeezenet1_1", "shapesnet", "resnet20") if (RESULTS / f"learned-{name}.csv").exists()]
    most = STEPS * math.log2(1 / min(DENSITIES)) + len(DENSITIES) * ROUNDS[1] * (STEPS // 3)
    return "\n".join([
        "# Learned circuits", "",
        "Kernels kept by gates that are trained to keep the response (`learned`), beside the best of actgrad, snip, "
        "force, magnitude and random on each channel ([SqueezeNet](criteria-squeezenet1_1.md), "
        "[the built-in network](criteria-shapesnet.md)). Same pictures: half for scores or training, half to "
        "measure on. Worse: channels whose interval lies below the other circuit. Within: median |r| after each "
        "position's mean over the pictures is subtracted, so that a bright border counts nothing. One training gives "
        f"the nested circuits of all densities; it takes at most {most:.0f} steps of {SOME} pictures, the work of "
        f"{most * SOME / 32:.0f} forward and backward passes of 32.", "",
        *(f"{section(name)}\n\n{at_equal(name)}\n" for name in names),
        "## Before and after", "",
        "Circuits of two channels of the built-in network that keep about as much, by SNIP and learned (line widths "
        "are SNIP's scores in both; the numbers stand in the pictures; `benchmarks/learned.py draw`):", "",
        *(f"- {t}: [SNIP](learned/{t.layer}-{t.channel}-snip.svg), [learned](learned/{t.layer}-{t.channel}-learned.svg)"
          for t in DRAWN), "",
        *([planted_section(), ""] if (RESULTS / "learned-planted.csv").exists() else []),
        f"Command: `uv run python benchmarks/learned.py NETWORK`, then `page`; seed {SEED}, torch {torch.__version__}, "
        f"{platform.machine()}, 1 thread; commit {criteria.head()}.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "page":
        (RESULTS / "learned.md").write_text(page())
        print(page())
    elif sys.argv[1] in ("planted", "draw"):
        {"planted": run_planted, "draw": draw}[sys.argv[1]]()
    else:
        jobs = {"squeezenet1_1": criteria.squeezenet1_1, "shapesnet": criteria.shapesnet, "resnet20": resnet20}
        sweep = jobs[sys.argv[1]]()
        some = sweep.targets if len(sweep.targets) <= MOST else sweep.targets[:: len(sweep.targets) // 8]
        run(sys.argv[1], sweep, some)
