"""How much better learned circuits keep their targets than the best single-shot criterion of each.

    uv run python benchmarks/learned.py squeezenet1_1    # needs VISCIRCUITS_DATA
    uv run python benchmarks/learned.py shapesnet
    uv run python benchmarks/learned.py resnet20         # needs VISCIRCUITS_DATA
    uv run python benchmarks/learned.py planted
    uv run python benchmarks/learned.py draw
    uv run python benchmarks/learned.py page

The first two measure on channels and pictures of benchmarks/criteria.py, the third on eight channels and CIFAR-10, the
fourth on planted circuits. All keep one row a circuit in docs/results/learned-<network>.csv; an interrupted run goes on
with the rung where it stopped, and measures anew what lacks a column. The last writes the tables of
docs/results/learned.md, below what is written there by hand, from these, from the rows of the single-shot criteria and
from those of benchmarks/controls.py. Intervals are bootstraps over the pictures that are measured on.
"""

import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import criteria
import polars as pl
import torch

import viscircuits as vc
from viscircuits.evaluate.sweep import sweep as swept
from viscircuits.planted import CASES, recovery
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.training import ROUNDS, SOME
from viscircuits.saliency.learned import STEPS, learned
from viscircuits.target import AnyTarget

RESULTS = criteria.ROOT / "docs/results"
PAGE = RESULTS / "learned.md"
START, END = "<!-- printed by benchmarks/learned.py -->", "<!-- end -->"
NETWORKS = ("squeezenet1_1", "shapesnet", "resnet20")
DENSITIES = (0.1, 0.05, 0.01)
MOST = 12
"""More channels than that are thinned to about eight."""
SEED = 0
NEWEST = "sd_ratio"
"""The column that came last: rows of older tables lack it."""


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
    """One row a density: what the learned circuit keeps on pictures it was not trained on, and what it cost.

    Beside |r| with its interval stand, for the learned circuit and for SNIP's, |r| within positions and the spread of
    the responses over the model's.
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
        other = vc.preservation(
            vc.Circuit(job.model, target, single.select(density=density)), job.held_out, full=reference
        )
        yield {
            "target": str(target), "density": density, "pearson": found.pearson,
            "low": interval.low, "high": interval.high, "within": found.pearson_within,
            "snip_within": other.pearson_within, "relative_difference": found.relative_difference,
            "sd_ratio": found.sd_ratio, "snip_sd_ratio": other.sd_ratio,
            "kept": circuit.mask.n_kept, "effective": circuit.effective.n_kept, "seconds": seconds,
        }  # fmt: skip


def run(name: str, job: vc.Sweep, targets: Sequence[AnyTarget]) -> None:
    """Measures the targets that are not in the table yet, or not with all its columns."""
    path, single = RESULTS / f"learned-{name}.csv", RESULTS / f"criteria-{name}.csv"
    if not single.exists():
        swept(job).write_csv(single, float_precision=6)
    commit = criteria.head()  # before hours pass
    rows = pl.read_csv(path).to_dicts() if path.exists() else []
    of = {str(target): [row for row in rows if row["target"] == str(target)] for target in targets}
    for target in targets:
        if of[str(target)] and all(row.get(NEWEST) is not None for row in of[str(target)]):
            continue
        found = measured(job, target, criteria.ROOT / "studies/learned")
        of[str(target)] = [row | {"commit": commit} for row in found]
        for row in of[str(target)]:
            print(*row.values(), flush=True)
        every = [row for some in of.values() for row in some]
        pl.DataFrame(every, infer_schema_length=None).write_csv(path, float_precision=6)


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
    seeds = f"seeds {', '.join(map(str, PLANTED_SEEDS))}"
    return "\n".join([
        "## Planted circuits", "",
        f"Recall at the true size (which is precision here) / |r|, means over {seeds} ([cases](../planted.md)).", "",
        *lines(wide.columns, list(wide.iter_rows())),
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
    best = best.select(
        "target", "density", "criterion", best="pearson", other_difference="relative_difference"
    )  # fmt: skip
    rows = pl.read_csv(RESULTS / f"learned-{name}.csv").join(best, on=["target", "density"], maintain_order="left")
    return rows.with_columns(gain=pl.col("pearson") - pl.col("best"))


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def by_target(frame: pl.DataFrame, heads: Sequence[str], cells: Callable[[dict[str, Any]], Sequence[str]]) -> list[str]:
    """A table with a line a target and some columns a density."""
    first, *others = heads
    head = ["target", *(text for d in DENSITIES for text in (f"{d:g}: {first}", *others))]
    rows = []
    for (target,), part in frame.group_by("target", maintain_order=True):
        ordered = part.sort("density", descending=True).iter_rows(named=True)
        rows.append([target, *(cell for row in ordered for cell in cells(row))])
    return lines(head, rows)


def summary(frame: pl.DataFrame) -> list[str]:
    """The table of medians over targets."""
    heads = {
        "median learned": "pearson", "median best other": "best", "median gain": "gain", "within": "within",
        "SNIP within": "snip_within", "difference": "relative_difference", "other's difference": "other_difference",
        "spread": "sd_ratio", "SNIP's spread": "snip_sd_ratio",
    }  # fmt: skip
    rows = []
    for density in DENSITIES:
        part = frame.filter(density=density)
        forms = {"gain": "+.3f", "sd_ratio": ".4f", "snip_sd_ratio": ".4f"}
        cells = [f"{part[column].median():{forms.get(column, '.3f')}}" for column in heads.values()]
        below = int((part["high"] < part["best"]).sum())
        rows.append([f"{density:g}", *cells[:3], f"{part['gain'].min():+.3f}", str(below), *cells[3:]])
    names = list(heads)
    return lines(["density", *names[:3], "least gain", "worse", *names[3:]], rows)


def section(name: str) -> str:
    """The part of the page on one network."""
    frame = compared(name)
    kept = by_target(
        frame, ("learned", "best other"),
        lambda r: (f"{r['pearson']:.3f} ({r['low']:.3f} to {r['high']:.3f})", f"{r['best']:.3f} {r['criterion']}"),
    )  # fmt: skip
    size = by_target(
        frame, ("difference", "other's", "spread", "SNIP's"),
        lambda r: (
            f"{r['relative_difference']:.3f}", f"{r['other_difference']:.3f}", f"{r['sd_ratio']:.4f}",
            f"{r['snip_sd_ratio']:.4f}",
        ),
    )  # fmt: skip
    return "\n".join([
        f"## {name}", "",
        f"{frame['target'].n_unique()} channels. |Pearson r| and, in brackets, its interval over pictures.", "",
        *summary(frame), "", *kept, "", "The size of the responses, of the same circuits:", "", *size, "",
        f"CPU time of one family: median {frame['seconds'].median():.0f} s on one thread of a shared machine. Commit "
        f"{', '.join(frame['commit'].unique(maintain_order=True))}.",
    ])  # fmt: skip


def controls_section() -> str:
    """The part of the page on gates that were trained for another response."""
    own = pl.read_csv(RESULTS / "learned-squeezenet1_1.csv").select("target", "density", own="pearson")
    frame = pl.read_csv(RESULTS / "learned-controls.csv").join(own, on=["target", "density"], maintain_order="left")
    rows = [
        [
            r["target"], f"{r['density']:g}", r["control"], r["trained_for"], f"{r['model_r']:.2f}",
            f"{r['pearson']:.2f}", f"{r['within']:.2f}", f"{r['sd_ratio']:.4f}", f"{r['own']:.2f}",
        ]
        for r in frame.sort("density", descending=True, maintain_order=True).iter_rows(named=True)
    ]  # fmt: skip
    head = ["gates read at", "density", "control", "trained for", "abs r in full", "abs r", "within", "spread"]
    return "\n".join([
        "## Gates trained for another response", "",
        "Abs r, within and spread are with the response trained for. In full: abs r of the response read and the one "
        "trained for, before any gate is shut. Last: abs r of gates trained for the channel's own response.", "",
        *lines([*head, "trained for its own"], rows), "",
        f"Command: `uv run python benchmarks/controls.py`; commit {', '.join(frame['commit'].unique())}.",
    ])  # fmt: skip


def at_equal(name: str) -> str:
    """How many kernels the smallest single-shot circuit needs that keeps as much as the learned one at .01."""
    single = pl.read_csv(RESULTS / f"criteria-{name}.csv").filter(pl.col("order") == "best")
    learned = pl.read_csv(RESULTS / f"learned-{name}.csv").filter(pl.col("density") == min(DENSITIES))
    rows = []
    for row in learned.iter_rows(named=True):
        able = single.filter(pl.col("target") == row["target"], pl.col("pearson") >= row["pearson"]).sort("effective")
        if not len(able) or not row["effective"]:
            continue
        other = able.row(0, named=True)
        rows.append([
            row["target"], f"{row['pearson']:.2f}", f"{row['sd_ratio']:.4f}", f"{row['effective']:,}",
            f"{other['effective']:,} ({other['criterion']}, {other['pearson']:.2f})",
            f"{other['effective'] / row['effective']:.0f}",
        ])  # fmt: skip
    densities = ", ".join(f"{d:g}" for d in single["density"].unique().sort())
    return "\n".join([
        f"Kernels on a path from the image to the target, in the learned circuit at density {min(DENSITIES):g} and in "
        f"the smallest measured single-shot circuit that keeps at least as much ({len(rows)} of {len(learned)} "
        f"channels have one; measured densities: {densities}):", "",
        *lines(["target", "abs r", "spread, learned", "kernels, learned", "kernels, other", "times"], rows),
    ])  # fmt: skip


def page() -> str:
    """What is printed below the text of the page."""
    most = STEPS * math.log2(1 / min(DENSITIES)) + len(DENSITIES) * ROUNDS[1] * (STEPS // 3)
    return "\n".join([
        f"One training gives the nested circuits of all densities; it takes at most {most:.0f} steps of {SOME} "
        f"pictures, the work of {most * SOME / 32:.0f} forward and backward passes of 32.", "",
        *(f"{section(name)}\n\n{at_equal(name)}\n" for name in NETWORKS),
        controls_section(), "",
        "## Before and after", "",
        "Circuits of two channels of the built-in network that keep about as much, by SNIP and learned (line widths "
        "are SNIP's scores in both; the numbers stand in the pictures; `benchmarks/learned.py draw`):", "",
        *(f"- {t}: [SNIP](learned/{t.layer}-{t.channel}-snip.svg), [learned](learned/{t.layer}-{t.channel}-learned.svg)"
          for t in DRAWN), "",
        planted_section(), "",
        f"Command: `uv run python benchmarks/learned.py NETWORK`, then `page`; seed {SEED}, torch {torch.__version__}, "
        f"{platform.machine()}, 1 thread; commits as said, planted circuits 2ed8d9e.",
    ])  # fmt: skip


def write_page() -> None:
    """Replaces the printed part of the page."""
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n\n{page()}\n\n{END}{rest.partition(END)[2]}")
    print(page())


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "page":
        write_page()
    elif sys.argv[1] in ("planted", "draw"):
        {"planted": run_planted, "draw": draw}[sys.argv[1]]()
    else:
        jobs = {"squeezenet1_1": criteria.squeezenet1_1, "shapesnet": criteria.shapesnet, "resnet20": resnet20}
        sweep = jobs[sys.argv[1]]()
        some = sweep.targets if len(sweep.targets) <= MOST else sweep.targets[:: len(sweep.targets) // 8]
        run(sys.argv[1], sweep, some)
